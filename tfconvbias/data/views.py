"""Views: which inputs each patch of a point takes, as tables of indices."""

from typing import Literal

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked

Array = np.ndarray
View = Literal["blocks", "strided", "random", "identical"]


@checked
def patch_views(
    kind: View, dimension: int, patch_size: PositiveInt, *, seed: NonNegativeInt = 0
) -> Array:
    """J = d / m views of m inputs each, for networks whose patches need not lie side by side.

    `x[:, patch_views(...)]` are the patches `(n, J, m)` of points `(n, d)`.

    Args:
        kind: `"blocks"`, patches side by side; `"strided"`, view l takes the inputs l, l + J,
            l + 2J, …; `"random"`, each view draws its inputs anew, so that views overlap and some
            inputs are seen by none; or `"identical"`, all views take the first m inputs.
        dimension: d.
        patch_size: m, a divisor of `dimension`.
        seed: Seed of the random views.

    Returns:
        int64 array `(J, m)`.

    Raises:
        ValueError: For an unknown kind, or if `patch_size` does not divide `dimension`.

    Example:
        >>> patch_views("strided", 6, 2).tolist()
        [[0, 3], [1, 4], [2, 5]]
    """
    if patch_size < 1 or dimension % patch_size:
        raise ValueError(
            "`patch_size` must divide `dimension`. "
            f"Received: patch_size={patch_size}, dimension={dimension}"
        )
    num_views = dimension // patch_size
    if kind == "blocks":
        return np.arange(dimension).reshape(num_views, patch_size)
    if kind == "strided":
        return np.arange(dimension).reshape(patch_size, num_views).T
    if kind == "random":
        rng = np.random.default_rng(seed)
        return np.stack([rng.permutation(dimension)[:patch_size] for _ in range(num_views)])
    if kind == "identical":
        return np.tile(np.arange(patch_size), (num_views, 1))
    raise ValueError(
        f"`kind` must be 'blocks', 'strided', 'random' or 'identical'. Received: kind={kind!r}"
    )
