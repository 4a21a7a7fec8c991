"""Kernels of one layer as a convolution's, a locally connected layer's and a dense layer's.

All functions are NumPy, closed-form and loop over the taps of the kernel alone. A dense matrix is
read as the volume pair `(inputs, outputs)` through views, never through an index as large as the
matrix.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.connectivity.shapes import Ints, Padding
from tfconvbias.graph.geometry import ConvGeometry, conv_geometry

_ALIGNMENT = 64
_BLOCK = 1 << 22


@checked
def conv_to_dense(
    kernel: np.ndarray,
    input_shape: tuple[int, ...],
    *,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
    groups: PositiveInt = 1,
    data_format: str = "channels_last",
    kind: str = "conv",
    output_padding: Ints | None = None,
) -> np.ndarray:
    r"""The matrix of the dense layer that equals a convolution.

    For output position $o$, tap $t$, channel $c$ and filter $f$,

    $$M_{(o s + t d - b,\; c),\,(o, f)} = w_{t, c, f}$$

    and zero elsewhere, with stride $s$, dilation $d$ and $b$ zeros before. Rows and columns are
    numbered in C order of the volumes in `data_format`. Zero padding is folded: padded inputs have
    no row.

    Args:
        kernel: `(*kernel_size, in_channels / groups, filters)`; of a depthwise convolution
            `(*kernel_size, in_channels, multiplier)`, of a transposed one
            `(*kernel_size, filters, in_channels)`.
        input_shape: Shape of the input volume without the batch, in `data_format`.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or `(before, after)` pairs.
        dilation_rate: Int or one int per axis.
        groups: Groups of channels.
        data_format: `"channels_last"` or `"channels_first"`.
        kind: `"conv"`, `"depthwise"` or `"transposed"`.
        output_padding: Of a transposed convolution.

    Returns:
        `(inputs, outputs)` array of the kernel's dtype.

    Raises:
        ValueError: If shapes, channels or options do not fit together.

    Example:
        >>> conv_to_dense(np.array([1.0, 2.0]).reshape(2, 1, 1), (3, 1)).tolist()
        [[1.0, 0.0], [2.0, 1.0], [0.0, 2.0]]

    Reference:
        d'Ascoli et al., "Finding the Needle in the Haystack with Convolutions", 2019, section 3.
        The paper's code keeps the rows of padded inputs, as `embed` does with padding="explicit".
    """
    geometry = conv_geometry(
        input_shape,
        kernel.shape,
        strides,
        padding,
        dilation_rate,
        groups,
        data_format,
        kind,
        output_padding,
    )
    return dense_from_conv(kernel, geometry)


@checked
def conv_to_local(
    kernel: np.ndarray,
    input_shape: tuple[int, ...],
    *,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
    groups: PositiveInt = 1,
    data_format: str = "channels_last",
    kind: str = "conv",
) -> np.ndarray:
    """The kernel of the locally connected layer that equals a convolution: one copy per position.

    Args:
        kernel: `(*kernel_size, in_channels / groups, filters)`; of a depthwise convolution
            `(*kernel_size, in_channels, multiplier)`.
        input_shape: Shape of the input volume without the batch, in `data_format`.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or `(before, after)` pairs.
        dilation_rate: Int or one int per axis.
        groups: Groups of channels.
        data_format: `"channels_last"` or `"channels_first"`.
        kind: `"conv"` or `"depthwise"`.

    Returns:
        `(*output, *kernel_size, in_channels / groups, filters)` array.

    Raises:
        ValueError: If shapes, channels or options do not fit together, or for a transposed
            convolution.

    Example:
        >>> conv_to_local(np.ones((3, 3, 2, 4)), (8, 8, 2), padding="same").shape
        (8, 8, 3, 3, 2, 4)
    """
    geometry = conv_geometry(
        input_shape, kernel.shape, strides, padding, dilation_rate, groups, data_format, kind
    )
    return local_from_conv(kernel, geometry)


def dense_from_conv(kernel: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """`conv_to_dense` for a given geometry."""
    matrix = aligned_zeros(geometry.matrix_shape, kernel.dtype)
    volumes, taps = _volumes(matrix, geometry), _taps(kernel, geometry)
    for tap, places in _places(geometry):
        volumes[places] = taps[tap]
    return matrix


def local_from_conv(kernel: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """`conv_to_local` for a given geometry."""
    if geometry.kind == "transposed":
        raise ValueError(
            "A transposed convolution has no locally connected layer of its form. "
            f"Received: kind={geometry.kind}"
        )
    shape = geometry.local_kernel_shape
    shared = kernel.reshape(shape[geometry.rank :])
    return np.ascontiguousarray(np.broadcast_to(shared, shape))


def dense_from_local(kernel: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The dense matrix that equals a locally connected layer."""
    matrix = aligned_zeros(geometry.matrix_shape, kernel.dtype)
    volumes, positions = _volumes(matrix, geometry), _positions(kernel, geometry)
    for tap, places in _places(geometry):
        volumes[places] = positions[places[3].ravel(), tap]
    return matrix


def local_from_dense(matrix: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The nearest locally connected kernel: the local entries, zero where a tap meets padding."""
    kernel = np.zeros(geometry.local_kernel_shape, matrix.dtype)
    volumes, positions = _volumes(matrix, geometry), _positions(kernel, geometry)
    for tap, places in _places(geometry):
        positions[places[3].ravel(), tap] = volumes[places]
    return kernel


@checked
def orbit_sums(matrix: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Sums of a dense matrix over the entries that share one weight, as a float64 conv kernel.

    Applied to the gradient of an embedded layer's matrix, this is the convolution's gradient.

    Args:
        matrix: `(inputs, outputs)` array.
        geometry: Of the convolution.

    Returns:
        Array of shape `geometry.kernel_shape`; 0 for taps that meet padding alone.
    """
    return _sums(matrix, geometry)[0]


def conv_from_dense(matrix: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The nearest convolution's kernel: the mean over each orbit.

    The rows of inputs that always are zero (`geometry.margin`) do not count, except for a tap that
    has no others. A tap that only ever meets padding has no entry in the matrix; its weight is 0.
    """
    sums, counts = _sums(matrix, geometry, ~geometry.margin_mask)
    if any(map(any, geometry.margin)):
        all_sums, all_counts = _sums(matrix, geometry)
        sums, counts = np.where(counts, sums, all_sums), np.where(counts, counts, all_counts)
    return (sums / np.maximum(counts, 1)).astype(matrix.dtype)


def conv_from_local(kernel: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The nearest convolution's kernel: the mean over the positions at which a tap meets an input.

    The entries that meet padding, the layer's own or that in `geometry.margin`, do not count, as
    they change no output. Where a tap meets padding at every position, the mean is over all
    positions.
    """
    live = live_taps(geometry)
    live = live | ~live.any(axis=0)
    values = kernel.reshape(*live.shape, -1)
    sums = np.einsum("pt,pte->te", live.astype(np.float64), values, dtype=np.float64)
    return (sums / live.sum(axis=0)[:, None]).astype(kernel.dtype).reshape(geometry.kernel_shape)


def live_taps(geometry: ConvGeometry) -> np.ndarray:
    """Where a tap of a locally connected kernel meets an input that need not be zero.

    Returns:
        Booleans `(positions, taps)`, false on the layer's own padding and on `geometry.margin`.
    """
    patches = geometry.support().patches
    return (patches >= 0) & ~geometry.margin_mask[patches]


def set_local_entries(matrix: np.ndarray, geometry: ConvGeometry, value: float) -> None:
    """Set all local entries of a dense matrix in place."""
    volumes = _volumes(matrix, geometry)
    for _, places in _places(geometry):
        volumes[places] = value


def bias_to_positions(bias: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """A convolution's bias, repeated over the positions: `(*output, filters)`."""
    return np.ascontiguousarray(np.broadcast_to(bias, (*geometry.output_spatial_shape, len(bias))))


def flatten_bias(bias: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """A bias `(*output, filters)` in the order of the dense layer's units."""
    if geometry.data_format == "channels_first":
        bias = np.moveaxis(bias, -1, 0)
    return np.ascontiguousarray(bias).ravel()


def unflatten_bias(bias: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """A dense layer's bias as `(*output, filters)`."""
    volume = bias.reshape(geometry.output_shape)
    if geometry.data_format == "channels_first":
        volume = np.moveaxis(volume, 0, -1)
    return np.ascontiguousarray(volume)


def squared_norms(
    matrix: np.ndarray, geometry: ConvGeometry, include_padding: bool = False
) -> tuple[float, float, float]:
    r"""Squared norms of a dense matrix's three orthogonal parts.

    Args:
        matrix: `(inputs, outputs)` array.
        geometry: Of the convolution.
        include_padding: Whether the rows of inputs that always are zero (`geometry.margin`) count.

    Returns:
        Convolutional part (orbit means), broken-sharing part (local entries minus their orbit's
        mean) and off-local part. Their sum is the squared norm of what counts of the matrix.
    """
    counted = ~geometry.margin_mask
    if include_padding:
        counted[:] = True
    sums, counts = _sums(matrix, geometry, counted)
    means = _taps(sums / np.maximum(counts, 1), geometry)
    broken = 0.0
    volumes = _volumes(matrix, geometry)
    for tap, places in _places(geometry, counted):
        broken += float(np.sum(np.square(volumes[places] - means[tap], dtype=np.float64)))
    off_local = 0.0
    for block in _off_local_blocks(matrix, geometry):
        if geometry.kind == "transposed" or include_padding:
            off_local += float(np.sum(np.square(block, dtype=np.float64)))
        else:
            off_local += float(np.sum(np.square(block[counted], dtype=np.float64)))
    conv = float(np.sum(counts * np.square(sums / np.maximum(counts, 1))))
    return conv, broken, off_local


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros whose memory a backend can adopt without a copy: backends ask for 64-byte alignment."""
    dtype = np.dtype(dtype)
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    buffer = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + num_bytes].view(dtype).reshape(shape)


def _volumes(matrix: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The matrix as a view with axes (position, group, channel) of the input, then of the output.

    A transposed convolution's matrix is seen from the convolution that it transposes.
    """
    if geometry.kind == "transposed":
        matrix = matrix.T
        outer, inner = geometry.filters, geometry.in_channels
        first, second = geometry.output_spatial_shape, geometry.spatial_shape
    else:
        outer, inner = geometry.in_channels, geometry.filters
        first, second = geometry.spatial_shape, geometry.output_spatial_shape
    groups = geometry.groups
    shapes = [
        (int(np.prod(spatial)), groups, channels // groups)
        for spatial, channels in ((first, outer), (second, inner))
    ]
    if geometry.data_format == "channels_last":
        return _split(matrix, shapes[0], shapes[1])
    (p, g, c), (q, _, f) = shapes
    return _split(matrix, (g, c, p), (g, f, q)).transpose(2, 0, 1, 5, 3, 4)


def _split(matrix: np.ndarray, rows: tuple[int, ...], columns: tuple[int, ...]) -> np.ndarray:
    """Reshape a two-axis view without a copy, transposed or not."""
    view = matrix.view()
    if view.flags.c_contiguous:
        view.shape = (*rows, *columns)
        return view
    view = view.T
    view.shape = (*columns, *rows)
    return view.transpose(3, 4, 5, 0, 1, 2)


def _taps(kernel: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The conv kernel with axes (tap, group, channel, filter)."""
    groups = geometry.groups
    if geometry.kind == "transposed":
        return kernel.reshape(-1, 1, geometry.filters, geometry.in_channels)
    shape = (-1, geometry.in_channels // groups, groups, geometry.filters // groups)
    return kernel.reshape(shape).transpose(0, 2, 1, 3)


def _positions(kernel: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The local kernel as a view with axes (position, tap, group, channel, filter)."""
    groups = geometry.groups
    num_positions = int(np.prod(geometry.output_spatial_shape))
    num_taps = int(np.prod(geometry.kernel_size))
    view = kernel.view()
    view.shape = (
        num_positions,
        num_taps,
        geometry.in_channels // groups,
        groups,
        geometry.filters // groups,
    )
    return view.transpose(0, 1, 3, 2, 4)


def _places(
    geometry: ConvGeometry, counted: np.ndarray | None = None
) -> Iterator[tuple[int, tuple]]:
    """For each tap, its entries in `_volumes`, with axes (position, group, channel, filter).

    Args:
        geometry: Of the convolution.
        counted: Optional mask over the input positions; others are left out.
    """
    patches = geometry.support().patches
    group = np.arange(geometry.groups)[None, :]
    everything = slice(None)
    for tap in range(patches.shape[1]):
        (position,) = np.nonzero(patches[:, tap] >= 0)
        if counted is not None and geometry.kind != "transposed":
            position = position[counted[patches[position, tap]]]
        place = patches[position, tap]
        yield (
            tap,
            (place[:, None], group, everything, position[:, None], group, everything),
        )


def _sums(
    matrix: np.ndarray, geometry: ConvGeometry, counted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the entries of each orbit, both with the shape of the conv kernel."""
    volumes = _volumes(matrix, geometry)
    sums = np.zeros(geometry.kernel_shape)
    counts = np.zeros(geometry.kernel_shape, np.int64)
    sums_of_tap, counts_of_tap = _taps(sums, geometry), _taps(counts, geometry)
    for tap, places in _places(geometry, counted):
        sums_of_tap[tap] = volumes[places].sum(axis=0, dtype=np.float64)
        counts_of_tap[tap] = len(places[0])
    return sums, counts


def _off_local_blocks(matrix: np.ndarray, geometry: ConvGeometry) -> Iterator[np.ndarray]:
    """Copies of the matrix with zeros at the local entries, a range of positions at a time."""
    volumes = _volumes(matrix, geometry)
    patches = geometry.support().patches
    group = np.arange(geometry.groups)[None, :]
    step = max(1, _BLOCK * volumes.shape[3] // volumes.size)
    for start in range(0, volumes.shape[3], step):
        block = volumes[:, :, :, start : start + step].copy()
        for tap in range(patches.shape[1]):
            place = patches[start : start + step, tap]
            (position,) = np.nonzero(place >= 0)
            block[place[position][:, None], group, :, position[:, None], group, :] = 0
        yield block
