import keras
import numpy as np
import pytest

from tfconvbias.analysis import kernel_correlation, pairwise_correlation


def test_equals_numpy():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    correlation = np.abs(np.corrcoef(kernel.reshape(-1, 6).T))
    expected = (correlation.sum() - 6) / 30
    assert pairwise_correlation(kernel) == pytest.approx(expected, rel=1e-12)


def test_dead_kernels_are_left_out_and_constant_ones_correlate_with_none():
    kernel = np.random.default_rng(1).normal(size=(3, 3, 1, 2))
    dead = np.concatenate([kernel, np.zeros((3, 3, 1, 3))], axis=-1)
    assert pairwise_correlation(dead) == pytest.approx(pairwise_correlation(kernel), rel=1e-12)
    assert np.isnan(pairwise_correlation(dead[..., 1:]))
    assert pairwise_correlation(np.stack([np.ones((3, 3)), kernel[..., 0, 0]], axis=-1)) == 0


def test_of_a_model_takes_convolutions_alone():
    layers = [
        keras.layers.Conv2D(3, 3, name="conv1"),
        keras.layers.Flatten(),
        keras.layers.Dense(4, name="fc"),
    ]
    model = keras.Sequential([keras.Input((5, 5, 1)), *layers])
    found = kernel_correlation(model)
    kernel = keras.ops.convert_to_numpy(layers[0].kernel)
    assert found == {"conv1": pairwise_correlation(kernel)}
