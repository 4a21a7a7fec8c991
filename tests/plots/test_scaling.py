"""Scaling figures hold the numbers they were given."""

import numpy as np

from tfconvbias import plots


def test_exact_counts_are_lines_and_formulas_crosses():
    counts = {"α": {2: {"s_fc": (20, 21.0)}, 1: {"s_fc": (10, 11.0)}}}
    figure = plots.parameter_curves(counts)
    exact, formula = figure.axes[0].get_lines()[:2]
    np.testing.assert_array_equal(exact.get_xydata(), [[1, 10], [2, 20]])
    np.testing.assert_array_equal(formula.get_xydata(), [[1, 11], [2, 21]])
    assert formula.get_linestyle() == "None"
    assert exact.get_label() == "S-FC"


def test_accuracy_is_drawn_by_size_and_the_fitting_member_alone():
    train = {"a": [(20, 99.0), (10, 80.0)], "b": [(10, 50.0)]}
    test = {"a": [(20, 70.0), (10, 60.0)], "b": [(10, 40.0)]}
    figure = plots.accuracy_against_parameters(train, test, {"a": (20, 70.0)}, 95.0)
    left, middle, right = figure.axes
    np.testing.assert_array_equal(middle.get_lines()[0].get_xydata(), [[10, 60], [20, 70]])
    assert list(left.get_lines()[2].get_ydata()) == [95.0, 95.0]
    (point,) = right.get_lines()
    np.testing.assert_array_equal(point.get_xydata(), [[20, 70]])
    assert point.get_color() == left.get_lines()[0].get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["a", "b"]


def test_where_no_family_fits_there_is_no_empty_panel():
    points = {"a": [(10, 50.0)]}
    figure = plots.accuracy_against_parameters(points, points, {}, 95.0)
    assert len(figure.axes) == 2


def test_published_curves_are_dashed_and_of_the_same_colour():
    measured = {"cifar10": {"SGD": {5: [80.0], 3: [88.0, 92.0]}}, "mine": {"SGD": {3: [50.0]}}}
    figure = plots.accuracy_against_kernel_size(measured, {"cifar10": {"SGD": {3: 95.0, 5: 94.0}}})
    ours, *_, theirs = figure.axes[0].get_lines()
    np.testing.assert_array_equal(ours.get_xydata(), [[3, 90], [5, 80]])
    np.testing.assert_array_equal(theirs.get_xydata(), [[3, 95], [5, 94]])
    assert theirs.get_linestyle() == "--"
    assert theirs.get_color() == ours.get_color()
    assert len(figure.axes[1].get_lines()) == 1
    # Deviations of 88 and 92 are √8; a single seed has none, and a panel of single seeds no bars.
    (bars,) = (part.get_segments() for part in figure.axes[0].collections)
    np.testing.assert_allclose([high - low for (_, low), (_, high) in bars], [2 * 8**0.5, 0])
    assert not figure.axes[1].collections


def test_pairs_are_bars_side_by_side():
    figure = plots.accuracy_pairs({"a": (50.0, 20.0), "b": (30.0, 31.0)}, ("plain", "permuted"))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [50.0, 30.0, 20.0, 31.0]
