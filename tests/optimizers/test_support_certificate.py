"""The certificate against all gradients: it may ask for too many units, never for too few."""

import numpy as np
import pytest

from tfconvbias.optimizers import support_certificate
from tfconvbias.optimizers.support_certificate import reaching_weights


def _activations(dtype="float64", num_inputs=40, units=25, batch=16, mean=2.0):
    """Inputs off zero and of very different spread; units of very different gradients."""
    rng = np.random.default_rng(0)
    inputs = mean + rng.normal(size=(num_inputs, batch)) * rng.random((num_inputs, 1)) ** 2
    gradient = rng.normal(size=(units, batch)) * rng.random((units, 1)) ** 4
    return inputs.astype(dtype), gradient.astype(dtype)


def _pairs(rows, units):
    return set(zip(rows.tolist(), units.tolist(), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_no_weight_that_reaches_the_limit_is_missed(dtype, quantile):
    inputs, gradient = _activations(dtype)
    every = inputs @ gradient.T
    limit = float(np.quantile(np.abs(every), quantile))
    rows, units, found, num_checked = reaching_weights(inputs, gradient, limit)
    reach = _pairs(*np.nonzero(np.abs(every) >= limit))
    assert reach <= _pairs(rows, units)
    # All that is found lies within rounding of the limit or beyond.
    assert np.all(np.abs(found) >= limit * (1 - 1e-3))
    np.testing.assert_allclose(found, every[rows, units], rtol=1e-4)
    order = units.astype(int) * 1000 + rows
    assert np.all(np.diff(order) > 0)
    assert len(set(units)) <= num_checked <= 25


def test_a_certified_step_computes_no_gradient(monkeypatch):
    inputs, gradient = _activations()
    largest = np.abs(inputs @ gradient.T).max()
    centered = inputs - inputs.mean(1, keepdims=True)
    bound = np.linalg.norm(centered, axis=1).max() * np.linalg.norm(gradient, axis=1).max()
    bound += np.abs(inputs.mean(1)).max() * np.abs(gradient.sum(1)).max()
    assert bound > largest
    rows, units, found, num_checked = reaching_weights(inputs, gradient, bound * 1.001)
    assert rows.size == units.size == found.size == num_checked == 0
    assert reaching_weights(inputs, gradient, bound / 4)[3] > 0


def test_centered_gradients_make_a_mean_harmless():
    """After a BatchNormalization the gradients sum to zero: the inputs' mean does not matter."""
    inputs, gradient = _activations(mean=0.0)
    gradient -= gradient.mean(1, keepdims=True)
    limit = 1.5 * np.abs(inputs @ gradient.T).max()
    counts = [reaching_weights(inputs + mean, gradient, limit)[3] for mean in (0.0, 100.0)]
    assert counts[0] == counts[1] < 25


@pytest.mark.parametrize("block_size", [1, 40, 100])
def test_blocks_change_nothing(monkeypatch, block_size):
    inputs, gradient = _activations()
    whole = reaching_weights(inputs, gradient, 1.0)
    assert 10 < whole[0].size < 1000
    monkeypatch.setattr(support_certificate, "BLOCK_SIZE", block_size)
    parts = reaching_weights(inputs, gradient, 1.0)
    for one, other in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(whole[2], parts[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_found(bad):
    inputs, gradient = _activations()
    gradient[3, 2] = bad
    with np.errstate(invalid="ignore"):
        rows, units, found, _ = reaching_weights(inputs, gradient, 1e9)
    assert set(units) == {3}
    assert rows.size == 40
    assert not np.isfinite(found).any()


def test_an_unreachable_limit_needs_no_check():
    inputs, gradient = _activations()
    assert reaching_weights(inputs, gradient, np.inf)[3] == 0


def test_squares_that_vanish_in_float32_do_not_hide_a_gradient():
    inputs = np.full((1, 4), 1e-23, "float32")
    gradient = np.full((1, 4), 1e10, "float32")
    rows, *_ = reaching_weights(inputs, gradient, 1e-13)
    assert rows.size == 1
