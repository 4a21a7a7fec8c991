"""The geometry of one convolution on volumes of one shape: all that its embedding depends on."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tfconvbias.arguments import PositiveInt, check, checked
from tfconvbias.connectivity import (
    LocalSupport,
    conv_output_shape,
    explicit_padding,
    local_support,
    tap_counts,
)
from tfconvbias.connectivity.shapes import Ints, Padding, as_tuple

Pairs = tuple[tuple[int, int], ...]

Kind = Literal["conv", "depthwise", "transposed"]
DataFormat = Literal["channels_last", "channels_first"]
KINDS = get_args(Kind)


@checked
@dataclasses.dataclass(frozen=True)
class ConvGeometry:
    """What a convolution connects, on inputs of one fixed shape.

    Attributes:
        spatial_shape: Input lengths.
        in_channels: Input channels.
        filters: Output channels; `in_channels · m` for a depthwise convolution.
        kernel_size: One int per axis.
        strides: One int per axis.
        padding: `"valid"`, `"same"`, `"causal"`, or `(before, after)` pairs.
        dilation_rate: One int per axis.
        groups: Groups that split both kinds of channels.
        data_format: `"channels_last"` or `"channels_first"`.
        kind: `"conv"`, `"depthwise"` (`groups = in_channels`) or `"transposed"`.
        output_padding: Of a transposed convolution: `None`, or one int per axis.
        margin: `(before, after)` pairs: the rim of the input volume that always holds zeros,
            because a padding layer stands in front.
    """

    spatial_shape: tuple[int, ...]
    in_channels: PositiveInt
    filters: PositiveInt
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | Pairs = "valid"
    dilation_rate: tuple[int, ...] = ()
    groups: PositiveInt = 1
    data_format: str = "channels_last"
    kind: str = "conv"
    output_padding: tuple[int, ...] | None = None
    margin: Pairs = ()

    def __post_init__(self):
        check("kind", self.kind, Kind)
        check("data_format", self.data_format, DataFormat)
        # Lists come from JSON; tuples make the geometry hashable and comparable.
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list | tuple):
                value = tuple(tuple(v) if isinstance(v, list | tuple) else v for v in value)
                object.__setattr__(self, field.name, value)
        if not self.dilation_rate:
            object.__setattr__(self, "dilation_rate", (1,) * self.rank)
        if not self.margin:
            object.__setattr__(self, "margin", ((0, 0),) * self.rank)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.spatial_shape)

    @property
    def output_spatial_shape(self) -> tuple[int, ...]:
        """Output lengths."""
        if self.kind == "transposed":
            return tuple(length for length, _ in self._transposed_axes())
        return conv_output_shape(
            self.spatial_shape, self.kernel_size, self.strides, self.padding, self.dilation_rate
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input volume, in `data_format`."""
        return self._volume(self.spatial_shape, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output volume, in `data_format`."""
        return self._volume(self.output_spatial_shape, self.filters)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Shape `(inputs, outputs)` of the equivalent dense matrix."""
        return math.prod(self.input_shape), math.prod(self.output_shape)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the convolution's kernel, as Keras' layer of this kind has it."""
        if self.kind == "transposed":
            return (*self.kernel_size, self.filters, self.in_channels)
        if self.kind == "depthwise":
            return (*self.kernel_size, self.in_channels, self.filters // self.in_channels)
        return (*self.kernel_size, self.in_channels // self.groups, self.filters)

    @property
    def local_kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel of the equivalent locally connected layer."""
        taps = (*self.kernel_size, self.in_channels // self.groups, self.filters)
        return (*self.output_spatial_shape, *taps)

    @property
    def margin_mask(self) -> np.ndarray:
        """For each flat input position, whether it lies in `margin`."""
        mask = np.ones(self.spatial_shape, dtype=bool)
        inner = (slice(b, n - a) for n, (b, a) in zip(self.spatial_shape, self.margin, strict=True))
        mask[tuple(inner)] = False
        return mask.ravel()

    @property
    def transposed_padding(self) -> Pairs:
        """Of a transposed convolution, the padding of the convolution that it transposes."""
        return tuple(pads for _, pads in self._transposed_axes())

    def support(self) -> LocalSupport:
        """The local entries of the dense matrix.

        For a transposed convolution those of the convolution that it transposes: its `inputs` are
        columns and its `outputs` are rows of the matrix.
        """
        lengths, channels, padding = self._convolved
        return local_support(
            lengths,
            self.kernel_size,
            *channels,
            self.strides,
            padding,
            self.dilation_rate,
            self.groups,
            self.data_format,
        )

    def tap_counts(self) -> np.ndarray:
        """For each tap, how many entries of the dense matrix share one weight of it."""
        lengths, _, padding = self._convolved
        return tap_counts(lengths, self.kernel_size, self.strides, padding, self.dilation_rate)

    def check(self) -> None:
        """Raise a `ValueError` where `support` would, without the memory that it takes."""
        if min(self.in_channels, self.filters) < 1 or self.filters % self.groups:
            raise ValueError(
                "The numbers of input channels and of filters must be positive, and divisible by "
                f"`groups`. Received: in_channels={self.in_channels}, filters={self.filters}, "
                f"groups={self.groups}"
            )
        lengths, _, padding = self._convolved
        conv_output_shape(lengths, self.kernel_size, self.strides, padding, self.dilation_rate)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return dataclasses.asdict(self)

    def _volume(self, spatial: tuple[int, ...], channels: int) -> tuple[int, ...]:
        if self.data_format == "channels_last":
            return (*spatial, channels)
        return (channels, *spatial)

    @property
    def _convolved(self) -> tuple[tuple[int, ...], tuple[int, int], Padding]:
        """Input lengths, channels and padding of the convolution, or of that it transposes."""
        if self.kind != "transposed":
            return self.spatial_shape, (self.in_channels, self.filters), self.padding
        axes = self._transposed_axes()
        lengths, padding = tuple(n for n, _ in axes), tuple(pads for _, pads in axes)
        return lengths, (self.filters, self.in_channels), padding

    def _transposed_axes(self) -> list[tuple[int, tuple[int, int]]]:
        """For each axis, output length and padding of the convolution that is transposed."""
        axes = []
        extras = self.output_padding or (None,) * self.rank
        for n, k, s, d, extra in zip(
            self.spatial_shape,
            self.kernel_size,
            self.strides,
            self.dilation_rate,
            extras,
            strict=True,
        ):
            span = d * (k - 1) + 1
            full = (n - 1) * s + span
            if self.padding == "same":
                length = n * s if extra is None else full - 2 * (span // 2) + extra
                before = max(full - length, 0) // 2
            else:
                length = full + (max(s - span, 0) if extra is None else extra)
                before = 0
            axes.append((length, (before, max(full - length - before, 0))))
        return axes


@checked
def conv_geometry(
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Ints = 1,
    padding: Padding = "valid",
    dilation_rate: Ints = 1,
    groups: PositiveInt = 1,
    data_format: str = "channels_last",
    kind: str = "conv",
    output_padding: Ints | None = None,
) -> ConvGeometry:
    """The geometry of a convolution, from its kernel's shape.

    Args:
        input_shape: Shape of the input volume without the batch, in `data_format`.
        kernel_shape: `(*kernel_size, in_channels / groups, filters)`; of a depthwise convolution
            `(*kernel_size, in_channels, multiplier)`, of a transposed one
            `(*kernel_size, filters, in_channels)`.
        strides: Int or one int per axis.
        padding: `"valid"`, `"same"`, `"causal"` or `(before, after)` pairs; the first two only for
            a transposed convolution.
        dilation_rate: Int or one int per axis.
        groups: Groups of channels, of a plain convolution.
        data_format: `"channels_last"` or `"channels_first"`.
        kind: `"conv"`, `"depthwise"` or `"transposed"`.
        output_padding: Of a transposed convolution, as in Keras.

    Returns:
        A checked `ConvGeometry`.

    Raises:
        ValueError: If shapes, channels or options do not fit together.

    Example:
        >>> conv_geometry((32, 32, 3), (4, 4, 3, 64), 2, ((2, 2), (2, 2))).matrix_shape
        (3072, 18496)
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}. Received: kind={kind}")
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            "The argument `data_format` must be 'channels_last' or 'channels_first'. "
            f"Received: data_format={data_format}"
        )
    rank = len(input_shape) - 1
    if rank < 1 or len(kernel_shape) != rank + 2:
        raise ValueError(
            "`kernel_shape` must have one axis more than `input_shape`, which has the channels and "
            f"at least one spatial axis. Received: input_shape={tuple(input_shape)}, "
            f"kernel_shape={tuple(kernel_shape)}"
        )
    if None in tuple(input_shape):
        raise ValueError(
            "The input volume must be fully defined, because each of its entries becomes a row of "
            f"the dense matrix. Received: input_shape={tuple(input_shape)}"
        )
    if data_format == "channels_last":
        *spatial, channels = input_shape
    else:
        channels, *spatial = input_shape
    first, last = kernel_shape[-2:]
    if kind == "depthwise":
        groups, expected, filters = channels, first, channels * last
    elif kind == "transposed":
        groups, expected, filters = 1, last, first
        if padding not in ("valid", "same"):
            raise ValueError(
                "A transposed convolution has padding 'valid' or 'same'. "
                f"Received: padding={padding}"
            )
    else:
        expected, filters = first * groups, last
    if expected != channels:
        raise ValueError(
            f"The kernel is for {expected} input channels, the volume has {channels}. Received: "
            f"input_shape={tuple(input_shape)}, kernel_shape={tuple(kernel_shape)}, "
            f"groups={groups}, data_format={data_format}"
        )
    geometry = ConvGeometry(
        spatial_shape=tuple(spatial),
        in_channels=channels,
        filters=filters,
        kernel_size=tuple(kernel_shape[:-2]),
        strides=as_tuple(strides, rank, "strides"),
        padding=padding
        if isinstance(padding, str)
        else explicit_padding(spatial, tuple(kernel_shape[:-2]), padding=padding),
        dilation_rate=as_tuple(dilation_rate, rank, "dilation_rate"),
        groups=groups,
        data_format=data_format,
        kind=kind,
        output_padding=None
        if output_padding is None
        else as_tuple(output_padding, rank, "output_padding", allow_zero=True),
    )
    geometry.check()
    return geometry
