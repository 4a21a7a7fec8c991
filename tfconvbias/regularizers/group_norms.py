"""Norms of groups of weights, safe to differentiate at zero, and their proximal operators."""

import numpy as np
from keras import ops

NORMS = ("l2", "normalized", "scaled", "linf")


def group_weight(norm: str, cardinality):
    """Factor on the ℓ2 norm: 1, 1/√|G| (eq. 25) or √|G| (eq. 29)."""
    if norm == "normalized":
        return 1.0 / np.sqrt(cardinality)
    if norm == "scaled":
        return np.sqrt(cardinality)
    return np.ones_like(np.asarray(cardinality, "float64"))


def safe_sqrt(squares):
    """√x with the subgradient 0 at x = 0, where the gradient of √ is infinite."""
    positive = squares > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)


def magnitude(values):
    """|x| with the subgradient 0 at x = 0 on every backend (JAX takes 1)."""
    return values * ops.stop_gradient(ops.sign(values))


def project_l1_ball(magnitudes, radius):
    """Projects every column of non-negative numbers onto the ℓ1 ball of a radius.

    Args:
        magnitudes: Tensor of shape (n, columns), >= 0.
        radius: Scalar >= 0.

    Returns:
        Tensor of the same shape.
    """
    count = magnitudes.shape[0]
    ordered = ops.flip(ops.sort(magnitudes, axis=0), axis=0)
    total = ops.cumsum(ordered, axis=0)
    position = ops.reshape(ops.arange(1, count + 1, dtype=magnitudes.dtype), (count, 1))
    # The shift that makes the first p entries sum to the radius; the right p is the last one
    # whose own entry stays positive. p = 1 always does while the radius is positive.
    shift = (total - radius) / position
    used = ops.cast(ordered > shift, magnitudes.dtype)
    last = ops.maximum(ops.sum(used, axis=0, keepdims=True), 1.0)
    chosen = ops.sum(ops.where(position == last, shift, 0.0), axis=0, keepdims=True)
    return ops.maximum(magnitudes - ops.maximum(chosen, 0.0), 0.0)


def shrink_linf(values, threshold):
    """Proximal operator of `threshold * max|v|` on every column: v − Π(v) on the ℓ1 ball."""
    magnitudes = ops.abs(values)
    clipped = magnitudes - project_l1_ball(magnitudes, threshold)
    return ops.sign(values) * clipped


def shrink_factor(norms, threshold):
    """max(0, 1 − threshold/‖v‖): the factor of the proximal operator of the ℓ2 norm."""
    positive = norms > threshold
    return ops.where(positive, 1.0 - threshold / ops.where(positive, norms, 1.0), 0.0)
