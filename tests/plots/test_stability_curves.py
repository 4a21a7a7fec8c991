import numpy as np

from tfconvbias import plots
from tfconvbias.analysis import point_geometry


def _drawn(figure, path):
    figure.savefig(path)
    assert path.stat().st_size > 1000
    return figure.axes


def test_sharpness_curves_show_run_and_edge(tmp_path):
    history = {
        name: [1.0, 2.0, 3.0]
        for name in ("step", "sharpness", "train_error", "excess_risk", "path_norm")
    } | {"edge": [float("inf"), 8.0, 5.0], "path_norm_bound": [4.0, 4.0, 4.0]}
    axes = _drawn(plots.sharpness_curves({"dense": history, "conv": history}), tmp_path / "a.png")
    labels = [line.get_label() for line in axes[0].lines]
    assert labels == ["dense", "conv", "edge 2/η"]
    np.testing.assert_array_equal(axes[0].lines[-1].get_ydata(), [np.inf, 8, 5])
    assert axes[0].get_ylim() == (0, 12.5)


def test_classifiers_show_sharpness_and_both_accuracies(tmp_path):
    history = {name: [0.1, 0.2] for name in ("step", "sharpness", "accuracy", "test_accuracy")}
    history["edge"] = [3.0, 2.0]
    sharpness, accuracy = _drawn(
        plots.sharpness_and_accuracy({"conv": history}), tmp_path / "a.png"
    )
    assert [line.get_label() for line in sharpness.lines] == ["conv", "edge 2/η"]
    assert [line.get_label() for line in accuracy.lines] == ["conv, train", "conv, test"]
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [10, 20])
    assert accuracy.get_ylabel() == "accuracy, %"


def test_gap_against_a_count_shows_medians_and_ranges(tmp_path):
    figure = plots.gap_against(
        "points", {"conv": {100: [0.5, 0.4, 0.9], 10: [1.0, 2.0, 1.5]}}, {"conv": (-0.5, 0.02)}
    )
    (axis,) = _drawn(figure, tmp_path / "a.png")
    line, _, (bars,) = axis.containers[0]
    np.testing.assert_array_equal(line.get_xdata(), [10, 100])
    np.testing.assert_array_equal(line.get_ydata(), [1.5, 0.5])
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, [[1.0, 2.0], [0.4, 0.9]])
    assert axis.get_legend().get_texts()[0].get_text() == "conv: slope -0.50 ± 0.02"
    low, high = axis.get_ylim()
    shown = [value for value in (0.1, 0.2, 0.5, 1, 2, 5) if low <= value <= high]
    ticks = zip(axis.yaxis.get_majorticklocs(), axis.get_yticklabels(), strict=True)
    assert [tick.get_text() for at, tick in ticks if low <= at <= high] == [f"{v:g}" for v in shown]


def test_both_curves_stand_against_the_patch_size(tmp_path):
    figure = plots.against_patch_size({0.1: [1.0], 1.0: [0.0]}, {0.1: [0.2], 1.0: [2.0]})
    (axis,) = _drawn(figure, tmp_path / "a.png")
    assert len(axis.containers) == 2


def test_depth_and_spectrum(tmp_path):
    cloud = point_geometry(np.random.default_rng(0).standard_normal((200, 3)), num_directions=8)
    depth, spectrum = _drawn(plots.depth_and_spectrum({"cloud": cloud}), tmp_path / "a.png")
    np.testing.assert_array_equal(depth.lines[0].get_ydata(), cloud.curve)
    np.testing.assert_allclose(spectrum.lines[0].get_ydata()[-1], 1)


def test_ticks_are_the_sizes_used_and_two_sizes_have_no_error():
    gaps = {"conv": {64: [1.0], 300: [0.5]}}
    (axis,) = plots.gap_against("points", gaps, {"conv": (-0.45, float("nan"))}).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["64", "300"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["conv"]
    assert axis.get_title() == "gap and points"


def test_gap_curves_stand_over_time(tmp_path):
    curves = {"n 64": [([0, 4, 8], [1.0, 0.2, 0.5]), ([0, 4, 8], [1.0, 0.3, 0.4])]}
    curves |= {"n 256": [([0, 8], [1.0, 2.0])]}
    figure = plots.gap_curves({"conv": curves, "dense": {"n 64": [([0, 8], [1.0, 3.0])]}})
    axis, dense = _drawn(figure, tmp_path / "a.png")
    np.testing.assert_array_equal(axis.lines[1].get_ydata(), [1.0, 0.3, 0.4])
    assert axis.lines[0].get_color() == axis.lines[1].get_color() != axis.lines[2].get_color()
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["n 64", "n 256"]
    assert (axis.get_title(), dense.get_title()) == ("conv", "dense")
    assert axis.get_ylim() == dense.get_ylim()


def test_units_stand_by_activation_rate_and_those_that_are_off_are_counted(tmp_path):
    before = ("before", [0.5, 0.4, 0.6], [1.0, 2.0, 3.0])
    after = ("after", [0.5, 0.0, 0.1], [1.0, 2.0, 30.0])
    figure = plots.units_of_networks({"dense": [before, after], "conv": [before]})
    dense, conv = _drawn(figure, tmp_path / "a.png")
    np.testing.assert_array_equal(dense.collections[1].get_offsets(), [[0.5, 1.0], [0.1, 30.0]])
    labels = [text.get_text() for text in dense.get_legend().get_texts()]
    assert labels == ["before, 0 off", "after, 1 off"]
    assert dense.get_ylim() == conv.get_ylim()
    assert (dense.get_title(), conv.get_title()) == ("dense", "conv")


def test_units_that_are_all_off_leave_an_empty_panel(tmp_path):
    figure = plots.units_of_networks({"dense": [("after", [0.0, 0.0], [1.0, 2.0])]})
    (axis,) = _drawn(figure, tmp_path / "a.png")
    assert axis.get_legend().get_texts()[0].get_text() == "after, 2 off"


def test_groups_stand_side_by_side(tmp_path):
    gaps = {"local": {"blocks": [1.0, 3.0, 2.0]}, "conv": {"blocks": [0.5], "random": [4.0]}}
    (axis,) = _drawn(plots.gaps_by_group(gaps), tmp_path / "a.png")
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["blocks", "random"]
    local, conv = (container[0] for container in axis.containers)
    np.testing.assert_array_equal(local.get_ydata(), [2.0])
    np.testing.assert_array_equal(conv.get_ydata(), [0.5, 4.0])
    assert local.get_xdata()[0] < 0 < conv.get_xdata()[0] < 0.5
