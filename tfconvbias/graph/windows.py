"""The windows of a layer: their size and stride, and the convolution that each kernel is."""

import dataclasses
import math
from typing import Any

from tfconvbias.connectivity import explicit_padding
from tfconvbias.connectivity.shapes import as_tuple
from tfconvbias.graph.facts import Kernel, channel_axis, facts_of, known_facts
from tfconvbias.graph.geometry import ConvGeometry, Pairs, conv_geometry

_GEOMETRY_KINDS = {
    "depthwise": "depthwise",
    "pooling": "depthwise",
    "separable": "depthwise",
    "transposed": "transposed",
}


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """What a convolution or pooling layer was told about its windows, one int per spatial axis.

    Attributes:
        size: Numbers of taps.
        strides: Strides.
        dilation_rate: Dilation.
        padding: `"valid"`, `"same"` or `"causal"`.
        groups: Groups of channels.
        data_format: `"channels_last"` or `"channels_first"`.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str
    groups: int
    data_format: str

    def spatial(self, shape: tuple) -> tuple:
        """The spatial lengths of a shape with the batch."""
        return shape[1:-1] if self.data_format == "channels_last" else shape[2:]


def window_of(layer: Any) -> WindowOptions | None:
    """A layer's window, `None` for one that has none.

    Args:
        layer: Any layer.

    Example:
        >>> import keras
        >>> window_of(keras.layers.MaxPooling2D(3, strides=2)).strides
        (2, 2)
    """
    facts = facts_of(layer)
    if facts is None or facts.rank is None or not (facts.convolves or facts.kind == "pooling"):
        return None
    name = "pool_size" if facts.kind == "pooling" else "kernel_size"
    size, strides, dilation = (
        as_tuple(getattr(layer, key, 1), facts.rank, key)
        for key in (name, "strides", "dilation_rate")
    )
    return WindowOptions(
        size,
        strides,
        dilation,
        layer.padding,
        getattr(layer, "groups", 1),
        getattr(layer, "data_format", "channels_last"),
    )


def zero_padding(layer: Any) -> Pairs:
    """The `(before, after)` pairs of a ZeroPadding layer."""
    if isinstance(layer.padding[0], int):
        return (tuple(layer.padding),)
    return tuple(tuple(pair) for pair in layer.padding)


def layer_geometries(
    layer: Any, input_shape: tuple[int | None, ...], padded: Pairs | None = None
) -> list[tuple[Kernel | None, ConvGeometry]]:
    """The convolutions that a layer is on inputs of a shape, one after the other.

    Args:
        layer: A convolution, with or without weight sharing, a pooling layer, which is seen as a
            depthwise convolution, or a dense layer, which is a 1×…×1 convolution of all axes
            before the last.
        input_shape: Of the tensor that the layer reads, with the batch; in front of the padding
            that is folded in.
        padded: `(before, after)` pairs of zeros that a padding layer adds in front of the layer.

    Returns:
        The layer's kernels, `None` for that of a pooling layer, and their geometries.

    Raises:
        ValueError: If the shape is not fully defined.

    Example:
        >>> import keras
        >>> layer = keras.layers.SeparableConv2D(4, 3)
        >>> layer.build((None, 8, 8, 2))
        >>> [geometry.kind for _, geometry in layer_geometries(layer, (None, 8, 8, 2))]
        ['depthwise', 'conv']
    """
    if None in tuple(input_shape[1:]):
        raise ValueError(
            f"The inputs of layer '{layer.name}' must be fully defined, because each of them is a "
            f"row of the dense matrix. Received: input_shape={tuple(input_shape)}"
        )
    facts = known_facts(layer)
    volume = tuple(n for n in input_shape[1:] if n is not None)
    window = window_of(layer)
    if window is None:
        shape = (1, *layer.kernel.shape)
        geometry = conv_geometry((math.prod(volume[:-1]), volume[-1]), shape)
        return [(facts.kernels[0], geometry)]
    first, *second = facts.kernels or (None,)
    if first is None:
        shape = (*window.size, volume[channel_axis(layer, len(input_shape))], 1)
    else:
        shape = tuple(getattr(layer, first.attribute).shape)[-2 - len(window.size) :]
    padding: str | Pairs = window.padding
    if padded is not None:
        spatial = window.spatial(tuple(input_shape))
        lengths = [n + b + a for n, (b, a) in zip(spatial, padded, strict=True)]
        own = explicit_padding(lengths, window.size, window.strides, padding, window.dilation_rate)
        padding = add_pairs(own, padded)
    geometry = conv_geometry(
        volume,
        shape,
        window.strides,
        padding,
        window.dilation_rate,
        window.groups,
        window.data_format,
        _GEOMETRY_KINDS.get(facts.kind, "conv"),
        getattr(layer, "output_padding", None),
    )
    found: list[tuple[Kernel | None, ConvGeometry]] = [(first, geometry)]
    for kernel in second:
        # The pointwise kernel of a separable convolution.
        shape = tuple(getattr(layer, kernel.attribute).shape)
        geometry = conv_geometry(geometry.output_shape, shape, data_format=window.data_format)
        found.append((kernel, geometry))
    return found


def add_pairs(inner: Pairs, outer: Pairs) -> Pairs:
    """Two rims of zeros around a volume as one."""
    return tuple(
        (b + before, a + after) for (b, a), (before, after) in zip(inner, outer, strict=True)
    )
