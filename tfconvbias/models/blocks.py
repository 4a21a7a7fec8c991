"""The block of every family: a connection of a chosen connectivity, BatchNorm, ReLU."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from tfconvbias.connectivity import conv_output_shape
from tfconvbias.layers import LocallyConnected2D
from tfconvbias.models.float_image_model import FloatImageModel

CONNECTIVITIES = ("conv", "local", "dense")


@dataclass(frozen=True)
class Volume:
    """An activation and the shape of its image, which a dense layer's flat activation has too.

    Attributes:
        tensor: `(batch, rows, cols, channels)`, or `(batch, rows * cols * channels)` when flat.
        shape: `(rows, cols, channels)` in both cases.
    """

    tensor: Any
    shape: tuple[int, int, int]

    def flat(self, name: str = "flatten") -> Any:
        """The activation as `(batch, features)`."""
        if len(self.tensor.shape) == 2:
            return self.tensor
        return keras.layers.Flatten(name=name)(self.tensor)

    def image(self, name: str = "unflatten") -> Any:
        """The activation as `(batch, rows, cols, channels)`."""
        if len(self.tensor.shape) == 4:
            return self.tensor
        return keras.layers.Reshape(self.shape, name=name)(self.tensor)


def image_inputs(
    input_shape: tuple[int, ...], preprocessing: keras.layers.Layer | None
) -> tuple[Any, Any]:
    """Open a functional graph on channels-last images.

    Args:
        input_shape: `(rows, cols, channels)`.
        preprocessing: Layer that turns raw uint8 images into network input inside the compiled
            step, or `None` for a network on float images.

    Returns:
        The graph's input and the tensor that the first layer sees.

    Raises:
        ValueError: If `input_shape` is not three positive integers.
    """
    if len(input_shape) != 3 or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ValueError(
            "`input_shape` must be three positive integers (rows, cols, channels). "
            f"Received: input_shape={input_shape}"
        )
    if preprocessing is None:
        inputs = keras.Input(input_shape, name="images")
        return inputs, inputs
    inputs = keras.Input(input_shape, dtype="uint8", name="images")
    return inputs, preprocessing(inputs)


def image_model(inputs: Any, outputs: Any, name: str) -> keras.Model:
    """Close a graph that `image_inputs` opened; a network on float images warns about integers."""
    kind = keras.Model if inputs.dtype == "uint8" else FloatImageModel
    return kind(inputs, outputs, name=name)


def check_connectivity(connectivity: str) -> None:
    """Raise a `ValueError` for anything but "conv", "local" or "dense"."""
    if connectivity not in CONNECTIVITIES:
        raise ValueError(
            f"`connectivity` must be one of {CONNECTIVITIES}. Received: connectivity={connectivity}"
        )


def family_name(family: str, connectivity: str) -> str:
    """The paper's name of a member: s_conv, s_local, s_fc, d_conv, …."""
    return f"{family}_{'fc' if connectivity == 'dense' else connectivity}"


def check_positive(**arguments: int) -> None:
    """Raise a `ValueError` that names the first argument that is not a positive integer."""
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value}")


def check_dropout_rate(dropout_rate: float) -> None:
    """Raise a `ValueError` unless the rate lies in [0, 1)."""
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"`dropout_rate` must be in [0, 1). Received: dropout_rate={dropout_rate}")


def connected(
    volume: Volume,
    filters: int,
    kernel_size: int,
    strides: int,
    *,
    connectivity: str,
    name: str,
    centered: bool = False,
    kernel_initializer: Any = "glorot_uniform",
    kernel_regularizer: Any = None,
) -> Volume:
    """A connection between two image volumes, without bias, whose input is padded with zeros.

    `"conv"` is a `Conv2D`; `"local"` keeps its receptive fields and gives every position a kernel
    of its own; `"dense"` joins every input unit to every output unit of the same two volumes.

    The padding is Keras' `"same"`, which for a stride of 2 on an even number of pixels centres the
    first window on the second pixel. With `centered=True` window `i` is centred on pixel
    `i * strides`, as in He et al.'s networks: the pixel that a 1×1 shortcut reads.

    Returns:
        The output volume `(ceil(rows / strides), ceil(cols / strides), filters)`.
    """
    rows, cols = conv_output_shape(
        volume.shape[:2], (kernel_size, kernel_size), strides=(strides, strides), padding="same"
    )
    shape = (rows, cols, filters)
    options: dict[str, Any] = {
        "use_bias": False,
        "name": name,
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }
    if connectivity == "dense":
        flat = volume.flat(name=f"{name}_flatten")
        return Volume(keras.layers.Dense(math.prod(shape), **options)(flat), shape)
    layer = keras.layers.Conv2D if connectivity == "conv" else LocallyConnected2D
    tensor, padding = volume.tensor, "same"
    if centered and strides > 1 and kernel_size > 1:
        sides = ((kernel_size - 1) // 2, kernel_size // 2)
        tensor = keras.layers.ZeroPadding2D((sides, sides), name=f"{name}_padding")(tensor)
        padding = "valid"
    output = layer(filters, kernel_size, strides=strides, padding=padding, **options)(tensor)
    return Volume(output, shape)


def connected_relu(
    volume: Volume, filters: int, kernel_size: int, strides: int, **kwargs
) -> Volume:
    """`connected`, BatchNorm, ReLU."""
    volume = connected(volume, filters, kernel_size, strides, **kwargs)
    return Volume(normalized_relu(volume.tensor, kwargs["name"]), volume.shape)


def normalized(tensor: Any, name: str, momentum: float = 0.99) -> Any:
    """BatchNorm over the last axis: per channel on images, per unit on flat activations."""
    return keras.layers.BatchNormalization(momentum=momentum, name=f"{name}_bn")(tensor)


def normalized_relu(tensor: Any, name: str) -> Any:
    """BatchNorm, then ReLU."""
    return keras.layers.ReLU(name=f"{name}_relu")(normalized(tensor, name))


def hidden_dense(
    tensor: Any,
    units: int,
    *,
    name: str,
    dropout_rate: float,
    kernel_initializer: Any,
    kernel_regularizer: Any,
) -> Any:
    """Dropout (when its rate is positive), a dense layer without bias, BatchNorm, ReLU."""
    tensor = dropout(tensor, dropout_rate, name)
    dense = keras.layers.Dense(
        units,
        use_bias=False,
        name=name,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
    )
    return normalized_relu(dense(tensor), name)


def classifier(
    tensor: Any,
    classes: int,
    *,
    name: str,
    dropout_rate: float = 0.0,
    kernel_initializer: Any,
    kernel_regularizer: Any,
) -> Any:
    """The last dense layer: float32 logits with a bias, whatever the precision policy."""
    tensor = dropout(tensor, dropout_rate, name)
    return keras.layers.Dense(
        classes,
        name=name,
        dtype="float32",
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
    )(tensor)


def dropout(tensor: Any, rate: float, name: str) -> Any:
    """Dropout in front of layer `name`; no layer at all when the rate is zero."""
    return keras.layers.Dropout(rate, name=f"{name}_dropout")(tensor) if rate else tensor
