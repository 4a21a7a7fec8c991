import math

import numpy as np
import pytest

from tfconvbias.analysis import (
    activation_rates,
    active_share,
    path_norm_bound,
    unit_path_norms,
    weighted_path_norm,
)


def _g_tilde(points, direction, threshold):
    """The definition, unit by unit, with explicit conditional means."""
    projections = points @ direction
    active = projections > threshold
    if not active.any():
        return 0.0
    share = active.mean()
    excess = (projections[active] - threshold).mean()
    centre = points[active].mean(axis=0)
    return share**2 * excess * math.sqrt(1 + centre @ centre)


def _path_norm(points, kernel, bias, outgoing):
    total = 0.0
    for k in range(kernel.shape[1]):
        norm = np.linalg.norm(kernel[:, k])
        direction, threshold = kernel[:, k] / norm, -bias[k] / norm
        g = min(_g_tilde(points, direction, threshold), _g_tilde(points, -direction, -threshold))
        total += abs(outgoing[k]) * norm * g
    return total


RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((40, 4, 3))
KERNEL, BIAS = RNG.standard_normal((4, 3, 6)), RNG.standard_normal((4, 6))
OUTGOING = RNG.standard_normal(6)


def test_dense_path_norm_equals_the_definition():
    flat, kernel = POINTS.reshape(40, 12), RNG.standard_normal((12, 6))
    found = weighted_path_norm(flat, kernel, BIAS[0], OUTGOING[:, None])
    np.testing.assert_allclose(found, _path_norm(flat, kernel, BIAS[0], OUTGOING))


def test_shared_weights_see_all_patches():
    found = weighted_path_norm(POINTS, KERNEL[0], BIAS[0], OUTGOING)
    expected = _path_norm(POINTS.reshape(-1, 3), KERNEL[0], BIAS[0], OUTGOING)
    np.testing.assert_allclose(found, expected)


def test_unshared_weights_see_the_patches_at_their_position():
    found = weighted_path_norm(POINTS, KERNEL, BIAS, OUTGOING)
    parts = [_path_norm(POINTS[:, p], KERNEL[p], BIAS[p], OUTGOING) for p in range(4)]
    np.testing.assert_allclose(found, sum(parts) / 16)


def test_a_unit_that_is_never_active_counts_nothing():
    assert weighted_path_norm(POINTS, KERNEL[0], np.full(6, -100.0), OUTGOING) == 0
    # Nor does one that is always active: its mirror image is never.
    assert weighted_path_norm(POINTS, KERNEL[0], np.full(6, 100.0), OUTGOING) == 0


def test_the_norm_is_the_same_after_rescaling_a_unit():
    scale = np.array([1.0, 2.0, 0.5, 3.0, 10.0, 0.1])
    np.testing.assert_allclose(
        weighted_path_norm(POINTS, KERNEL[0] * scale, BIAS[0] * scale, OUTGOING / scale),
        weighted_path_norm(POINTS, KERNEL[0], BIAS[0], OUTGOING),
    )


@pytest.mark.parametrize("connectivity", ["dense", "local", "conv"])
def test_the_gauss_newton_part_bounds_the_norm(connectivity):
    """Its top eigenvalue, from explicit derivatives, is at least 1 + 2 × path norm."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kernel, bias = rng.standard_normal((4, 3, 6)), rng.standard_normal((4, 6))
        if connectivity == "conv":
            kernel, bias = np.stack([kernel[0]] * 4), np.stack([bias[0]] * 4)
        points, outgoing = rng.standard_normal((40, 4, 3)), rng.standard_normal(6)
        if connectivity == "dense":
            points = points[:, :1]
            kernel, bias = kernel[:1], bias[:1]
        positions = len(kernel)
        values = np.einsum("npi,pik->npk", points, kernel) + bias
        active = values > 0
        by_outgoing = np.maximum(values, 0).mean(axis=1)
        by_kernel = np.einsum("npk,npi,k->npik", active, points, outgoing) / positions
        by_bias = active * outgoing / positions
        if connectivity == "conv":
            by_kernel, by_bias = by_kernel.sum(axis=1), by_bias.sum(axis=1)
        jacobian = np.concatenate(
            [a.reshape(40, -1) for a in (by_outgoing, by_kernel, by_bias)] + [np.ones((40, 1))],
            axis=1,
        )
        sharpness = np.linalg.svd(jacobian, compute_uv=False)[0] ** 2 / 40
        shared = connectivity == "conv"
        norm = (
            weighted_path_norm(points[:, 0], kernel[0], bias[0], outgoing)
            if connectivity == "dense"
            else weighted_path_norm(
                points, kernel[0] if shared else kernel, bias[0] if shared else bias, outgoing
            )
        )
        assert 0 < norm <= sharpness / 2 - 0.5
        # At loss 0 the bound is the Gauss-Newton one.
        assert norm <= path_norm_bound(sharpness, 0.0, 1.0)


def _hessian(points, targets, kernel, bias, outgoing, offset):
    """Of half the mean squared error of a dense network, from explicit derivatives; and the loss.

    Weights in the order outgoing, kernel (unit by unit), bias, offset.
    """
    num, (size, units) = len(points), kernel.shape
    values = points @ kernel + bias
    active = values > 0
    errors = np.maximum(values, 0) @ outgoing + offset - targets
    hessian = np.zeros((units * (size + 2) + 1,) * 2)
    for x, z, on, error in zip(points, values, active, errors, strict=True):
        by_unit = np.outer(on * outgoing, x).ravel()
        row = np.concatenate([np.maximum(z, 0), by_unit, on * outgoing, [1.0]])
        hessian += np.outer(row, row) / num
        for unit in np.nonzero(on)[0]:
            start = units + unit * size
            others = [*range(start, start + size), units * (1 + size) + unit]
            hessian[unit, others] += error * np.append(x, 1.0) / num
            hessian[others, unit] += error * np.append(x, 1.0) / num
    return hessian, float(np.mean(errors**2)) / 2


def _bound(points, targets, kernel, bias, outgoing, offset):
    hessian, loss = _hessian(points, targets, kernel, bias, outgoing, offset)
    radius = np.linalg.norm(points, axis=1).max()
    return path_norm_bound(np.linalg.eigvalsh(hessian)[-1], loss, radius)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_bound_holds_far_from_a_minimum(scale):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points, targets = rng.standard_normal((6, 2)), scale * rng.standard_normal(6)
        weights = rng.standard_normal((2, 3)), rng.standard_normal(3), rng.standard_normal(3)
        bound = _bound(points, targets, *weights, rng.standard_normal())
        assert weighted_path_norm(points, *weights) <= bound


def test_the_bound_is_tight_enough_to_fail():
    """One unit on two points, found by a search: a norm half as large again would exceed it."""
    points, targets = np.array([[-7.034], [1.373]]), np.array([-1.822, -1.511])
    weights = np.array([[0.719]]), np.array([-0.2617]), np.array([0.4366])
    norm = weighted_path_norm(points, *weights)
    bound = _bound(points, targets, *weights, -1.826)
    assert norm < bound < 1.5 * norm


def test_the_bound_is_the_stated_sum():
    expected = (5 - 1 + np.sqrt(2**2 + 1) * np.sqrt(2 * 0.5)) / 2
    np.testing.assert_allclose(path_norm_bound(5.0, 0.5, 2.0), expected)


def test_active_share_counts_units_that_anything_activates():
    inputs = np.array([[[1.0], [-1.0]], [[2.0], [-3.0]]])
    kernel, bias = np.array([[1.0, -1.0, 1.0, 0.0]]), np.array([0.0, 0.0, -5.0, 0.0])
    assert active_share(inputs, kernel, bias) == 0.5
    # Unshared: the first position sees positive inputs only, the second negative ones.
    local = active_share(inputs, np.stack([kernel, kernel]), np.stack([bias, bias]))
    assert local == 0.25
    assert active_share(inputs[:, 0], kernel, bias) == 0.25


def test_rates_and_norms_of_single_units():
    inputs = np.array([[[1.0], [-1.0]], [[2.0], [-3.0]]])
    kernel, bias = np.array([[1.0, -2.0, 1.0, 0.0]]), np.array([0.0, 0.0, -1.5, 0.0])
    outgoing = np.array([[-3.0], [1.0], [2.0], [5.0]])
    # Shared: over the four patches 1, −1, 2, −3.
    np.testing.assert_array_equal(activation_rates(inputs, kernel, bias), [0.5, 0.5, 0.25, 0])
    np.testing.assert_array_equal(unit_path_norms(kernel, outgoing), [3, 2, 2, 0])
    # Unshared: over the two patches at the unit's own position, each with half of the weight.
    local, offsets = np.stack([kernel, kernel]), np.stack([bias, bias])
    rates = activation_rates(inputs, local, offsets)
    np.testing.assert_array_equal(rates, [1, 0, 0.5, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(unit_path_norms(local, outgoing), [1.5, 1, 1, 0] * 2)
    # The length of w, over all of its entries.
    assert unit_path_norms(np.array([[3.0], [4.0]]), [2.0]).tolist() == [10]
    # Squares that single precision does not hold.
    large = np.array([[3e30], [4e30]], "float32")
    np.testing.assert_allclose(unit_path_norms(large, [2.0]), 1e31, rtol=1e-6)
    with pytest.raises(ValueError, match="one weight for each of the 4 units"):
        unit_path_norms(kernel, outgoing[:3])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must have shapes"):
        active_share(POINTS, KERNEL[:2], BIAS[:2])
    with pytest.raises(ValueError, match="must have shapes"):
        weighted_path_norm(POINTS, KERNEL[0][:2], BIAS[0], OUTGOING)
    with pytest.raises(ValueError, match="one weight for each of the 6 units"):
        weighted_path_norm(POINTS, KERNEL[0], BIAS[0], OUTGOING[:5])


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_diverged_network_has_no_norm_and_no_active_share(value):
    points, kernel = np.ones((5, 3)), np.full((3, 2), value)
    assert math.isnan(weighted_path_norm(points, kernel, np.zeros(2), np.ones(2)))
    assert math.isnan(active_share(points, kernel, np.zeros(2)))
