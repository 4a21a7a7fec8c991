"""S-CONV, S-LOCAL and S-FC: one wide layer, then two dense ones."""

from typing import Any

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks
from tfconvbias.models.model_family import ModelFamily
from tfconvbias.models.parameter_counts import check_memory


@ModelFamily
@checked
def SConv(
    base_channels: PositiveInt,
    *,
    connectivity: str = "conv",
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    dropout_rate: float = 0.0,
    kernel_size: PositiveInt = 9,
    hidden_ratio: int = 24,
    preprocessing: keras.layers.Layer | None = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
    name: str | None = None,
) -> keras.Model:
    """The shallow all-convolutional network and its locally and fully connected counterparts.

    ```
    conv1  9×9, α channels, stride 2, same → BatchNorm → ReLU → flatten
    fc1    24α units → BatchNorm → ReLU
    fc2    c logits
    ```

    `connectivity="conv"` is S-CONV, `"local"` S-LOCAL and `"dense"` S-FC, in which `conv1` is a
    dense layer between the same two volumes. Only fc2 has a bias. On s×s×3 images with s even the
    kernels hold 6s²α² + 24cα parameters and 243α (conv), 243s²α/4 (local) or 3s⁴α/4 (dense) more;
    `num_kernel_parameters` counts them for any size.

    Args:
        base_channels: α, the channels of `conv1`.
        connectivity: `"conv"`, `"local"` or `"dense"`.
        input_shape: `(rows, cols, channels)`.
        classes: c, the number of logits.
        dropout_rate: Rate of the dropout before fc1 and before fc2; 0 adds no layer.
        kernel_size: Side of the receptive field; no effect on `"dense"`.
        hidden_ratio: fc1's units by α. The layers of the paper's Figure 3 fit 25, with α = 230.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        kernel_initializer: Initializer of every kernel. The paper names none; this is Keras'.
        kernel_regularizer: Regularizer of every kernel.
        name: Model name. Defaults to s_conv, s_local or s_fc.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.
        MemoryError: If the network would not fit into memory; nothing is allocated then.

    Example:
        >>> model = SConv(2, connectivity="dense", input_shape=(8, 8, 3))
        >>> tuple(model.get_layer("conv1").kernel.shape)
        (192, 32)

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figure 1 and Table 4.
    """
    blocks.check_connectivity(connectivity)
    blocks.check_positive(base_channels=base_channels, classes=classes, kernel_size=kernel_size)
    blocks.check_positive(hidden_ratio=hidden_ratio)
    blocks.check_dropout_rate(dropout_rate)
    options = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    check_memory(
        blocks.family_name("s", connectivity),
        base_channels,
        input_shape=input_shape,
        classes=classes,
        kernel_size=kernel_size,
        hidden_ratio=hidden_ratio,
    )
    volume = blocks.connected_relu(
        blocks.Volume(x, input_shape),
        base_channels,
        kernel_size,
        2,
        connectivity=connectivity,
        name="conv1",
        **options,
    )
    x = blocks.hidden_dense(
        volume.flat(),
        hidden_ratio * base_channels,
        name="fc1",
        dropout_rate=dropout_rate,
        **options,
    )
    logits = blocks.classifier(x, classes, name="fc2", dropout_rate=dropout_rate, **options)
    return blocks.image_model(inputs, logits, name=name or blocks.family_name("s", connectivity))
