"""Figures hold the numbers they were given."""

import numpy as np
import pytest

from tfconvbias import plots

HISTORIES = {
    "first": {
        "epoch": [1, 2, 3],
        "loss": [3.0, 2.0, 1.0],
        "accuracy": [0.1, 0.5, 0.75],
        "val_accuracy": [0.1, 0.4, 0.5],
        "nonzeros/conv1": [90, 50, 10],
        "nonzeros/fc1": [30, 30, 30],
    }
}


def test_accuracy_is_drawn_in_percent():
    figure = plots.accuracy_curves(HISTORIES, title="runs")
    (line,) = figure.axes[2].get_lines()
    np.testing.assert_allclose(line.get_ydata(), [10, 40, 50])
    assert figure.legends[0].get_texts()[0].get_text() == "first"


def test_a_single_epoch_is_seen():
    history = {"epoch": [1], "loss": [2.0], "accuracy": [0.5], "val_accuracy": [0.25]}
    for axis in plots.accuracy_curves({"one": history}).axes:
        (line,) = axis.get_lines()
        assert line.get_marker() == "o"


def test_nonzeros_start_from_the_full_layer_and_reference_lines_are_drawn():
    figure = plots.nonzero_curves(
        HISTORIES,
        {"first": {"conv1": 100, "fc1": 30}},
        ["conv1", "fc1"],
        lines={"conv1": {"S-CONV": 20}},
    )
    curve, reference = figure.axes[0].get_lines()
    np.testing.assert_array_equal(curve.get_ydata(), [100, 90, 50, 10])
    assert list(reference.get_ydata()) == [20, 20]
    assert figure.axes[0].get_yscale() == "log"


def test_filters_are_scaled_to_their_own_largest_weight():
    images = np.zeros((3, 4, 4, 3))
    images[0, 1, 1, 0] = 2.0
    images[1, 0, 0] = -7.0
    figure = plots.filter_images(images)
    shown = [axis.get_images()[0].get_array() for axis in figure.axes]
    assert shown[0][1, 1].tolist() == [1.0, 0.5, 0.5]
    assert shown[1][0, 0].tolist() == [0.0, 0.0, 0.0]
    assert np.all(shown[2] == 0.5)


def test_no_filter_is_said_in_words():
    figure = plots.filter_images(np.zeros((0, 4, 4, 1)))
    assert "no filter" in figure.texts[0].get_text()


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 2\)"):
        plots.filter_images(np.zeros((2, 4, 4, 2)))


def test_means_stand_with_their_bars_at_their_epochs():
    measured = {
        "accuracy": {"one": {30: (50.0, 1.0), 300: (60.0, 2.0)}},
        "gap": {"two": {30: (-1.0, 0.5), 300: (1.0, 0.5)}},
    }
    first, second = plots.spread_curves(measured).axes
    (bars,) = first.containers
    line, _, (vertical,) = bars
    assert [float(x) for x in line.get_xdata()] == [30, 300]
    assert [float(y) for y in line.get_ydata()] == [50, 60]
    ends = [segment[:, 1].tolist() for segment in vertical.get_segments()]
    assert ends == [[49, 51], [58, 62]]
    assert [label.get_text() for label in first.get_xticklabels()] == ["30", "300"]
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["two"]


def test_epochs_have_no_fractions():
    history = {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "nonzeros/conv1": [9, 8, 7]}
    figures = [
        plots.accuracy_curves({"run": history}),
        plots.nonzero_curves({"run": history}, {"run": {"conv1": 10}}, ["conv1"]),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


def test_no_axis_goes_beyond_a_hundred_percent():
    history = {"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.5, 1.0], "val_accuracy": [1, 0]}
    figure = plots.accuracy_curves({"run": history})
    figure.canvas.draw()
    for axis in figure.axes[1:]:
        low, high = axis.get_ylim()
        shown = [tick for tick in axis.get_yticks() if low <= tick <= high]
        assert min(shown) >= 0
        assert max(shown) == 100


def test_a_perfect_accuracy_has_no_tick_above_it():
    history = {"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [1.0, 1.0]}
    axis = plots.accuracy_curves({"run": history}).axes[1]
    low, high = axis.get_ylim()
    assert max(tick for tick in axis.get_yticks() if low <= tick <= high) == 100


def test_equal_curves_differ_in_colour_pattern_and_width():
    history = HISTORIES["first"]
    lines = plots.accuracy_curves({"one": history, "two": history}).axes[0].get_lines()
    for look in ("get_color", "get_linestyle", "get_linewidth"):
        first, second = (getattr(line, look)() for line in lines)
        assert first != second
    # What is drawn later is thinner, so that the earlier curve shows on both sides.
    assert lines[1].get_linewidth() < lines[0].get_linewidth()


def test_the_frame_is_where_the_most_weight_is():
    images = np.zeros((2, 6, 8, 1))
    images[0, 3:5, 5:7] = -1.0
    first, empty = plots.filter_images(images, window=2).axes
    (frame,) = first.patches
    # Pixel centres are whole numbers: columns 5 and 6, rows 3 and 4.
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((4.5, 2.5), 2, 2)
    assert not empty.patches
