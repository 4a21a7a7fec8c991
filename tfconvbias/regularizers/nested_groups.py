"""Nested groups of kernel positions: half-rings and rings that grow from the outside in."""

import math

import numpy as np

STRATEGIES = ("half_ring", "ring")


def num_groups(size: int, groups: str) -> int:
    """Number of nested groups of a kernel of a given size: ŝ half-rings or ⌈ŝ/2⌉ rings."""
    return size if groups == "half_ring" else math.ceil(size / 2)


def increments(size: int, rank: int, groups: str) -> np.ndarray:
    r"""Which group first holds each position of a kernel.

    The group G_n is everything outside a box that shrinks with n. Half-rings take turns: first
    the outermost top-left row and column, then the bottom-right ones, so that G_n leaves a box of
    edge ŝ − n; rings take both at once, so that it leaves ŝ − 2n.

    Args:
        size: Kernel edge ŝ.
        rank: Number of spatial axes.
        groups: `"half_ring"` or `"ring"`.

    Returns:
        Integer array of shape `(size,) * rank`: position p belongs to G_n when its entry < n.

    Example:
    >>> increments(3, 2, "half_ring")
    array([[0, 0, 0],
           [0, 2, 1],
           [0, 1, 1]])
    """
    edge = np.arange(size)
    if groups == "half_ring":
        # Position e goes with the top-left turn 2e, or with the bottom-right turn 2(ŝ−1−e)+1.
        turn = np.minimum(2 * edge, 2 * (size - 1 - edge) + 1)
    else:
        turn = np.minimum(edge, size - 1 - edge)
    grids = np.meshgrid(*([turn] * rank), indexing="ij")
    return np.minimum.reduce(grids)


def memberships(size: int, rank: int, groups: str) -> np.ndarray:
    """Boolean array of shape (groups, size**rank): is the position in the nested group G_n."""
    first = increments(size, rank, groups).reshape(-1)
    return first[None, :] < np.arange(1, num_groups(size, groups) + 1)[:, None]


def live_size(live: np.ndarray, size: int, groups: str) -> np.ndarray:
    """Kernel size from the number of groups that are not zero.

    Nested groups die from the outside in, so a half-ring kernel with `live` groups left has size
    `live`; a ring kernel has `2 * live - 1` for odd ŝ and `2 * live` for even ŝ; 0 when none.

    Args:
        live: Integer array, number of live groups of each kernel.
        size: Kernel edge ŝ.
        groups: `"half_ring"` or `"ring"`.

    Example:
    >>> live_size(np.array([0, 1, 2, 3]), 5, "ring")
    array([0, 1, 3, 5])
    """
    live = np.asarray(live)
    if groups == "half_ring":
        return live
    return np.where(live == 0, 0, size - 2 * (num_groups(size, groups) - live))
