"""The base architectures from which structured sparsity starts."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks
from tfconvbias.models.model_family import ModelFamily

# (width, kernel size) of every convolution; the softmax layer, which counts in the depth, is not
# listed.
BASES: dict[str, tuple[tuple[int, int], ...]] = {
    "imagenet8": ((64, 7), *((64, 3),) * 2, *((128, 3),) * 2, *((256, 3),) * 2),
    "imagenet18": (
        (64, 7),
        *((64, 3),) * 4,
        *((128, 3),) * 4,
        *((256, 3),) * 4,
        *((512, 3),) * 4,
    ),
    # Ours: as shallow as the draft's smaller ImageNet base, for trainings of minutes.
    "cifar8": (*((16, 3),) * 3, *((32, 3),) * 2, *((64, 3),) * 2),
    "cifar20": (*((16, 3),) * 7, *((32, 3),) * 6, *((64, 3),) * 6),
    "cifar20_square": ((64, 5),) * 19,
}
"""Name of a base → filters and kernel size of each convolution."""

# Where the image is halved. He et al. do it where the width doubles; the square architecture has
# one width, so it halves where `cifar20` does.
BASE_STRIDES: dict[str, tuple[int, ...]] = {
    "imagenet8": (2, 1, 1, 2, 1, 2, 1),
    "imagenet18": (2, *(1,) * 4, *((2, 1, 1, 1) * 3)),
    "cifar8": (1, 1, 1, 2, 1, 2, 1),
    "cifar20": (*(1,) * 7, *((2, 1, 1, 1, 1, 1) * 2)),
    "cifar20_square": (*(1,) * 7, *((2, 1, 1, 1, 1, 1) * 2)),
}
"""Name of a base → stride of each convolution."""


@ModelFamily
@checked
def StructuredBase(
    base: str | Sequence[tuple[int, int]] = "cifar20",
    *,
    residual: bool = True,
    strides: Sequence[int] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    classes: PositiveInt | None = None,
    use_max_pooling: bool | None = None,
    preprocessing: keras.layers.Layer | None = None,
    kernel_initializer: Any = "he_normal",
    kernel_regularizer: Any = None,
    batch_norm_momentum: float = 0.9,
    name: str | None = None,
) -> keras.Model:
    """A plain or residual network of convolutions with any widths and kernel sizes.

    Convolutions without bias, each followed by BatchNorm and ReLU, then global average pooling and
    a dense classifier that is not regularized. With `residual=True` shortcuts go over pairs of
    convolutions, from the second one on. A shortcut is the identity or, where stride or width
    change, a 1×1 convolution with BatchNorm. These convolutions carry the regularizer too, since a
    channel of the residual stream is dead only if all layers that write to it are dead there.
    `residual=True, base="cifar20"` is He et al.'s ResNet-20 with projections.

    Args:
        base: `"imagenet8"`, `"imagenet18"`, `"cifar20"`, `"cifar20_square"` (the draft prints 18
            convolutions of width 64 and size 5; its depth of 20 needs 19), `"cifar8"` (ours, seven
            convolutions), or a sequence of `(width, kernel_size)`, one per convolution.
        residual: Whether shortcuts go over pairs of convolutions.
        strides: Stride of each convolution. Defaults to those of the named base; for a sequence,
            2 where the width grows and 1 elsewhere.
        input_shape: `(rows, cols, channels)`. Defaults to (224, 224, 3) for the ImageNet bases and
            (32, 32, 3) otherwise.
        classes: Number of logits. Defaults to 1000 for the ImageNet bases and 10 otherwise.
        use_max_pooling: Whether a 3×3 max-pooling with stride 2 follows the first convolution.
            Defaults to True for the ImageNet bases, as He et al. do, and to False otherwise.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        kernel_initializer: Initializer of every kernel.
        kernel_regularizer: Regularizer of every convolution, such as
            `tfconvbias.regularizers.KernelNumber`; one instance serves all layers, which then share
            its α.
        batch_norm_momentum: Momentum of the moving statistics. Defaults to He et al.'s 0.9 rather
            than Keras' 0.99: in the short trainings along a path of penalties α the statistics
            must keep up with the weights.
        name: Model name. Defaults to `structured_<base>_plain` or `structured_<base>_residual`.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`. Its
        convolutions are called `conv1`, `conv2`, …, its projections `conv<i>_shortcut`.

    Raises:
        ValueError: If an argument is out of its range, or a residual network has an even number
            of convolutions: those after the first go in pairs.

    Example:
        >>> model = StructuredBase(((4, 3), (4, 3), (8, 5)), input_shape=(8, 8, 1))
        >>> model.get_layer("conv3").filters
        8

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", Table 2;
        He et al., "Deep Residual Learning for Image Recognition", 2016.
    """
    layers = _layers_of(base)
    label = base if isinstance(base, str) else "custom"
    is_imagenet = label.startswith("imagenet")
    strides = _strides_of(base, layers, strides)
    if residual and len(layers) % 2 == 0:
        raise ValueError(
            "A residual network needs an odd number of convolutions: one, then pairs. "
            f"Received: base with {len(layers)} convolutions"
        )
    input_shape = input_shape or ((224, 224, 3) if is_imagenet else (32, 32, 3))
    classes = classes if classes is not None else (1000 if is_imagenet else 10)
    blocks.check_positive(classes=classes)
    if use_max_pooling is None:
        use_max_pooling = is_imagenet
    initial = {"kernel_initializer": kernel_initializer}
    options = {"connectivity": "conv", "kernel_regularizer": kernel_regularizer, **initial}

    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    volume = blocks.Volume(x, input_shape)
    shortcut = volume
    for number, ((width, size), stride) in enumerate(zip(layers, strides, strict=True), start=1):
        conv = f"conv{number}"
        in_pair = residual and number > 1
        if in_pair and number % 2 == 0:
            shortcut = volume
        volume = blocks.connected(
            volume, width, size, stride, centered=in_pair, name=conv, **options
        )
        x = blocks.normalized(volume.tensor, conv, batch_norm_momentum)
        if in_pair and number % 2 == 1:
            stride_pair = stride * strides[number - 2]
            if shortcut.shape != volume.shape:
                path = f"conv{number - 1}_shortcut"
                shortcut = blocks.connected(shortcut, width, 1, stride_pair, name=path, **options)
                x_shortcut = blocks.normalized(shortcut.tensor, path, batch_norm_momentum)
                shortcut = blocks.Volume(x_shortcut, shortcut.shape)
            x = keras.layers.Add(name=f"{conv}_add")([shortcut.tensor, x])
        x = keras.layers.ReLU(name=f"{conv}_relu")(x)
        volume = blocks.Volume(x, volume.shape)
        if number == 1 and use_max_pooling:
            x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
            volume = blocks.Volume(x, tuple(x.shape[1:]))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(volume.tensor)
    outputs = blocks.classifier(x, classes, name="fc", kernel_regularizer=None, **initial)
    kind = "residual" if residual else "plain"
    return blocks.image_model(inputs, outputs, name=name or f"structured_{label}_{kind}")


def _layers_of(base) -> tuple[tuple[int, int], ...]:
    if isinstance(base, str):
        if base not in BASES:
            raise ValueError(
                f"`base` must be one of {tuple(BASES)} or a sequence of (width, kernel_size). "
                f"Received: base={base!r}"
            )
        return BASES[base]
    layers = tuple(tuple(layer) for layer in base)
    if not layers or any(
        len(layer) != 2 or not all(isinstance(n, int) and n > 0 for n in layer) for layer in layers
    ):
        raise ValueError(
            "`base` must be a sequence of pairs of positive integers (width, kernel_size). "
            f"Received: base={base!r}"
        )
    return layers


def _strides_of(base, layers, strides) -> tuple[int, ...]:
    if strides is None:
        if isinstance(base, str):
            return BASE_STRIDES[base]
        widths = [width for width, _ in layers]
        return (1, *(2 if new > old else 1 for old, new in itertools.pairwise(widths)))
    strides = tuple(strides)
    if len(strides) != len(layers) or not all(isinstance(s, int) and s > 0 for s in strides):
        raise ValueError(
            f"`strides` must be {len(layers)} positive integers, one per convolution. "
            f"Received: strides={strides}"
        )
    return strides
