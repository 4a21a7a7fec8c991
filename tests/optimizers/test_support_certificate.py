"""The certificate against all gradients: it may ask for too many units, never for too few."""

import numpy as np
import pytest

from tfconvbias.optimizers import (
    integer_loops,
    integer_screen,
    integer_vectors,
    support_certificate,
)
from tfconvbias.optimizers.support_certificate import reaching_weights


@pytest.fixture(
    params=["numba, bytes", "numba, halves", "loops, bytes", "loops, halves", "numpy"], autouse=True
)
def loops(request, monkeypatch):
    """Every test with the compiled loops, where Numba is installed, and without them.

    With each kind of integers: bytes are there compiled on some processors only.
    """
    kind, _, integers = request.param.partition(", ")
    if kind == "numba":
        pytest.importorskip("numba")
        if integers == "bytes" and not integer_vectors.multiplies_bytes():
            pytest.skip("this processor has no products of bytes that are worth it")
    else:
        # The loops that Numba compiles give the same numbers uncompiled.
        names = integer_screen.Loops._fields
        plain = integer_screen.Loops(*(getattr(integer_loops, name) for name in names))
        found = plain if kind == "loops" else None
        monkeypatch.setattr(integer_screen, "compiled_loops", lambda: found)
    monkeypatch.setattr(integer_screen, "multiplies_bytes", lambda: integers == "bytes")
    return kind


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
    rows, units, found, num_checked, _ = reaching_weights(inputs, gradient, limit)
    reach = _pairs(*np.nonzero(np.abs(every) >= limit))
    assert reach <= _pairs(rows, units)
    # All that is found lies within rounding of the limit or beyond.
    assert np.all(np.abs(found) >= limit * (1 - 1e-3))
    np.testing.assert_allclose(found, every[rows, units], rtol=1e-4)
    order = units.astype(int) * 1000 + rows
    assert np.all(np.diff(order) > 0)
    assert len(set(units)) <= num_checked <= 25


def test_a_certified_step_computes_no_gradient():
    inputs, gradient = _activations()
    largest = np.abs(inputs @ gradient.T).max()
    centered = inputs - inputs.mean(1, keepdims=True)
    bound = np.linalg.norm(centered, axis=1).max() * np.linalg.norm(gradient, axis=1).max()
    bound += np.abs(inputs.mean(1)).max() * np.abs(gradient.sum(1)).max()
    assert bound > largest
    rows, units, found, num_checked, _ = reaching_weights(inputs, gradient, bound * 1.001)
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
    monkeypatch.setattr(integer_screen, "compiled_loops", lambda: None)
    monkeypatch.setattr(support_certificate, "BLOCK_SIZE", block_size)
    parts = reaching_weights(inputs, gradient, 1.0)
    for one, other in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(whole[2], parts[2])


def _extreme_activations():
    """Inputs and units that lie at the edges of what the integers can hold."""
    rng = np.random.default_rng(3)
    inputs, gradient = rng.normal(size=(23, 9)), rng.normal(size=(70, 9))
    inputs[0] = 0
    inputs[1] = 5
    inputs[2] = [1e4] + [1e-4] * 8
    inputs[3] *= 1e-20
    inputs[4] *= 1e6
    inputs[5] = 1e4 + inputs[5]
    inputs[6] = inputs[7]
    inputs[8] = 1
    gradient[0] = 0
    gradient[1] = 1
    gradient[2] = [-1e3] + [1e-3] * 8
    gradient[3] = inputs[9]
    gradient[4] -= gradient[4].mean()
    gradient[5] *= 1e-10
    return inputs, gradient


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(23, 70, 9), (23, 70, 1), (1, 70, 9), (23, 1, 9), (1, 1, 2)])
@pytest.mark.parametrize("centered", [False, True])
def test_extreme_activations(dtype, shape, centered):
    num_inputs, units, batch = shape
    inputs, gradient = _extreme_activations()
    inputs, gradient = inputs[-num_inputs:, :batch], gradient[-units:, :batch]
    if centered:
        gradient = gradient - gradient.mean(1, keepdims=True)
    inputs, gradient = inputs.astype(dtype), gradient.astype(dtype)
    tolerance = 4 * batch * np.finfo(dtype).eps
    every = np.abs(inputs.astype("float64") @ gradient.astype("float64").T)
    for limit in np.unique(np.quantile(every, [0.1, 0.5, 0.8, 0.9, 0.97, 0.99, 1.0])):
        rows, units, found, *_ = reaching_weights(inputs, gradient, float(limit))
        missed = _pairs(*np.nonzero(every >= limit)) - _pairs(rows, units)
        # A gradient at the limit may be rounded to its other side.
        scale = np.linalg.norm(inputs, axis=1)[:, None] * np.linalg.norm(gradient, axis=1)
        assert all(every[pair] <= limit + tolerance * scale[pair] for pair in missed)
        assert found.size == len(_pairs(rows, units))


def test_parallel_activations():
    """Cauchy and Schwarz's bound is reached; no other gradient is near it."""
    rng = np.random.default_rng(0)
    inputs, gradient = rng.normal(size=(50, 64)), 0.01 * rng.normal(size=(80, 64))
    inputs[7] -= inputs[7].mean()
    gradient[9] = 3 * inputs[7]
    every = inputs @ gradient.T
    rows, units, *_ = reaching_weights(inputs, gradient, 0.99 * every.max())
    assert _pairs(rows, units) == {(7, 9)}


@pytest.mark.parametrize("part_of_mean", [0.05, 0.099, 0.3, 1.5])
def test_the_mean_counts_where_gradients_do_not_sum_to_zero(loops, part_of_mean, monkeypatch):
    """A gradient that reaches the limit only together with the mean of its input."""
    if loops != "numpy":
        monkeypatch.setattr(
            support_certificate, "_reaching_in_blocks", lambda *_: pytest.fail("all gradients")
        )
    wave = np.tile([1.0, -1.0, 2.0, -2.0], 16)
    for sign in (1, -1):
        gradient = 0.01 * np.roll(wave, 1) * np.ones((3, 1))
        gradient[1] = wave + 0.5 * sign
        # The products of the waves, and of the means.
        inputs = np.stack([(1 - part_of_mean) * wave / 160 + part_of_mean * sign / 32] * 2)
        inputs[0] *= 0.5
        assert inputs[1] @ gradient[1] == pytest.approx(1)
        rows, units, found, *_ = reaching_weights(inputs, gradient, 1 - 1e-6)
        assert (rows, units, found) == (1, 1, pytest.approx(1))


def test_more_weights_than_first_expected():
    rng = np.random.default_rng(0)
    inputs, gradient = rng.normal(size=(60, 8)), rng.normal(size=(80, 8))
    every = inputs @ gradient.T
    rows, units, found, *_ = reaching_weights(inputs, gradient, 1.0)
    assert rows.size == np.count_nonzero(np.abs(every) >= 1.0) > 2048
    np.testing.assert_allclose(found, every[rows, units])


@pytest.mark.parametrize("num_parts", [2, 3, 7])
def test_parts_change_nothing(num_parts):
    rng = np.random.default_rng(0)
    inputs, gradient = rng.normal(size=(33, 8)), rng.normal(size=(150, 8))
    whole = reaching_weights(inputs, gradient, 5.0)
    parts = reaching_weights(inputs, gradient, 5.0, map, num_parts)
    assert whole[0].size > 100
    for one, other in zip(whole[:4], parts[:4], strict=True):
        np.testing.assert_allclose(one, other)


def test_integers_settle_nearly_all(loops, monkeypatch):
    """Where the bound settles no unit, gradients are still computed for few weights only."""
    if loops != "loops":
        pytest.skip("counts calls of Python functions")
    rng = np.random.default_rng(0)
    inputs, gradient = rng.normal(size=(40, 64)), rng.normal(size=(128, 64))
    gradient[64:] *= 1e-3
    every = np.abs(inputs @ gradient.T)
    limit = np.sort(every.ravel())[-6:-4].mean()
    tiles = []

    def counted(products, words, tile, starts):
        product(products, words, tile, starts)
        tiles.append(products.copy())

    product = integer_loops.integer_product
    monkeypatch.setattr(integer_loops, "integer_product", counted)
    monkeypatch.setattr(
        support_certificate, "_reaching_in_blocks", lambda *_: pytest.fail("all gradients")
    )
    rows, *_, num_checked, num_bytes = reaching_weights(inputs, gradient, limit)
    assert rows.size == 5
    assert num_checked == 64
    # 64 examples of the units and of some of the inputs, at least of those found.
    width = 1 if integer_screen.multiplies_bytes() else 2
    assert 64 * (64 + len(set(rows))) * width <= num_bytes <= 64 * (64 + 40) * width
    # The tile of small units is not multiplied, nor are inputs that the bound settles.
    assert 0 < len(tiles) <= 10
    # The integers are the cosines of the angles between activations.
    norms = [np.linalg.norm(runs, axis=1) for runs in (inputs, gradient[:64])]
    centered = [inputs - inputs.mean(1, keepdims=True), gradient[:64]]
    scale = 32000.0**2
    if width == 1:
        scale = np.prod([127 * min(np.linalg.norm(c, axis=1) / np.abs(c).max(1)) for c in centered])
    cosines = np.abs(np.concatenate(tiles)).max() / scale
    assert cosines == pytest.approx((every[:, :64] / np.outer(*norms)).max(), rel=0.1)


def test_bytes_are_for_limits_that_their_rounding_does_not_blur(loops, monkeypatch):
    if loops == "numpy" or not integer_screen.multiplies_bytes():
        pytest.skip("no bytes")
    rng = np.random.default_rng(0)
    inputs, gradient = rng.normal(size=(40, 64)), rng.normal(size=(128, 64))
    every = np.abs(inputs @ gradient.T)
    chosen = []
    for limit in (every.max(), 0.01 * every.max()):
        num_bytes = reaching_weights(inputs, gradient, limit)[-1]
        rows, units, *_ = reaching_weights(inputs, gradient, limit)
        assert _pairs(rows, units) == _pairs(*np.nonzero(every >= limit))
        chosen.append(num_bytes)
    # All inputs and units take part at the smaller limit.
    assert chosen[1] == 2 * 64 * (40 + 128)
    assert chosen[0] <= 64 * (40 + 128)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_found(bad):
    inputs, gradient = _activations()
    gradient[3, 2] = bad
    with np.errstate(invalid="ignore"):
        rows, units, found, *_ = reaching_weights(inputs, gradient, 1e9)
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
