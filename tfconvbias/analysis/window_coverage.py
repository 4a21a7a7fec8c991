"""How much of a dense layer's support small windows of the image cover."""

import dataclasses
import math
from collections.abc import Iterable

import keras
import numpy as np

from tfconvbias.analysis.sparsity import kernels
from tfconvbias.arguments import PositiveInt, checked


@dataclasses.dataclass(frozen=True)
class WindowCoverage:
    """What k×k windows cover of the non-zero weights of a dense layer.

    Attributes:
        window: side k of the windows.
        share: share of the layer's non-zero weights that lie in their unit's best window.
        whole_units: share of the units whose non-zero weights all do; units without any count.
        num_weights: weights of a locally connected layer with one such window for each unit.
    """

    window: int
    share: float
    whole_units: float
    num_weights: int


@checked
def best_windows(
    kernel: np.ndarray, input_shape: tuple[int, int, int], window: PositiveInt
) -> tuple[np.ndarray, np.ndarray]:
    """Where the window lies that holds most of each unit's non-zero weights.

    Args:
        kernel: `(inputs, units)` of a dense layer on flattened images.
        input_shape: `(rows, cols, channels)` of the images.
        window: side k of the square window, which lies wholly inside the image.

    Returns:
        The first row and column of each unit's window, `(units, 2)`, the first one in row-major
        order where several hold equally many; and how many non-zero weights it holds, `(units,)`.

    Raises:
        ValueError: If the kernel does not fit the image, or the window does not.

    Example:
        >>> kernel = np.zeros((16, 1))
        >>> kernel[[6, 7, 11]] = 1.0
        >>> origins, counts = best_windows(kernel, (4, 4, 1), 2)
        >>> origins.tolist(), counts.tolist()
        ([[1, 2]], [3])
    """
    rows, cols, _ = input_shape
    if kernel.ndim != 2 or kernel.shape[0] != math.prod(input_shape):
        raise ValueError(
            "`kernel` must be `(rows * cols * channels, units)`. "
            f"Received: kernel of shape {kernel.shape}, input_shape={input_shape}"
        )
    if not 1 <= window <= min(rows, cols):
        raise ValueError(
            f"`window` must lie between 1 and the image's shorter side, {min(rows, cols)}. "
            f"Received: window={window}"
        )
    counts = np.count_nonzero(kernel.reshape(*input_shape, -1), axis=2)
    sums = np.zeros((rows + 1, cols + 1, kernel.shape[1]), "int64")
    sums[1:, 1:] = counts.cumsum(axis=0).cumsum(axis=1)
    low, high = slice(None, -window), slice(window, None)
    held = sums[high, high] - sums[low, high] - sums[high, low] + sums[low, low]
    flat = held.reshape(-1, kernel.shape[1])
    best = flat.argmax(axis=0)
    return np.stack(np.divmod(best, held.shape[1]), axis=1), flat.max(axis=0)


@checked
def window_coverage(
    kernel: np.ndarray,
    input_shape: tuple[int, int, int],
    windows: Iterable[int] = (3, 5, 9, 13, 17),
) -> list[WindowCoverage]:
    """What windows of several sizes cover of a dense layer's non-zero weights.

    Args:
        kernel: `(inputs, units)` of a dense layer on flattened images.
        input_shape: `(rows, cols, channels)` of the images.
        windows: the sides k to look at; those larger than the image are left out.

    Returns:
        A `WindowCoverage` for each size.

    Raises:
        ValueError: If the kernel does not fit the image, or a size is below 1.

    Example:
        >>> kernel = np.zeros((16, 2))
        >>> kernel[[6, 7, 11], 0] = kernel[[0, 15], 1] = 1.0
        >>> found = window_coverage(kernel, (4, 4, 1), windows=[2, 4])
        >>> [(one.share, one.whole_units, one.num_weights) for one in found]
        [(0.8, 0.5, 8), (1.0, 1.0, 32)]
    """
    per_unit = np.count_nonzero(kernel, axis=0)
    total = int(per_unit.sum())
    found = []
    for window in windows:
        if window > min(input_shape[:2]):
            continue
        _, held = best_windows(kernel, input_shape, window)
        found.append(
            WindowCoverage(
                window=window,
                share=float(held.sum() / total) if total else 1.0,
                whole_units=float((held == per_unit).mean()),
                num_weights=window * window * input_shape[2] * kernel.shape[1],
            )
        )
    return found


@checked
def layer_window_coverage(
    model: keras.Model,
    layer_name: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    windows: Iterable[int] = (3, 5, 9, 13, 17),
) -> list[WindowCoverage]:
    """What windows of several sizes cover of a dense layer of a model.

    Args:
        model: a built model of channels-last images.
        layer_name: a dense layer; by default the one with the model's first kernel.
        input_shape: `(rows, cols, channels)` of the layer's input; by default the model's.
        windows: the sides k to look at.

    Returns:
        A `WindowCoverage` for each size.

    Raises:
        ValueError: If the layer is unknown, or its kernel does not fit the input shape.
    """
    found = kernels(model)
    name = next(iter(found), None) if layer_name is None else layer_name
    if name not in found:
        raise ValueError(
            f"`layer_name` must be one of the layers with a kernel, {list(found)}. "
            f"Received: layer_name={layer_name!r}"
        )
    shape = tuple(model.input_shape[1:]) if input_shape is None else input_shape
    return window_coverage(keras.ops.convert_to_numpy(found[name]), shape, windows)
