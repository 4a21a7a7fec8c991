"""3D convolution without weight sharing."""

from collections.abc import Sequence
from typing import Any

import keras

from tfconvbias.arguments import checked
from tfconvbias.graph import LayerFacts, register
from tfconvbias.layers.base_locally_connected import BaseLocallyConnected


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class LocallyConnected3D(BaseLocallyConnected):
    """3D convolution without weight sharing: each output position has its own kernel.

    It has the receptive fields of `keras.layers.Conv3D` and takes the same arguments. With the same
    kernel and bias at each position (`kernel[...] = conv.kernel`) it equals that layer.

    Filter `f` of the output is, with `c` running over the channels of the group of `f`,

        y[h,i,j,f] = activation(z[h,i,j,f] + bias[h,i,j,f])
        z[h,i,j,f] = Σ_{g,a,b,c} kernel[h,i,j,g,a,b,c,f] · x[t(h,g), t(i,a), t(j,b), c]
        t(i,a) = strides · i + dilation_rate · a − p    (p zeros of padding come before each axis)

    Taps that meet padding multiply zeros: the kernel entries that only ever see padding exist, so
    that the kernel is one array, but their gradient is exactly zero, and they stay at their initial
    values unless a regularizer, a constraint or weight decay moves them.

    An initializer whose variance follows from the kernel's fans (Glorot, He, LeCun, any
    `VarianceScaling`) draws each position's kernel as it would draw the kernel of `Conv3D`: the
    fan-in is that of the receptive field, the number of weights that an output sums over, and not
    that of the whole array. `Orthogonal` is drawn for each position. Any other initializer is
    called once with the kernel's whole shape.

    Args:
        filters: Int, the number of output channels.
        kernel_size: Int, or tuple of 3 ints, the size of the receptive field.
        strides: Int, or tuple of 3 ints. Unlike `Conv3D`, the layer takes strides and
            dilation at once.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        dilation_rate: Int, or tuple of 3 ints.
        groups: Int, the number of groups that split input channels and filters.
        activation: Activation function, or its name. `None` is the identity.
        use_bias: Whether to add a bias, one for each position and filter.
        kernel_initializer: Initializer of the kernel: name, configuration, object or callable of
            `(shape, dtype)`.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint of the kernel. A receptive field is axes `-5` to `-2`.
        bias_constraint: Constraint of the bias.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Shapes:
        - Input: `(batch, depth, rows, cols, channels)` or, for `"channels_first"`,
          `(batch, channels, depth, rows, cols)`. All but the batch must be known in `build`.
        - Output: `(batch, out_depth, out_rows, out_cols, filters)` or
          `(batch, filters, out_depth, out_rows, out_cols)`.
        - Kernel, in either format: the output positions
          `(out_depth, out_rows, out_cols)`, then the taps
          `(kernel_depth, kernel_rows, kernel_cols)`, then `(channels / groups, filters)`.
        - Bias, in either format: `(out_depth, out_rows, out_cols, filters)`.

        With `n` output positions and `k` taps there are `n · filters · (k · channels / groups + 1)`
        parameters, of which `n · filters` are the bias. Beside inputs, outputs and weights, a call
        holds the patches, `n · k · channels · batch` values, and a training step their gradient.

    Raises:
        ValueError: If an argument is out of range, `filters` or the input's channels are not
            divisible by `groups`, an axis other than the batch is unknown, or the kernel does not
            fit in the input.

    Example:
        >>> layer = LocallyConnected3D(2, kernel_size=(1, 3, 3), padding="same")
        >>> tuple(layer(keras.ops.ones((2, 4, 6, 6, 1))).shape)
        (2, 4, 6, 6, 2)
        >>> tuple(layer.kernel.shape), tuple(layer.bias.shape)
        ((4, 6, 6, 1, 3, 3, 1, 2), (4, 6, 6, 2))
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = (1, 1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = (1, 1, 1),
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
        super().__init__(
            rank=3,
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )


register(LocallyConnected3D, LayerFacts("local", rank=3))
