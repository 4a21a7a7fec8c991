"""A convolution with a larger, zero-padded kernel: locality relaxed, weight sharing kept."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.connectivity import explicit_padding
from tfconvbias.connectivity.shapes import as_tuple
from tfconvbias.graph import ConvGeometry, LayerFacts, register


def widened(
    geometry: ConvGeometry, kernel_size: int | Sequence[int] | None = None
) -> tuple[ConvGeometry, tuple[int, ...]]:
    r"""The convolution with a larger kernel and the same outputs, and where the old kernel lies.

    With $k$ taps, stride $s$, dilation $d$, $b$ zeros before and $m$ new taps before, the output
    at $o$ reads the input at $o s + (t - m) d - b$ for $t = 0, …, K - 1$: tap $m$ is the old
    tap 0. New taps are split evenly between both sides, except that none is added where it would
    meet padding at every output position. So at most all taps that meet an input are there, which
    for stride 1 and dilation 1 are $2n - 1$ for $n$ inputs with padding "same".

    Args:
        geometry: Of the convolution, not of a transposed one.
        kernel_size: Taps along each axis, an int or one per axis; a larger number than that of the
            taps that meet an input means all of them, a smaller one than the old kernel's leaves
            it as it is. `None`: all of them.

    Returns:
        The geometry, with padding as pairs, and the number of new taps before the old ones on each
        axis.

    Example:
        >>> from tfconvbias.graph import conv_geometry
        >>> wide, before = widened(conv_geometry((8, 6, 1), (3, 3, 1, 2), padding="same"))
        >>> wide.kernel_size, before
        ((15, 11), (6, 4))
    """
    rank = geometry.rank
    wanted: Sequence[int | None] = (
        (None,) * rank if kernel_size is None else as_tuple(kernel_size, rank, "kernel_size")
    )
    own = explicit_padding(
        geometry.spatial_shape,
        geometry.kernel_size,
        geometry.strides,
        geometry.padding,
        geometry.dilation_rate,
    )
    sizes, befores, paddings = [], [], []
    for n, out, k, s, d, (b, _), size in zip(
        geometry.spatial_shape,
        geometry.output_spatial_shape,
        geometry.kernel_size,
        geometry.strides,
        geometry.dilation_rate,
        own,
        wanted,
        strict=True,
    ):
        # New taps that meet an input: before from the last output, after from the first.
        left = max(((out - 1) * s - b) // d, 0)
        right = max((n - 1 + b) // d - (k - 1), 0)
        extra = left + right if size is None else min(max(size - k, 0), left + right)
        before = min(max(extra // 2, extra - right), left)
        sizes.append(k + extra)
        befores.append(before)
        first = b + before * d
        # Inputs beyond the last window stay unread, as they were.
        last = max((out - 1) * s + (k + extra - 1) * d + 1 - n - first, 0)
        paddings.append((first, last))
    wide = dataclasses.replace(geometry, kernel_size=tuple(sizes), padding=tuple(paddings))
    return wide, tuple(befores)


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class EmbeddedConv(keras.layers.Layer):
    r"""A convolution whose kernel is larger than that of the convolution which it stands for.

    With the old kernel in the middle of zeros it computes what the old convolution computes, at the
    same output positions; training may fill the rest. The geometry says which taps are the old
    ones, so that a saved model can be measured, masked and projected back. With the largest kernel
    each output reads each input, as in a dense layer, but weights are shared:
    $y_{o,f} = \sum_{t,c} w_{t,c,f}\, x_{o s + t d - b, c} + \beta_f$.

    Args:
        geometry: `ConvGeometry` of the old convolution, or its dictionary; not of a transposed one.
        kernel_size: Taps along each axis, an int or one per axis, as in `embed`; `None` for all
            taps that meet an input.
        use_bias: Whether there is one bias per filter.
        kernel_initializer: Of a kernel that nobody gives; `embed` does.
        bias_initializer: Likewise.
        kernel_regularizer: On all entries of the larger kernel.
        bias_regularizer: On the bias.
        **kwargs: `name`, `dtype`, `trainable` and `activity_regularizer`.

    Input shape: the batch and `geometry.input_shape`. Output shape: the batch and
    `geometry.output_shape`. Weights: kernel `(*kernel_size, in_channels / groups, filters)`, also
    of depthwise convolutions, and bias `(filters,)`.

    Raises:
        ValueError: If the geometry is that of a transposed convolution, or the inputs do not fit.

    Example:
        >>> from tfconvbias.graph import conv_geometry
        >>> layer = EmbeddedConv(conv_geometry((8, 8, 3), (3, 3, 3, 4), strides=2))
        >>> layer.kernel_size
        (12, 12)
        >>> layer(np.ones((1, 8, 8, 3))).shape[1:] == (3, 3, 4)
        True
    """

    def __init__(
        self,
        geometry: ConvGeometry | dict,
        kernel_size: PositiveInt | Sequence[PositiveInt] | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(geometry, dict):
            geometry = ConvGeometry(**geometry)
        if geometry.kind == "transposed":
            raise ValueError(
                "A transposed convolution has no wide form. "
                f"Received: geometry.kind={geometry.kind}"
            )
        self.geometry = geometry
        self.wide_geometry, self._before = widened(geometry, kernel_size)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        # As Keras' convolutions name them.
        wide = self.wide_geometry
        self.filters, self.kernel_size, self.groups = wide.filters, wide.kernel_size, wide.groups
        self.strides, self.dilation_rate = wide.strides, wide.dilation_rate
        self.padding, self.data_format = wide.padding, wide.data_format
        self.input_spec = keras.layers.InputSpec(ndim=wide.rank + 2)

    @property
    def inner(self) -> tuple[slice, ...]:
        """Where the old convolution's taps lie in the kernel."""
        sizes = zip(self._before, self.geometry.kernel_size, strict=True)
        return tuple(slice(start, start + size) for start, size in sizes)

    def build(self, input_shape):
        if tuple(input_shape[1:]) != self.geometry.input_shape:
            raise ValueError(
                f"The inputs must be volumes of shape {self.geometry.input_shape}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=_grouped_kernel_shape(self.wide_geometry),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def call(self, inputs):
        wide = self.wide_geometry
        is_last = self.data_format == "channels_last"
        channels, spatial = [(0, 0)], list(self.padding)
        pads = [(0, 0), *spatial, *channels] if is_last else [(0, 0), *channels, *spatial]
        same = explicit_padding(
            wide.spatial_shape, wide.kernel_size, wide.strides, "same", wide.dilation_rate
        )
        # The backend's own padding saves a copy of the padded inputs.
        is_same = same == self.padding and set(self.strides) == {1}
        outputs = ops.conv(
            inputs if is_same else ops.pad(inputs, pads),
            self.kernel,
            strides=self.strides,
            padding="same" if is_same else "valid",
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        if self.bias is None:
            return outputs
        shape = (-1,) if is_last else (-1, *(1,) * wide.rank)
        return outputs + ops.reshape(self.bias, shape)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.geometry.output_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "geometry": self.geometry.to_dict(),
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }


def widened_kernel(kernel: np.ndarray, layer: EmbeddedConv) -> np.ndarray:
    """A convolution's kernel in the middle of zeros, for the layer that stands for it."""
    value = np.zeros(_grouped_kernel_shape(layer.wide_geometry), kernel.dtype)
    value[layer.inner] = kernel.reshape(_grouped_kernel_shape(layer.geometry))
    return value


def inner_kernel(kernel: np.ndarray, layer: EmbeddedConv) -> np.ndarray:
    """The old taps of a wide kernel, of the shape that Keras' layer of its kind has."""
    return kernel[layer.inner].reshape(layer.geometry.kernel_shape)


def _grouped_kernel_shape(geometry: ConvGeometry) -> tuple[int, ...]:
    """Of a convolution in groups, also where Keras has a depthwise layer with another shape."""
    channels = geometry.in_channels // geometry.groups
    return (*geometry.kernel_size, channels, geometry.filters)


# Its geometry names all of its inputs and outputs, so that none can be cut away.
register(
    EmbeddedConv,
    lambda layer: LayerFacts("conv", rank=layer.geometry.rank, is_resizable=False),
)
