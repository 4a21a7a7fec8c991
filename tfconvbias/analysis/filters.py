"""The input weights of first-layer units as images."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, check, checked
from tfconvbias.connectivity import patch_indices


@checked
def input_weight_images(
    kernel: np.ndarray,
    units: Sequence[int] | np.ndarray,
    input_shape: tuple[int, int, int],
    strides: PositiveInt | tuple[PositiveInt, ...] = 1,
    padding: str = "same",
) -> np.ndarray:
    """Lay out what chosen units see, each on the image that it looks at.

    The kernel's rank tells the connectivity: 2 is dense, 6 locally connected (weights stand where
    their input pixels are, all other pixels are 0), 4 convolutional (the kernel itself, since it
    has no place of its own).

    Args:
        kernel: `(rows·cols·channels, units)`, `(out_rows, out_cols, kernel_rows, kernel_cols,
            channels, filters)` or `(kernel_rows, kernel_cols, channels, filters)`.
        units: indices of units, below `num_units(kernel)`.
        input_shape: `(rows, cols, channels)`.
        strides: of a locally connected kernel.
        padding: of a locally connected kernel.

    Returns:
        `(len(units), rows, cols, channels)`; for convolutions rows and cols are the kernel's.

    Raises:
        ValueError: If the kernel has another rank.
    """
    check("padding", padding, Literal["valid", "same"])
    chosen = np.asarray(units, dtype=int)
    if kernel.ndim == 2:
        return kernel[:, chosen].T.reshape(len(chosen), *input_shape)
    if kernel.ndim == 4:
        return np.moveaxis(kernel[..., chosen], -1, 0)
    if kernel.ndim != 6:
        raise ValueError(
            "`kernel` must be of a dense, Conv2D or LocallyConnected2D layer, with 2, 4 or 6 axes. "
            f"Received: kernel of shape {kernel.shape}"
        )
    taps = patch_indices(input_shape[:2], kernel.shape[2:4], strides, padding)
    positions, filters = np.divmod(chosen, kernel.shape[-1])
    by_position = kernel.reshape(len(taps), taps.shape[1], *kernel.shape[4:])
    num_pixels = input_shape[0] * input_shape[1]
    images = np.zeros((len(chosen), num_pixels + 1, input_shape[2]), kernel.dtype)
    rows = np.arange(len(chosen))[:, None]
    images[rows, taps[positions]] = by_position[positions, :, :, filters]
    return images[:, :num_pixels].reshape(len(chosen), *input_shape)


@checked
def num_units(kernel: np.ndarray) -> int:
    """Units with input weights of their own: columns, positions × filters, or filters."""
    if kernel.ndim == 6:
        return kernel.shape[0] * kernel.shape[1] * kernel.shape[-1]
    return kernel.shape[-1]


@checked
def nonzeros_per_unit(kernel: np.ndarray) -> np.ndarray:
    """Count each unit's non-zero input weights.

    Args:
        kernel: of a dense, Conv2D or LocallyConnected2D layer, with 2, 4 or 6 axes.

    Returns:
        `(num_units(kernel),)` integers.
    """
    if kernel.ndim == 6:
        return np.count_nonzero(kernel, axis=(2, 3, 4)).ravel()
    return np.count_nonzero(kernel.reshape(-1, kernel.shape[-1]), axis=0)


@checked
def random_units(
    kernel: np.ndarray, num: int, *, min_nonzeros: int = 20, seed: NonNegativeInt = 0
) -> np.ndarray:
    """Draw units at random among those with enough non-zero weights.

    Args:
        kernel: of a dense, Conv2D or LocallyConnected2D layer, with 2, 4 or 6 axes.
        num: how many; fewer come back when fewer qualify.
        min_nonzeros: 20 in the paper's figures.
        seed: of the draw.

    Returns:
        Sorted unit indices.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figures 7–9.
    """
    candidates = np.flatnonzero(nonzeros_per_unit(kernel) >= min_nonzeros)
    generator = np.random.default_rng(seed)
    return np.sort(generator.choice(candidates, min(num, len(candidates)), replace=False))
