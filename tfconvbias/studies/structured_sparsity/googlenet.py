"""GoogLeNet, to be counted."""

from __future__ import annotations

from tfconvbias.lazy import keras

# Filters of each module: 1×1; reduction and 3×3; reduction and 5×5; projection after pooling.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def GoogLeNet() -> keras.Model:
    """GoogLeNet on 224×224 images, without its auxiliary classifiers; all kernels are zero.

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", 2015, Table 1.
    """
    layers = keras.layers

    def convolution(x, filters: int, size: int, strides: int = 1):
        options = {"padding": "same", "activation": "relu", "kernel_initializer": "zeros"}
        return layers.Conv2D(filters, size, strides, **options)(x)

    def pooling(x, strides: int = 2):
        return layers.MaxPooling2D(3, strides, padding="same")(x)

    inputs = keras.Input((224, 224, 3))
    x = pooling(convolution(inputs, 64, 7, 2))
    x = pooling(convolution(convolution(x, 64, 1), 192, 3))
    for name, (one, reduce3, three, reduce5, five, projection) in _MODULES.items():
        x = layers.Concatenate(name=f"inception_{name}")(
            [
                convolution(x, one, 1),
                convolution(convolution(x, reduce3, 1), three, 3),
                convolution(convolution(x, reduce5, 1), five, 5),
                convolution(pooling(x, 1), projection, 1),
            ]
        )
        if name in ("3b", "4e"):
            x = pooling(x)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(1000, kernel_initializer="zeros")(x)
    return keras.Model(inputs, outputs, name="googlenet")
