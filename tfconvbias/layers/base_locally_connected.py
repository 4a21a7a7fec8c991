"""Private base of the locally connected layers."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.connectivity import conv_output_shape, patch_indices
from tfconvbias.connectivity.shapes import as_tuple
from tfconvbias.layers.keras2_kernel import bias_from_keras2, kernel_from_keras2
from tfconvbias.layers.local_initializer import at_each_position


class BaseLocallyConnected(keras.layers.Layer):
    """Convolution without weight sharing, of any rank: each output position has its own kernel.

    With `P` output positions, `K` kernel entries per filter and a batch of `B`, the inputs' patches
    are gathered once as `(P, K, B)` and multiplied by the kernel in one batched product,
    `(P, filters, K) · (P, K, B)`; with groups there are `P · groups` of them. The batch stands last
    for three reasons: the gather moves long contiguous rows, both products of the backward
    pass take the patches as they lie, and only the inputs and outputs, never the larger patches,
    are transposed.

    Args:
        rank: Number of spatial axes.
        **arguments: All others are those of the public layers `LocallyConnected1D`,
            `LocallyConnected2D` and `LocallyConnected3D`, whose docstrings explain them;
            `padding="causal"` is for rank 1 only.
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
        self._rows, self._needs_padding = self._gathered_rows(spatial)
        self.input_spec = keras.layers.InputSpec(
            ndim=self.rank + 2,
            axes=dict(enumerate(input_shape[1:], start=1)),
        )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*output, *self.kernel_size, channels // self.groups, self.filters),
            initializer=at_each_position(self.kernel_initializer, math.prod(output)),
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
        output = conv_output_shape(spatial, *self._window)
        batch = ops.shape(inputs)[0]
        num_inputs, num_outputs = math.prod(spatial), math.prod(output)
        in_group, out_group = channels // self.groups, self.filters // self.groups

        if self.data_format == "channels_last":
            rows = ops.reshape(inputs, (batch, num_inputs, channels))
            rows = ops.transpose(rows, (1, 2, 0))
        else:
            rows = ops.reshape(inputs, (batch, channels, num_inputs))
            rows = ops.transpose(rows, (2, 1, 0))
        rows = ops.reshape(rows, (num_inputs * self.groups, in_group, batch))
        if self._needs_padding:
            rows = ops.pad(rows, ((0, 1), (0, 0), (0, 0)))
        patches = ops.take(rows, self._rows, axis=0)

        num_entries = math.prod(self.kernel_size) * in_group
        kernel = ops.reshape(self.kernel, (num_outputs, num_entries, self.filters))
        if self.groups > 1:
            kernel = ops.reshape(kernel, (num_outputs, num_entries, self.groups, out_group))
            kernel = ops.transpose(kernel, (0, 2, 1, 3))
            kernel = ops.reshape(kernel, (num_outputs * self.groups, num_entries, out_group))
        patches = ops.reshape(patches, (num_outputs * self.groups, num_entries, batch))
        # Backends fold a transposition of the last two axes into the product.
        outputs = ops.matmul(ops.transpose(kernel, (0, 2, 1)), patches)
        outputs = ops.reshape(outputs, (num_outputs, self.filters, batch))
        if self.bias is not None:
            bias = ops.reshape(self.bias, (num_outputs, self.filters, 1))
            # Not `ops.add`: on TensorFlow it adds a `bias` that can be squeezed to the length of
            # the last axis along that axis, which is the batch here.
            outputs = outputs + bias
        if self.data_format == "channels_last":
            outputs = ops.transpose(outputs, (2, 0, 1))
            outputs = ops.reshape(outputs, (batch, *output, self.filters))
        else:
            outputs = ops.transpose(outputs, (2, 1, 0))
            outputs = ops.reshape(outputs, (batch, self.filters, *output))
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

    def load_own_variables(self, store):
        # A `.keras` or `.weights.h5` of Keras 2 holds kernel and bias in layouts of its own.
        if self.rank < 3 and self.built and len(store) == 1 + self.use_bias:
            kernel = np.asarray(store["0"])
            if kernel.shape != tuple(self.kernel.shape):
                values = {"0": kernel_from_keras2(kernel, self)}
                if self.use_bias:
                    values["1"] = bias_from_keras2(np.asarray(store["1"]), self)
                store = values
        super().load_own_variables(store)

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

    def _gathered_rows(self, spatial):
        """Rows of the inputs, split by group, that each patch gathers, and whether any is padding.

        Row `position · groups + group`; padding is the row after the last. Numbers of taps and
        groups are in the order that puts each group's patch in one piece.
        """
        patches = patch_indices(spatial, *self._window)
        rows = patches[:, None, :] * self.groups + np.arange(self.groups)[:, None]
        is_padding = patches < 0
        num_rows = math.prod(spatial) * self.groups
        rows = np.where(is_padding[:, None, :], num_rows, rows).ravel()
        return rows.astype("int32"), bool(is_padding.any())

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
