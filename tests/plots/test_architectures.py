import io

import numpy as np
import pytest

from tfconvbias import plots


def _drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_frontier_draws_every_series_in_every_panel():
    costs = {"multiply-adds": [50.0, 20.0], "time": [70.0, 60.0]}
    series = [
        plots.Series("base", {"multiply-adds": [100.0], "time": [100.0]}, [90.0], "single"),
        plots.Series("found", costs, [88.0, 80.0], "line", ["0.1", "0.2"]),
    ]
    figure = plots.accuracy_frontier(series, title="frontier")
    assert [axis.get_xlabel() for axis in figure.axes] == ["multiply-adds", "time"]
    line = figure.axes[0].lines[1]
    np.testing.assert_array_equal(line.get_xdata(), [20.0, 50.0])
    np.testing.assert_array_equal(line.get_ydata(), [80.0, 88.0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.1", "0.2"]
    assert _drawn(figure)
    assert not figure.axes[0].containers
    spread = plots.accuracy_frontier(
        [plots.Series("found", costs, [88.0, 80.0], spread=[1.0, 2.0])]
    )
    (bars,) = spread.axes[1].containers[0].lines[2]
    np.testing.assert_array_equal(
        [segment[:, 1] for segment in bars.get_segments()], [[87.0, 89.0], [78.0, 82.0]]
    )
    with pytest.raises(ValueError, match="at least one series"):
        plots.accuracy_frontier([])


def test_snakes_have_the_width_of_each_layer():
    figure = plots.width_snakes([4, 8], {"α = 1": [2, 0]})
    live, frame, below = figure.axes[0].patches
    np.testing.assert_array_equal(live.get_data().values, [1.0, 0.0])
    np.testing.assert_array_equal(frame.get_data().values, [2.0, 4.0])
    np.testing.assert_array_equal(below.get_data().values, [-2.0, -4.0])
    assert _drawn(figure)
    with pytest.raises(ValueError, match="2 layers"):
        plots.width_snakes([4, 8], {"α = 1": [2]})


def test_size_histograms_leave_out_dead_kernels():
    figure = plots.kernel_size_histograms({"α = 1": [{0: 3, 1: 2}, {3: 4}]})
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    assert heights == [[2, 0], [0, 4]]
    assert _drawn(figure)
    assert _drawn(plots.kernel_size_histograms({"dead": [{0: 1}]}))


def test_paths_follow_each_other():
    stages = {"base": {"loss": [3.0, 2.0, 1.0]}, "α = 1": {"loss": [1.0, 0.5]}}
    figure = plots.path_curves(stages, {"loss": "training loss"})
    first, second = figure.axes[0].lines
    assert list(first.get_xdata()) == [0, 1, 2]
    assert list(second.get_xdata()) == [2, 3]
    assert _drawn(figure)


def test_size_snakes_have_a_panel_per_size():
    base = [{3: 4}, {3: 8}]
    figure = plots.size_snakes(base, {"α = 1": [{3: 2, 1: 1, 0: 1}, {0: 8}]})
    assert [axis.get_title() for axis in figure.axes] == ["size 0 (removed)", "size 1", "size 3"]
    removed = figure.axes[0].patches[0].get_data().values
    np.testing.assert_array_equal(removed, [0.5, 4.0])
    np.testing.assert_array_equal(figure.axes[2].patches[1].get_data().values, [2.0, 4.0])
    assert _drawn(figure)
    with pytest.raises(ValueError, match="2 layers"):
        plots.size_snakes(base, {"α = 1": [{3: 2}]})


def test_supports_have_a_row_per_strategy():
    groups = np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], bool)
    figure = plots.group_supports({"a": groups, "b": groups[:1]})
    assert len(figure.axes) == 3
    mesh = figure.axes[1].collections[0]
    # Drawn from the bottom row up.
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(2, 2), groups[1][::-1])
    assert _drawn(figure)
