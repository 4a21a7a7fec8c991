"""Private base of the locally connected layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tfconvbias.connectivity import conv_output_shape, patch_indices
from tfconvbias.connectivity.shapes import as_tuple


class BaseLocallyConnected(keras.layers.Layer):
    """Convolution without weight sharing, of any rank: each output position has its own kernel.

    Args:
        rank: Number of spatial axes.
        filters: As the public layers, and so are all the other arguments.
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.rank = rank
        (self.filters,) = as_tuple(filters, 1, "filters")
        (self.groups,) = as_tuple(groups, 1, "groups")
        self.kernel_size = as_tuple(kernel_size, rank, "kernel_size")
        self.strides = as_tuple(strides, rank, "strides")
        self.dilation_rate = as_tuple(dilation_rate, rank, "dilation_rate")
        self.padding = _standardize_padding(padding, allow_causal=rank == 1)
        self.data_format = _standardize_data_format(data_format)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=rank + 2)
        if self.filters % self.groups:
            raise ValueError(
                "The number of filters must be evenly divisible by the number of groups. "
                f"Received: groups={self.groups}, filters={self.filters}"
            )

    def build(self, input_shape):
        spatial, channels = self._split_shape(input_shape)
        if channels is None or None in spatial:
            raise ValueError(
                f"The spatial axes and the channels of the inputs to {type(self).__name__} must be "
                "fully defined, because each output position has its own kernel. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if channels % self.groups:
            raise ValueError(
                "The number of input channels must be evenly divisible by the number of groups. "
                f"Received: groups={self.groups}, input_shape={tuple(input_shape)}"
            )
        output = conv_output_shape(spatial, *self._window)
        self._patches = patch_indices(spatial, *self._window)
        self.input_spec = keras.layers.InputSpec(
            ndim=self.rank + 2,
            axes=dict(enumerate(input_shape[1:], start=1)),
        )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*output, *self.kernel_size, channels // self.groups, self.filters),
            initializer=_at_each_position(self.kernel_initializer, math.prod(output)),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(*output, self.filters),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs):
        spatial, channels = self._split_shape(inputs.shape)
        batch = ops.shape(inputs)[0]
        num_positions, num_taps = self._patches.shape
        num_inputs = math.prod(spatial)
        if self.data_format == "channels_last":
            rows = ops.transpose(ops.reshape(inputs, (batch, num_inputs, channels)), (1, 2, 0))
        else:
            rows = ops.transpose(ops.reshape(inputs, (batch, channels, num_inputs)), (2, 1, 0))
        rows = ops.pad(rows, ((0, 1), (0, 0), (0, 0)))
        patches = ops.take(rows, self._patches % (num_inputs + 1), axis=0)
        per_group = channels // self.groups
        if self.groups == 1:
            patches = ops.reshape(patches, (num_positions, num_taps * channels, batch))
            kernel = ops.reshape(self.kernel, (num_positions, num_taps * channels, self.filters))
            outputs = ops.einsum("pkb,pkf->pbf", patches, kernel)
        else:
            patches = ops.reshape(patches, (num_positions, num_taps, self.groups, per_group, batch))
            kernel = ops.reshape(
                self.kernel,
                (num_positions, num_taps, per_group, self.groups, self.filters // self.groups),
            )
            outputs = ops.einsum("ptgcb,ptcgf->pbgf", patches, kernel)
            outputs = ops.reshape(outputs, (num_positions, batch, self.filters))
        if self.bias is not None:
            outputs = outputs + ops.reshape(self.bias, (num_positions, 1, self.filters))
        output = conv_output_shape(spatial, *self._window)
        if self.data_format == "channels_last":
            outputs = ops.reshape(ops.transpose(outputs, (1, 0, 2)), (batch, *output, self.filters))
        else:
            outputs = ops.reshape(ops.transpose(outputs, (1, 2, 0)), (batch, self.filters, *output))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape):
        spatial, _ = self._split_shape(input_shape)
        output = tuple(
            None if length is None else conv_output_shape((length,), k, s, self.padding, d)[0]
            for length, k, s, d in zip(
                spatial, self.kernel_size, self.strides, self.dilation_rate, strict=True
            )
        )
        if self.data_format == "channels_last":
            return (input_shape[0], *output, self.filters)
        return (input_shape[0], self.filters, *output)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }

    @property
    def _window(self):
        return self.kernel_size, self.strides, self.padding, self.dilation_rate

    def _split_shape(self, shape):
        """Spatial lengths and number of channels of an input shape."""
        if len(shape) != self.rank + 2:
            raise ValueError(
                f"The inputs to {type(self).__name__} must have {self.rank + 2} axes. "
                f"Received: input_shape={tuple(shape)}"
            )
        if self.data_format == "channels_last":
            return tuple(shape[1:-1]), shape[-1]
        return tuple(shape[2:]), shape[1]


def _standardize_padding(padding: str, allow_causal: bool) -> str:
    allowed = ("valid", "same", "causal") if allow_causal else ("valid", "same")
    if not isinstance(padding, str) or padding.lower() not in allowed:
        raise ValueError(
            f"The argument `padding` must be one of {allowed}. Received: padding={padding}"
        )
    return padding.lower()


def _standardize_data_format(data_format: str | None) -> str:
    allowed = ("channels_last", "channels_first")
    if data_format is None:
        return keras.config.image_data_format()
    if not isinstance(data_format, str) or data_format.lower() not in allowed:
        raise ValueError(
            f"The argument `data_format` must be one of {allowed}. "
            f"Received: data_format={data_format}"
        )
    return data_format.lower()


def _at_each_position(initializer: Callable, num_positions: int) -> Callable:
    """An initializer of a local kernel with the statistics of a convolution's at each position.

    A `VarianceScaling` reads its fans off the kernel's shape and takes all but the last two axes
    for the receptive field, positions included: its variance comes out smaller by the number of
    positions, which the scale undoes.
    """
    if (
        not isinstance(initializer, keras.initializers.VarianceScaling)
        or getattr(initializer, "input_axes", None) is not None
    ):
        return initializer

    def scaled(shape, dtype=None):
        return initializer(shape, dtype=dtype) * math.sqrt(num_positions)

    return scaled
