"""What `embed` knows of each layer class: the geometry of those that convolve, and who may stay."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfconvbias.connectivity import explicit_padding, patch_indices
from tfconvbias.embedding.geometry import ConvGeometry, Pairs, conv_geometry
from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

L = keras.layers

CONV = (L.Conv1D, L.Conv2D, L.Conv3D)
DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
LOCAL = (LocallyConnected1D, LocallyConnected2D, LocallyConnected3D)
ZERO_PADDING = (L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D)
AVERAGE_POOLING = (L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D)

EMBEDDABLE = (*CONV, *DEPTHWISE, *SEPARABLE, *TRANSPOSED, *LOCAL, *AVERAGE_POOLING)

_KEPT_NAMES = """
Activation ELU LeakyReLU PReLU ReLU Softmax
Dense EinsumDense Embedding Identity Masking
Attention AdditiveAttention MultiHeadAttention GroupQueryAttention
LSTM GRU SimpleRNN
BatchNormalization GroupNormalization LayerNormalization RMSNormalization UnitNormalization
MaxPooling1D MaxPooling2D MaxPooling3D
AveragePooling1D AveragePooling2D AveragePooling3D
GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise
SpatialDropout1D SpatialDropout2D SpatialDropout3D
Add Average Concatenate Dot Maximum Minimum Multiply Subtract
Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D
ZeroPadding1D ZeroPadding2D ZeroPadding3D
Flatten Permute RepeatVector Reshape
CenterCrop Normalization Rescaling Resizing
RandomBrightness RandomContrast RandomCrop RandomFlip RandomGrayscale RandomHue RandomInvert
RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom
"""
KEPT = frozenset(getattr(L, name) for name in _KEPT_NAMES.split() if hasattr(L, name))
"""Layers that hold no convolution. They stay, as every embedded layer keeps the volume's shape."""


CONV_OPERATIONS = frozenset({"Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose"})
"""Class names of the operations that `keras.ops.conv` and its like put into a graph."""


def stays(layer: Any) -> bool:
    """Whether `embed` knows that a layer can stay as it is."""
    # Exact classes: a subclass may do anything in its call.
    own = keras.saving.get_registered_name(type(layer)).startswith("tfconvbias>")
    return own or type(layer) in KEPT


def rank_of(layer: keras.layers.Layer) -> int:
    """Number of spatial axes of a layer of one of the tables above."""
    for table in (CONV, DEPTHWISE, SEPARABLE, TRANSPOSED, LOCAL, ZERO_PADDING, AVERAGE_POOLING):
        if type(layer) in table:
            return 1 + table.index(type(layer))
    raise TypeError(f"Not a layer with spatial axes: {layer}")


def padding_pairs(layer: keras.layers.Layer) -> Pairs:
    """The `(before, after)` pairs of a ZeroPadding layer."""
    if type(layer) is L.ZeroPadding1D:
        return (tuple(layer.padding),)
    return tuple(tuple(pair) for pair in layer.padding)


def layer_geometry(
    layer: keras.layers.Layer,
    input_shape: tuple[int | None, ...],
    kernel_shape: tuple[int, ...],
    kind: str,
    padded: Pairs | None = None,
) -> ConvGeometry:
    """The geometry of a layer on inputs of a shape, with a ZeroPadding layer folded in.

    Args:
        layer: Layer with `strides`, `padding` and `data_format`.
        input_shape: Of the tensor in front of the folded padding, with the batch.
        kernel_shape: As `conv_geometry` takes it.
        kind: `"conv"`, `"depthwise"` or `"transposed"`.
        padded: What the folded padding layer adds; `None` without one.

    Raises:
        ValueError: If the volume isn't fully defined.
    """
    if None in tuple(input_shape[1:]):
        raise ValueError(
            f"The inputs of layer '{layer.name}' must be fully defined, because each of them "
            f"becomes a row of the dense matrix. Received: input_shape={tuple(input_shape)}"
        )
    volume = [n for n in input_shape[1:] if n is not None]
    padding: str | Pairs = layer.padding
    window: dict[str, Any] = {
        "strides": layer.strides,
        "dilation_rate": getattr(layer, "dilation_rate", 1),
    }
    if padded is not None:
        is_last = layer.data_format == "channels_last"
        spatial = volume[:-1] if is_last else volume[1:]
        lengths = [n + b + a for n, (b, a) in zip(spatial, padded, strict=True)]
        own = explicit_padding(lengths, kernel_shape[:-2], padding=padding, **window)
        padding = tuple(
            (b + before, a + after) for (b, a), (before, after) in zip(padded, own, strict=True)
        )
    return conv_geometry(
        volume,
        kernel_shape,
        padding=padding,
        groups=getattr(layer, "groups", 1),
        data_format=layer.data_format,
        kind=kind,
        output_padding=getattr(layer, "output_padding", None),
        **window,
    )


def average_kernel(geometry: ConvGeometry, dtype: Any) -> np.ndarray:
    """Average pooling as a locally connected kernel: one over the number of inputs under a window.

    With padding "same" a window at the border holds fewer inputs and so larger weights.
    """
    taps = patch_indices(
        geometry.spatial_shape,
        geometry.kernel_size,
        geometry.strides,
        geometry.padding,
    )
    weights = 1.0 / np.maximum((taps >= 0).sum(axis=1), 1)
    shape = geometry.local_kernel_shape
    per_position = weights.reshape((*geometry.output_spatial_shape, *(1,) * (geometry.rank + 2)))
    return np.ascontiguousarray(np.broadcast_to(per_position, shape), dtype=dtype)


def layer_class(tables: tuple[type, ...], rank: int) -> Callable[..., keras.layers.Layer]:
    """The class of a rank out of one of the tables above."""
    return tables[rank - 1]
