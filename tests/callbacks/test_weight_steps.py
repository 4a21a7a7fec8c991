"""Stored weights and new ones against the same change of a dense kernel."""

import numpy as np
import pytest

from tfconvbias.callbacks import certified_loops, weight_steps
from tfconvbias.callbacks.weight_steps import Rule, Stored, merge, step
from tfconvbias.optimizers import StepSizes


@pytest.fixture(params=["numba", "loops", "numpy"], autouse=True)
def loops(request, monkeypatch):
    """Every test with the compiled loops, where Numba is installed, and without them."""
    if request.param == "numba":
        pytest.importorskip("numba")
        return
    plain = weight_steps.Loops(certified_loops.step_weights, certified_loops.merge_weights)
    found = plain if request.param == "loops" else None
    monkeypatch.setattr(weight_steps, "compiled_loops", lambda: found)


def _stored(kernel, in_store):
    """The weights of a dense kernel at the places in store, zeros among them."""
    units, rows = np.nonzero(in_store.T)
    starts = np.searchsorted(units, np.arange(kernel.shape[1] + 1)).astype("int64")
    return Stored(kernel[rows, units], rows.astype("int32"), starts)


def _dense(stored, shape):
    kernel, in_store = np.zeros(shape), np.zeros(shape, bool)
    for unit in range(shape[1]):
        own = slice(stored.starts[unit], stored.starts[unit + 1])
        assert np.all(np.diff(stored.rows[own]) > 0)
        kernel[stored.rows[own], unit] = stored.values[own]
        in_store[stored.rows[own], unit] = True
    assert stored.starts[-1] == stored.values.size == stored.rows.size
    return kernel, in_store


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(7, 5), (1, 4), (6, 1)])
def test_new_weights_among_those_in_store(seed, shape):
    rng = np.random.default_rng(seed)
    in_store, is_new = (rng.random(shape) < part for part in rng.random(2))
    kernel = rng.normal(size=shape) * (rng.random(shape) < 0.7) * in_store
    arriving = rng.normal(size=shape) * (rng.random(shape) < 0.7)
    units, rows = np.nonzero(is_new.T)
    found, num_new = merge(
        _stored(kernel, in_store),
        rows.astype("int32"),
        units.astype("int32"),
        arriving[rows, units],
    )
    expected = np.where(in_store, kernel, np.where(is_new, arriving, 0))
    merged, left = _dense(found, shape)
    np.testing.assert_array_equal(merged, expected)
    np.testing.assert_array_equal(left, expected != 0)
    assert num_new == np.count_nonzero(expected[~in_store])


def test_a_weight_that_is_no_number_stays():
    stored = Stored(np.array([np.nan, 0.0]), np.array([0, 2], "int32"), np.array([0, 2]))
    row, unit = np.array([1], "int32"), np.array([0], "int32")
    found, num_new = merge(stored, row, unit, np.array([np.nan]))
    assert found.rows.tolist() == [0, 1]
    assert np.isnan(found.values).all()
    assert num_new == 1


@pytest.mark.parametrize("clip", [np.inf, 0.5])
@pytest.mark.parametrize("is_soft", [False, True])
def test_a_step_of_the_stored_weights(clip, is_soft):
    rng = np.random.default_rng(0)
    shape, batch, (rate, pull, cutoff) = (9, 6), 4, (0.1, 0.02, 0.15)
    in_store = rng.random(shape) < 0.6
    kernel = rng.choice([-1, 0, 0, 1], shape) * rng.random(shape) * in_store
    inputs, gradient = rng.normal(size=(9, batch)), rng.normal(size=(6, batch))
    slopes = np.clip(inputs @ gradient.T, -clip, clip)
    moved = kernel - rate * slopes - pull * np.sign(kernel)
    kept = moved - np.sign(moved) * cutoff if is_soft else moved
    expected = np.where(in_store & (np.abs(moved) >= cutoff), kept, 0)
    rule = Rule(StepSizes(rate, pull, cutoff), clip, is_soft)
    stored, num_returned, num_zeros, _ = step(_stored(kernel, in_store), inputs, gradient, rule)
    found, left = _dense(stored, shape)
    np.testing.assert_allclose(found, expected, atol=1e-15)
    np.testing.assert_array_equal(left, in_store)
    assert num_returned == np.count_nonzero(expected[kernel == 0])
    assert num_zeros == np.count_nonzero(in_store & (expected == 0)) > 0
    if clip == np.inf:
        assert num_returned > 0
