"""ResNet18 for small images, by kernel size and connectivity."""

from typing import Any

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks
from tfconvbias.models.layer_tables import STAGES
from tfconvbias.models.model_family import ModelFamily
from tfconvbias.models.parameter_counts import check_memory


@ModelFamily
@checked
def ResNet18(
    base_channels: PositiveInt = 64,
    *,
    kernel_size: PositiveInt = 3,
    connectivity: str = "conv",
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    preprocessing: keras.layers.Layer | None = None,
    kernel_initializer: Any = "he_normal",
    kernel_regularizer: Any = None,
    name: str | None = None,
) -> keras.Model:
    """He et al.'s ResNet18 with a stride-1 first layer and no max-pooling.

    `conv1`, then four stages of two residual blocks with 64, 128, 256 and 512 channels, global
    average pooling and `fc`. Every kernel is `kernel_size` × `kernel_size` except the 1×1
    projections of the shortcuts, which are named `stage2_block1_shortcut` and so on. Where the
    image is halved, both branches of a block look at the same pixels, as in He et al.'s network.
    With the defaults the kernels hold 11,164,352 parameters and all trainable ones 11,173,962.

    `connectivity="local"` or `"dense"` relaxes every convolution, projections too (their receptive
    field is one position); dense networks need a small `base_channels`.

    Args:
        base_channels: Channels of the first stage.
        kernel_size: Side of the receptive fields, 3 to 15 and odd in the paper.
        connectivity: `"conv"`, `"local"` or `"dense"`.
        input_shape: `(rows, cols, channels)`.
        classes: The number of logits.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        kernel_initializer: Initializer of every kernel. Defaults to that of He et al.
        kernel_regularizer: Regularizer of every kernel.
        name: Model name. Defaults to resnet18, resnet18_local or resnet18_dense.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.
        MemoryError: If the network would not fit into memory; nothing is allocated then.

    Example:
        >>> model = ResNet18(4, kernel_size=5, input_shape=(8, 8, 3))
        >>> tuple(model.get_layer("conv1").kernel.shape)
        (5, 5, 3, 4)

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, Figure 5 and appendix A.1;
        He et al., "Deep Residual Learning for Image Recognition", 2016.
    """
    blocks.check_connectivity(connectivity)
    blocks.check_positive(kernel_size=kernel_size, base_channels=base_channels, classes=classes)
    initial = {
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    options = {"connectivity": connectivity, **initial}

    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    default_name = "resnet18" if connectivity == "conv" else f"resnet18_{connectivity}"
    check_memory(
        default_name,
        base_channels,
        input_shape=input_shape,
        classes=classes,
        kernel_size=kernel_size,
    )
    volume = blocks.connected_relu(
        blocks.Volume(x, input_shape), base_channels, kernel_size, 1, name="conv1", **options
    )
    for stage, (multiple, stage_strides) in enumerate(STAGES, start=1):
        for block in (1, 2):
            filters = multiple * base_channels
            strides = stage_strides if block == 1 else 1
            prefix = f"stage{stage}_block{block}"
            branch = blocks.connected_relu(
                volume,
                filters,
                kernel_size,
                strides,
                centered=True,
                name=f"{prefix}_conv1",
                **options,
            )
            branch = blocks.connected(
                branch, filters, kernel_size, 1, name=f"{prefix}_conv2", **options
            )
            shortcut = volume.tensor
            if volume.shape != branch.shape:
                projection = blocks.connected(
                    volume, filters, 1, strides, name=f"{prefix}_shortcut", **options
                )
                shortcut = blocks.normalized(projection.tensor, f"{prefix}_shortcut")
            elif len(shortcut.shape) != len(branch.tensor.shape):
                shortcut = volume.flat(name=f"{prefix}_flatten")
            joined = keras.layers.Add(name=f"{prefix}_add")(
                [shortcut, blocks.normalized(branch.tensor, f"{prefix}_conv2")]
            )
            volume = blocks.Volume(keras.layers.ReLU(name=f"{prefix}_relu")(joined), branch.shape)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(volume.image())
    logits = blocks.classifier(x, classes, name="fc", **initial)
    return blocks.image_model(inputs, logits, name=name or default_name)
