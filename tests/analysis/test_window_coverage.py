"""Windows that cover a dense layer's weights, against a search by hand."""

import keras
import numpy as np
import pytest

from tfconvbias.analysis import best_windows, layer_window_coverage, window_coverage

SHAPE = (6, 5, 2)


def _kernel(seed=0, units=7):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(*SHAPE, units)) * (rng.random((*SHAPE, units)) < 0.2)
    kernel[..., 0] = 0
    kernel[1:3, 2:4, :, 1] = 1
    kernel[3:, :, :, 1] = 0
    kernel[0, :, :, 1] = kernel[:, :2, :, 1] = kernel[:, 4:, :, 1] = 0
    return kernel


@pytest.mark.parametrize("window", [1, 2, 4, 5])
def test_best_windows_against_a_search(window):
    kernel = _kernel()
    origins, counts = best_windows(kernel.reshape(60, 7), SHAPE, window)
    for unit in range(7):
        held = {
            (top, left): np.count_nonzero(kernel[top : top + window, left : left + window, :, unit])
            for top in range(6 - window + 1)
            for left in range(5 - window + 1)
        }
        assert counts[unit] == max(held.values()) == held[tuple(origins[unit])]


def test_coverage():
    kernel = _kernel()
    two, whole = window_coverage(kernel.reshape(60, 7), SHAPE, windows=[2, 5, 9])[:2]
    # Units 0, which has no weights, and 1, whose weights fill 2×2 pixels.
    assert two.whole_units >= 2 / 7
    assert two.num_weights == 2 * 2 * 2 * 7
    largest = [
        max(np.count_nonzero(kernel[top : top + 5, :, :, unit]) for top in (0, 1))
        for unit in range(7)
    ]
    assert whole.share == pytest.approx(sum(largest) / np.count_nonzero(kernel))
    assert len(window_coverage(kernel.reshape(60, 7), SHAPE, windows=[2, 9])) == 1


def test_of_a_layer():
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(7, name="fc")]
    )
    kernel = _kernel().reshape(60, 7)
    model.get_layer("fc").set_weights([kernel, np.zeros(7)])
    assert layer_window_coverage(model, windows=[3]) == window_coverage(kernel, SHAPE, windows=[3])
    with pytest.raises(ValueError, match="layer_name='other'"):
        layer_window_coverage(model, "other")


@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [((6, 5, 3), 2, "input_shape=\\(6, 5, 3\\)"), (SHAPE, 6, "window=6"), (SHAPE, 0, "window=0")],
)
def test_refused(shape, window, message):
    with pytest.raises(ValueError, match=message):
        best_windows(_kernel().reshape(60, 7), shape, window)
