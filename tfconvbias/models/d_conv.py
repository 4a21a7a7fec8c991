"""D-CONV, D-LOCAL and D-FC: eight layers in place of S-CONV's one."""

from typing import Any

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks
from tfconvbias.models.layer_tables import CHANNELS_AND_STRIDES
from tfconvbias.models.model_family import ModelFamily
from tfconvbias.models.parameter_counts import check_memory


@ModelFamily
@checked
def DConv(
    base_channels: PositiveInt,
    *,
    connectivity: str = "conv",
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    dropout_rate: float = 0.0,
    kernel_size: PositiveInt = 3,
    preprocessing: keras.layers.Layer | None = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    name: str | None = None,
) -> keras.Model:
    """The deep all-convolutional network and its locally and fully connected counterparts.

    Eight 3×3 same-padded layers `conv1` … `conv8` with α, 2α, 2α, 4α, 4α, 8α, 8α, 16α channels and
    strides 1, 2, 1, 2, 1, 2, 1, 2, each with BatchNorm and ReLU; then `fc1` (64α units, BatchNorm,
    ReLU) and `fc2` (logits). `connectivity="conv"` is D-CONV; `"local"` is D-LOCAL, whose eight
    layers have a kernel of their own at each position; `"dense"` is D-FC, whose eight layers are
    dense between the same volumes.

    The paper's Table 3 prints the factors of D-FC in the column of D-LOCAL: the eight local layers
    hold about 45s²α² kernel entries (11.7 M at α = 15, not 3.42 M). `num_kernel_parameters` counts
    them exactly.

    Args:
        base_channels: α, the channels of `conv1`.
        connectivity: `"conv"`, `"local"` or `"dense"`.
        input_shape: `(rows, cols, channels)`.
        classes: c, the number of logits.
        dropout_rate: Rate of the dropout before fc1 and before fc2; 0 adds no layer.
        kernel_size: Side of the receptive fields; no effect on `"dense"`.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        kernel_initializer: Initializer of every kernel.
        kernel_regularizer: Regularizer of every kernel.
        name: Model name. Defaults to d_conv, d_local or d_fc.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.
        MemoryError: If the network would not fit into memory; nothing is allocated then.

    Example:
        >>> tuple(DConv(2, input_shape=(16, 16, 3)).get_layer("conv8").kernel.shape)
        (3, 3, 16, 32)

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figure 1 and Table 3.
    """
    blocks.check_connectivity(connectivity)
    blocks.check_positive(base_channels=base_channels, classes=classes, kernel_size=kernel_size)
    blocks.check_dropout_rate(dropout_rate)
    options = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    check_memory(
        blocks.family_name("d", connectivity),
        base_channels,
        input_shape=input_shape,
        classes=classes,
        kernel_size=kernel_size,
    )
    volume = blocks.Volume(x, input_shape)
    for index, (multiple, strides) in enumerate(CHANNELS_AND_STRIDES, start=1):
        volume = blocks.connected_relu(
            volume,
            multiple * base_channels,
            kernel_size,
            strides,
            connectivity=connectivity,
            name=f"conv{index}",
            **options,
        )
    x = blocks.hidden_dense(
        volume.flat(), 64 * base_channels, name="fc1", dropout_rate=dropout_rate, **options
    )
    logits = blocks.classifier(x, classes, name="fc2", dropout_rate=dropout_rate, **options)
    return blocks.image_model(inputs, logits, name=name or blocks.family_name("d", connectivity))
