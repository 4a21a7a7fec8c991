"""2D convolution without weight sharing."""

from collections.abc import Sequence
from typing import Any

import keras

from tfconvbias.arguments import checked
from tfconvbias.graph import LayerFacts, register
from tfconvbias.layers.base_locally_connected import BaseLocallyConnected
from tfconvbias.layers.keras2_kernel import check_implementation


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class LocallyConnected2D(BaseLocallyConnected):
    """2D convolution without weight sharing: each output position has its own kernel.

    It has the receptive fields of `keras.layers.Conv2D` and takes the same arguments. With the same
    kernel and bias at each position (`kernel[...] = conv.kernel`) it equals that layer.

    Filter `f` of the output is, with `c` running over the channels of the group of `f`,

        y[i,j,f] = activation(z[i,j,f] + bias[i,j,f])
        z[i,j,f] = Σ_{a,b,c} kernel[i,j,a,b,c,f] · x[t(i,a), t(j,b), c]
        t(i,a) = strides · i + dilation_rate · a − p    (p zeros of padding come before each axis)

    Taps that meet padding multiply zeros: the kernel entries that only ever see padding exist, so
    that the kernel is one array, but their gradient is exactly zero, and they stay at their initial
    values unless a regularizer, a constraint or weight decay moves them.

    An initializer whose variance follows from the kernel's fans (Glorot, He, LeCun, any
    `VarianceScaling`) draws each position's kernel as it would draw the kernel of `Conv2D`: the
    fan-in is that of the receptive field, the number of weights that an output sums over, and not
    that of the whole array. `Orthogonal` is drawn for each position. Any other initializer is
    called once with the kernel's whole shape.

    Keras 2 had a layer of this name. Its arguments mean the same here, except that they should be
    passed by name, since `dilation_rate` and `groups` now stand between them as in `Conv2D`.
    `load_keras2_weights` loads its weights.

    Args:
        filters: Int, the number of output channels.
        kernel_size: Int, or tuple of 2 ints, the size of the receptive field.
        strides: Int, or tuple of 2 ints. Unlike `Conv2D`, the layer takes strides and
            dilation at once.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        dilation_rate: Int, or tuple of 2 ints.
        groups: Int, the number of groups that split input channels and filters.
        activation: Activation function, or its name. `None` is the identity.
        use_bias: Whether to add a bias, one for each position and filter.
        kernel_initializer: Initializer of the kernel: name, configuration, object or callable of
            `(shape, dtype)`.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint of the kernel. A receptive field is axes `-4` to `-2`.
        bias_constraint: Constraint of the bias.
        implementation: 1, 2 or 3. Keras 2's argument, accepted so that its code and configurations
            still read; here all three compute the same in the same way, with every padding.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Shapes:
        - Input: `(batch, rows, cols, channels)` or, for `"channels_first"`,
          `(batch, channels, rows, cols)`. All but the batch must be known in `build`.
        - Output: `(batch, out_rows, out_cols, filters)` or
          `(batch, filters, out_rows, out_cols)`.
        - Kernel, in either format: the output positions
          `(out_rows, out_cols)`, then the taps
          `(kernel_rows, kernel_cols)`, then `(channels / groups, filters)`.
        - Bias, in either format: `(out_rows, out_cols, filters)`.

        With `n` output positions and `k` taps there are `n · filters · (k · channels / groups + 1)`
        parameters, of which `n · filters` are the bias. Beside inputs, outputs and weights, a call
        holds the patches, `n · k · channels · batch` values, and a training step their gradient.

    Raises:
        ValueError: If an argument is out of range, `filters` or the input's channels are not
            divisible by `groups`, an axis other than the batch is unknown, or the kernel does not
            fit in the input.

    Example:
        >>> layer = LocallyConnected2D(32, kernel_size=9, strides=2, padding="same")
        >>> tuple(layer(keras.ops.ones((2, 32, 32, 3))).shape)
        (2, 16, 16, 32)
        >>> tuple(layer.kernel.shape), tuple(layer.bias.shape)
        ((16, 16, 9, 9, 3, 32), (16, 16, 32))
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = (1, 1),
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
        implementation: int = 1,
        **kwargs: Any,
    ):
        check_implementation(implementation)
        super().__init__(
            rank=2,
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


register(LocallyConnected2D, LayerFacts("local", rank=2))
