"""Index maps between input positions and the taps of a kernel."""

from collections.abc import Sequence

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.connectivity.shapes import (
    Ints,
    Padding,
    as_tuple,
    conv_output_shape,
    explicit_padding,
)


@checked
def axis_indices(
    spatial_shape: Sequence[int],
    kernel_size: Ints,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
) -> tuple[np.ndarray, ...]:
    """For each axis, the input coordinate under each tap at each output coordinate.

    A convolution's patches are the outer product of these small tables: entry `[o, t]` of an axis
    is `o s + t d − b`, with stride `s`, dilation `d` and `b` zeros before, or −1 for padding.

    Args:
        spatial_shape: Input lengths.
        kernel_size: Int or one int per axis.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or one `(before, after)` pair per axis.
        dilation_rate: Int or one int per axis.

    Returns:
        One int64 array of shape `(output length, kernel size)` per axis.

    Raises:
        ValueError: If an argument has the wrong length, an entry out of range or an unknown value,
            or the kernel does not fit in the padded input.

    Example:
        >>> axis_indices((4,), 3, padding="same")[0].tolist()
        [[-1, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, -1]]
    """
    rank = len(spatial_shape)
    output = conv_output_shape(spatial_shape, kernel_size, strides, padding, dilation_rate)
    pads = explicit_padding(spatial_shape, kernel_size, strides, padding, dilation_rate)
    tables = []
    for n, out, k, s, d, (before, _) in zip(
        spatial_shape,
        output,
        as_tuple(kernel_size, rank, "kernel_size"),
        as_tuple(strides, rank, "strides"),
        as_tuple(dilation_rate, rank, "dilation_rate"),
        pads,
        strict=True,
    ):
        coordinates = np.arange(out)[:, None] * s + np.arange(k) * d - before
        tables.append(np.where((coordinates >= 0) & (coordinates < n), coordinates, -1))
    return tuple(tables)


@checked
def patch_indices(
    spatial_shape: Sequence[int],
    kernel_size: Ints,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
) -> np.ndarray:
    """For each output position and each kernel tap, the flat input position, or −1 for padding.

    Positions and taps are numbered in C order. `inputs.reshape(positions, channels)[indices]`, with
    zeros where the index is −1, are the patches that the convolution multiplies by its kernel.

    Args:
        spatial_shape: Input lengths.
        kernel_size: Int or one int per axis.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or one `(before, after)` pair per axis.
        dilation_rate: Int or one int per axis.

    Returns:
        int64 array of shape `(output positions, taps)`.

    Raises:
        ValueError: If an argument has the wrong length, an entry out of range or an unknown value,
            or the kernel does not fit in the padded input.

    Example:
        >>> patch_indices((2, 3), (2, 2)).tolist()
        [[0, 1, 3, 4], [1, 2, 4, 5]]
    """
    rank = len(spatial_shape)
    tables = axis_indices(spatial_shape, kernel_size, strides, padding, dilation_rate)
    flat = np.zeros((1,) * (2 * rank), dtype=np.int64)
    inside = np.ones((1,) * (2 * rank), dtype=bool)
    for axis, (length, table) in enumerate(zip(spatial_shape, tables, strict=True)):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = table.shape
        table = table.reshape(shape)
        flat = flat * length + table
        inside = inside & (table >= 0)
    num_positions = int(np.prod([len(table) for table in tables]))
    return np.where(inside, flat, -1).reshape(num_positions, -1)


@checked
def tap_counts(
    spatial_shape: Sequence[int],
    kernel_size: Ints,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
) -> np.ndarray:
    """For each kernel tap, the number of output positions at which it meets a real input.

    It is the size of the orbit of any kernel entry of that tap: how many entries of the equivalent
    dense matrix share this weight. Computed axis by axis, without the index map.

    Args:
        spatial_shape: Input lengths.
        kernel_size: Int or one int per axis.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or one `(before, after)` pair per axis.
        dilation_rate: Int or one int per axis.

    Returns:
        int64 array of shape `kernel_size`.

    Raises:
        ValueError: If an argument has the wrong length, an entry out of range or an unknown value,
            or the kernel does not fit in the padded input.

    Example:
        >>> tap_counts((4, 4), 3, padding="same").tolist()
        [[9, 12, 9], [12, 16, 12], [9, 12, 9]]
    """
    counts = np.ones((), dtype=np.int64)
    for table in axis_indices(spatial_shape, kernel_size, strides, padding, dilation_rate):
        counts = np.multiply.outer(counts, (table >= 0).sum(axis=0))
    return counts
