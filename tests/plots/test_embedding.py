import io

import numpy as np
import pytest

from tfconvbias import plots
from tfconvbias.embedding import Interpolation


def _draw(figure, num_panels):
    figure.savefig(io.BytesIO(), format="png")
    drawn = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert len(drawn) == num_panels
    return drawn


def _history(first, last, epochs=3):
    line = np.linspace(first, last, epochs)
    return {"epoch": list(range(epochs)), "loss": list(2 - line), "test_accuracy": list(line)}


ROWS = {
    0: {"test_accuracy": 0.5, "off_local": 0.08, "broken_sharing": 0.05, "loss_start": 2.0},
    10: {"test_accuracy": 0.7, "off_local": 0.02, "broken_sharing": 0.01, "loss_start": 0.5},
}


def test_switch_time_curves():
    efcns = {0: _history(0.1, 0.6), 10: _history(0.65, 0.7)}
    axes = _draw(plots.switch_time_curves(_history(0.1, 0.7), _history(0.1, 0.5), efcns), 3)
    assert [len(axis.lines) for axis in axes] == [4, 4, 2]
    np.testing.assert_allclose(axes[1].lines[2].get_ydata(), [10, 35, 60])
    assert len(axes[2].collections) == 2


def test_against_switch_time_draws_the_landscape_where_it_was_measured():
    _draw(plots.against_switch_time(ROWS, {"CNN": 0.7}), 1)
    names = [f"{c}_{m}" for c in ("gradient_norm", "eigenvalue") for m in ("start", "end")]
    measured = {t: row | dict.fromkeys(names, 1.0 + t) for t, row in ROWS.items()}
    axes = _draw(plots.against_switch_time(measured, {"CNN": 0.7, "FCN": 0.5}), 3)
    assert [len(axis.lines) for axis in axes] == [3, 2, 2]
    np.testing.assert_allclose(axes[2].lines[1].get_ydata(), [1, 11])
    best = {t: row | {"best_test_accuracy": 0.6 + t / 100} for t, row in ROWS.items()}
    (axis,) = _draw(plots.against_switch_time(best, {"CNN": 0.7}), 1)
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [50, 70])
    np.testing.assert_allclose(axis.lines[1].get_ydata(), [60, 70])


def test_against_switch_time_draws_the_spread_over_seeds():
    spreads = {t: {"test_accuracy": 0.02} for t in ROWS}
    (axis,) = _draw(plots.against_switch_time(ROWS, {"CNN": 0.7}, spreads=spreads), 1)
    (bars,) = axis.containers
    segments = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    np.testing.assert_allclose(segments, [[48, 52], [68, 72]])


def test_deviation_panels():
    axes = _draw(plots.deviation_panels(ROWS, ROWS[0] | {"off_local": 0.97}), 3)
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), [8, 2])
    assert [len(axis.lines) for axis in axes] == [2, 3, 3]
    axes = _draw(plots.deviation_panels(ROWS, column="broken_sharing"), 3)
    assert [line.get_xdata()[0] for line in axes[2].lines] == [5, 1]
    assert axes[2].get_xlabel() == "broken sharing, %"
    # The last time's marker lies inside.
    assert axes[0].get_xlim()[0] < 0 and axes[0].get_xlim()[1] > 11


def test_masked_accuracy():
    rows = {t: {"full": 0.7, "local": 0.6, "off_local": 0.1} for t in (0, 10)}
    (axis,) = _draw(plots.masked_accuracy(rows), 1)
    assert [line.get_ydata()[0] for line in axis.lines] == pytest.approx([70, 60, 10])


def test_log_weight_images():
    picture = np.zeros((4, 5, 3))
    picture[1, 2] = [-np.e, np.e, np.e]
    figure = plots.log_weight_images([[picture, picture[..., 0]]], ["row"], ["first", "second"])
    axes = _draw(figure, 2)
    assert [axis.get_title() for axis in axes] == ["first", "second"]
    for axis in axes:
        shown = axis.images[0].get_array()
        assert shown[1, 2] == pytest.approx(1.0)
        assert np.ma.count(shown) == 1


def test_interpolation_panels():
    alphas = np.linspace(0, 1, 3)
    values = {"train": alphas, "test": 1 - alphas}
    path = Interpolation("linear", alphas, values, values)
    axes = _draw(plots.interpolation_panels({"linear": path, "string": path}, "title"), 4)
    np.testing.assert_allclose(axes[3].lines[0].get_ydata(), [100, 50, 0])
    assert all(len(axis.lines) == 2 for axis in axes)
