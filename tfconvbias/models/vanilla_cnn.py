"""VanillaCNN: three convolutions and a dense layer, the network that is embedded most."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.models import blocks
from tfconvbias.models.model_family import ModelFamily

INITIALIZATIONS = ("torch", "keras")

_LAYERS = ((4, 2, 2), (5, 1, 2), (3, 1, 1))
"""Kernel size, strides and padding of each convolution."""


@ModelFamily
@checked
def VanillaCNN(
    filters: PositiveInt = 64,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: PositiveInt = 10,
    initialization: str = "torch",
    preprocessing: keras.layers.Layer | None = None,
    name: str = "vanilla_cnn",
) -> keras.Model:
    """The three-layer network of "Finding the Needle in the Haystack with Convolutions".

    ```
    conv1  zero padding 2, 4×4, stride 2 → ReLU → max-pool 3×3, stride 2
    conv2  zero padding 2, 5×5           → ReLU → max-pool 3×3, stride 2
    conv3  zero padding 1, 3×3           → ReLU → max-pool 3×3, stride 2
    head   flatten → c logits
    ```

    On 32×32×3 images the volumes are 17², 8², 8², 3², 3² and 1² positions of 64 channels: 143,178
    parameters for 10 classes. Embedded they are 73,952,522 (dense, padding folded), 110,606,602
    (dense, explicit padding) or 7,797,002 (locally connected) with `tfconvbias.embedding.embed`.

    Args:
        filters: Channels of each convolution.
        input_shape: `(rows, cols, channels)`, of 28 rows and columns at least.
        classes: c, the number of logits.
        initialization: `"torch"`, U(±1/√fan_in) for kernels and biases, as in the paper; `"keras"`,
            Glorot uniform kernels and zero biases.
        preprocessing: Layer from uint8 images to network input, or `None` for float input.
        name: Model name.

    Returns:
        A functional model from `(batch, *input_shape)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> VanillaCNN().count_params()
        143178

    Reference:
        d'Ascoli et al., 2019, section 4; layer sizes from the paper's code.
    """
    blocks.check_positive(filters=filters, classes=classes)
    check_initialization(initialization)
    inputs, x = blocks.image_inputs(input_shape, preprocessing)
    check_size(input_shape, 28)
    for index, (size, strides, padding) in enumerate(_LAYERS, start=1):
        x = padded_conv_relu(
            x, filters, size, strides, padding, name=f"conv{index}", initialization=initialization
        )
        x = keras.layers.MaxPooling2D(3, strides=2, name=f"conv{index}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    logits = dense(x, classes, name="head", initialization=initialization, dtype="float32")
    return blocks.image_model(inputs, logits, name=name)


@checked
def load_channels_first_weights(
    model: keras.Model, weights: Mapping[str, Any] | Iterable[Any]
) -> None:
    """Give a model the weights of a channels-first network, such as the paper's code saves.

    Convolution kernels `(filters, channels, rows, cols)` and dense kernels `(units, inputs)` are
    transposed; the inputs of a dense layer after a Flatten are reordered from
    `(channels, rows, cols)` to `(rows, cols, channels)`.

    Args:
        model: `VanillaCNN` or `AlexNet`, or another model of Conv2D and Dense layers with biases;
            changed in place.
        weights: Kernel and bias of each layer, in order: arrays, or a mapping such as
            `{name: tensor.numpy() for name, tensor in module.state_dict().items()}`.

    Raises:
        ValueError: If the number or the shapes of the arrays do not fit the model.

    Example:
        >>> model = VanillaCNN(filters=2)
        >>> arrays = [np.zeros((2, 3, 4, 4)), np.zeros(2), np.zeros((2, 2, 5, 5)), np.zeros(2)]
        >>> arrays += [np.zeros((2, 2, 3, 3)), np.zeros(2), np.zeros((10, 2)), np.ones(10)]
        >>> load_channels_first_weights(model, arrays)
        >>> float(model.get_layer("head").bias[0])
        1.0
    """
    arrays = list(weights.values() if isinstance(weights, Mapping) else weights)
    arrays = [np.asarray(array) for array in arrays]
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    if len(arrays) != 2 * len(layers):
        raise ValueError(
            f"`weights` must hold kernel and bias of {len(layers)} layers. "
            f"Received: {len(arrays)} arrays"
        )
    volume: tuple[int, ...] | None = None
    values = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Flatten):
            volume = tuple(layer.input.shape[1:])
        if layer not in layers:
            continue
        kernel, bias = arrays[2 * layers.index(layer) :][:2]
        if isinstance(layer, keras.layers.Conv2D):
            kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel
        else:
            if volume is not None and kernel.size == math.prod(volume) * layer.units:
                rows, cols, channels = volume
                kernel = kernel.reshape(-1, channels, rows, cols).transpose(0, 2, 3, 1)
            kernel = kernel.reshape(len(kernel), -1).T
            volume = None
        for found, variable in ((kernel, layer.kernel), (bias, layer.bias)):
            if found.shape != tuple(variable.shape):
                raise ValueError(
                    f"The weights of layer '{layer.name}' must have shape {tuple(variable.shape)} "
                    f"in channels-last order. Received: shape {found.shape} after transposing"
                )
            values.append((variable, found))
    for variable, found in values:
        variable.assign(found)


def check_initialization(initialization: str) -> None:
    """Raise a `ValueError` for anything but "torch" or "keras"."""
    if initialization not in INITIALIZATIONS:
        raise ValueError(
            f"`initialization` must be one of {INITIALIZATIONS}. "
            f"Received: initialization={initialization}"
        )


def check_size(input_shape: tuple[int, ...], smallest: int) -> None:
    """Raise a `ValueError` for an image that is too small for the last pooling window."""
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"`input_shape` must be at least {smallest}×{smallest}. "
            f"Received: input_shape={input_shape}"
        )


def initializers(initialization: str, fan_in: int) -> dict[str, Any]:
    """Initializers of kernel and bias for a fan-in."""
    if initialization == "keras":
        return {}
    limit = 1 / math.sqrt(fan_in)
    return {
        # U(±√(3 · scale / fan_in)): a locally connected layer reads its fan-in off the kernel too.
        "kernel_initializer": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        "bias_initializer": keras.initializers.RandomUniform(-limit, limit),
    }


def padded_conv_relu(
    tensor: Any,
    filters: int,
    kernel_size: int,
    strides: int,
    padding: int,
    *,
    name: str,
    initialization: str,
) -> Any:
    """Explicit zero padding (none where it is 0), a valid convolution with bias, ReLU."""
    fan_in = kernel_size**2 * tensor.shape[-1]
    if padding:
        tensor = keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(tensor)
    conv = keras.layers.Conv2D(
        filters, kernel_size, strides=strides, name=name, **initializers(initialization, fan_in)
    )
    return keras.layers.ReLU(name=f"{name}_relu")(conv(tensor))


def dense(tensor: Any, units: int, *, name: str, initialization: str, dtype: Any = None) -> Any:
    """A dense layer with bias."""
    options = initializers(initialization, tensor.shape[-1])
    return keras.layers.Dense(units, name=name, dtype=dtype, **options)(tensor)
