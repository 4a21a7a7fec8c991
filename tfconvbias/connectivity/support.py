"""Local supports: which entries of the equivalent dense matrix a convolution may fill."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.connectivity.patches import patch_indices
from tfconvbias.connectivity.shapes import Ints, Padding, as_tuple, conv_output_shape


@dataclass(frozen=True, eq=False)
class LocalSupport:
    """The local entries of the dense matrix that equals a convolution, as index sets.

    A convolution on a volume of `spatial_shape` and `in_channels` equals a dense layer whose
    matrix `M` has a row for each input and a column for each output, both numbered in C order of
    the volume in `data_format`. `M` is zero except at the *local* pairs, where an output sees an
    input through a tap. Padding has no row in the matrix: the zeros are folded away. The entries
    that share one weight of the convolution form an *orbit*.

    Local connections are numbered in C order of (output position, tap, channel within the group,
    filter), leaving out taps that meet padding, and so in the order of the entries of a
    `LocallyConnected` kernel. Only the map of patches is stored; the four index sets are computed
    each time that they are asked for (8 bytes per connection), whole or by `blocks`:

        matrix[support.inputs, support.outputs] = conv_kernel.ravel()[support.orbits]
        matrix[support.inputs, support.outputs] = local_kernel.ravel()[support.local_entries]

    A depthwise convolution is the case `groups = in_channels`, `filters = in_channels · m`; its
    kernel `(*kernel_size, in_channels, m)` has the same flat order.

    Attributes:
        patches: Int array `(positions, taps)`, rows `positions` of `patch_indices`.
        positions: Range of the output positions that this support covers.
        num_input_positions: Number of spatial positions of the input.
        num_output_positions: Number of spatial positions of the whole output.
        in_channels: Input channels.
        filters: Output channels.
        groups: Groups of channels.
        data_format: `"channels_last"` or `"channels_first"`.
    """

    patches: np.ndarray = field(repr=False)
    positions: range
    num_input_positions: int
    num_output_positions: int
    in_channels: int
    filters: int
    groups: int
    data_format: str

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Shape `(inputs, outputs)` of the dense matrix."""
        return (
            self.num_input_positions * self.in_channels,
            self.num_output_positions * self.filters,
        )

    @property
    def num_orbits(self) -> int:
        """Number of entries of the convolution's kernel, those that only meet padding included."""
        return self.patches.shape[1] * self._group_channels * self.filters

    @property
    def size(self) -> int:
        """Number of local connections."""
        return int((self.patches >= 0).sum()) * self._group_channels * self.filters

    @property
    def inputs(self) -> np.ndarray:
        """Row of each local connection: flat index of its input, int64 `(size,)`."""
        channel = np.arange(self._group_channels)[:, None]
        channel = channel + self._group_of_filter * self._group_channels
        place = self.patches[self.patches >= 0][:, None, None]
        if self.data_format == "channels_last":
            return (place * self.in_channels + channel).ravel()
        return (channel * self.num_input_positions + place).ravel()

    @property
    def outputs(self) -> np.ndarray:
        """Column of each local connection: flat index of its output, int64 `(size,)`."""
        position, _ = self._valid()
        position = position[:, None, None] + self.positions.start
        channel = np.arange(self.filters)
        if self.data_format == "channels_last":
            flat = position * self.filters + channel
        else:
            flat = channel * self.num_output_positions + position
        shape = (len(position), self._group_channels, self.filters)
        return np.broadcast_to(flat, shape).ravel()

    @property
    def orbits(self) -> np.ndarray:
        """Orbit of each local connection, int64 `(size,)`.

        It is the flat index of the shared weight in the convolution's kernel, which has the shape
        `(*kernel_size, in_channels / groups, filters)`.
        """
        _, tap = self._valid()
        return self._entries(tap)

    @property
    def local_entries(self) -> np.ndarray:
        """Flat index of each local connection in the kernel of a locally connected layer.

        That kernel has the shape `(*output, *kernel_size, in_channels / groups, filters)`.
        """
        position, tap = self._valid()
        return self._entries((position + self.positions.start) * self.patches.shape[1] + tap)

    def blocks(self, max_size: int = 1 << 22) -> Iterator["LocalSupport"]:
        """Splits the support by output positions, to visit a large one in little memory.

        Args:
            max_size: Most connections in a block, if one position has no more than that.

        Yields:
            Supports of consecutive ranges of output positions, in order.

        Raises:
            ValueError: If `max_size` is not positive.
        """
        if max_size < 1:
            raise ValueError(f"`max_size` must be positive. Received: max_size={max_size}")
        per_position = self.patches.shape[1] * self._group_channels * self.filters
        step = max(1, max_size // per_position)
        for start in range(0, len(self.positions), step):
            yield replace(
                self,
                patches=self.patches[start : start + step],
                positions=self.positions[start : start + step],
            )

    @property
    def _group_channels(self) -> int:
        return self.in_channels // self.groups

    @property
    def _group_of_filter(self) -> np.ndarray:
        return np.arange(self.filters) // (self.filters // self.groups)

    def _valid(self) -> tuple[np.ndarray, np.ndarray]:
        position, tap = np.nonzero(self.patches >= 0)
        return position, tap

    def _entries(self, leading: np.ndarray) -> np.ndarray:
        per_tap = self._group_channels * self.filters
        return (leading[:, None] * per_tap + np.arange(per_tap)).ravel()


@checked
def local_support(
    spatial_shape: Sequence[int],
    kernel_size: Ints,
    in_channels: PositiveInt,
    filters: PositiveInt,
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
    groups: PositiveInt = 1,
    data_format: str = "channels_last",
) -> LocalSupport:
    """Local support of a convolution of any rank.

    Args:
        spatial_shape: Input lengths.
        kernel_size: Int or one int per axis.
        in_channels: Input channels.
        filters: Output channels.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or `(before, after)` pairs.
        dilation_rate: Int or one int per axis.
        groups: Groups that split both kinds of channels; `in_channels` for a depthwise convolution.
        data_format: `"channels_last"` or `"channels_first"`, the order of both flattened volumes.

    Returns:
        A `LocalSupport`.

    Raises:
        ValueError: If the channels are not positive or not divisible by `groups`, an argument of
            the window has the wrong length, an entry out of range or an unknown value, the kernel
            does not fit in the padded input, or `data_format` is unknown.

    Example:
        >>> support = local_support((3,), 2, in_channels=1, filters=1)
        >>> support.matrix_shape, support.size, support.num_orbits
        ((3, 2), 4, 2)
        >>> support.inputs.tolist(), support.outputs.tolist(), support.orbits.tolist()
        ([0, 1, 1, 2], [0, 0, 1, 1], [0, 1, 0, 1])
    """
    as_tuple(in_channels, 1, "in_channels")
    as_tuple(filters, 1, "filters")
    as_tuple(groups, 1, "groups")
    if in_channels % groups or filters % groups:
        raise ValueError(
            "The numbers of input channels and of filters must be divisible by `groups`. "
            f"Received: in_channels={in_channels}, filters={filters}, groups={groups}"
        )
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            "The argument `data_format` must be 'channels_last' or 'channels_first'. "
            f"Received: data_format={data_format}"
        )
    output = conv_output_shape(spatial_shape, kernel_size, strides, padding, dilation_rate)
    num_output_positions = int(np.prod(output))
    return LocalSupport(
        patches=patch_indices(spatial_shape, kernel_size, strides, padding, dilation_rate),
        positions=range(num_output_positions),
        num_input_positions=int(np.prod(spatial_shape)),
        num_output_positions=num_output_positions,
        in_channels=in_channels,
        filters=filters,
        groups=groups,
        data_format=data_format,
    )
