"""The facts of Keras' own layers, activations and operations."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfconvbias.graph.facts import (
    Facts,
    LayerFacts,
    facts_of,
    is_pointwise,
    register,
    register_operation,
)

L = keras.layers

_ELEMENTWISE = LayerFacts("elementwise")
_UNCHANGED = LayerFacts("elementwise", is_linear=True, constants="kept")
_MIXING = LayerFacts("mixing")
_CONVOLVES_INSIDE = LayerFacts("mixing", holds_convolution=True)


def _activation(layer: Any) -> LayerFacts:
    return _ELEMENTWISE if is_pointwise(layer.activation) else _MIXING


def _rescaling(layer: Any) -> LayerFacts:
    # Keras counts the axes of a scale by the global data format, those of an offset from the last.
    if np.ndim(layer.scale) or np.ndim(layer.offset) > 1:
        return _MIXING
    if np.ndim(layer.offset):
        return LayerFacts("channelwise", is_linear=True, constants="computed")
    return LayerFacts("elementwise", is_linear=True)


def _wrapper(layer: Any) -> LayerFacts:
    inner = facts_of(layer.forward_layer if isinstance(layer, L.Bidirectional) else layer.layer)
    is_free = inner is not None and not (inner.convolves or inner.holds_convolution)
    if is_free:
        return _MIXING
    if inner is None or isinstance(layer, L.Bidirectional):
        return _CONVOLVES_INSIDE
    # Spectral normalization divides the kernel in training, and applies what it has at inference.
    leading = 1 if isinstance(layer, L.TimeDistributed) else 0
    return LayerFacts("mixing", holds_convolution=True, applies="layer", leading_axes=leading)


def _pipeline(layer: Any) -> LayerFacts:
    inner = [facts_of(one) for one in layer.layers]
    is_free = all(f is not None and not (f.convolves or f.holds_convolution) for f in inner)
    return _MIXING if is_free else _CONVOLVES_INSIDE


# Names of one, two and three axes, as far as Keras has them.
_OF_EACH_RANK: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Conv{}D", {"kind": "conv"}),
    ("DepthwiseConv{}D", {"kind": "depthwise"}),
    ("SeparableConv{}D", {"kind": "separable"}),
    ("Conv{}DTranspose", {"kind": "transposed"}),
    ("ConvLSTM{}D", {"kind": "mixing", "holds_convolution": True}),
    ("MaxPooling{}D", {"kind": "pooling", "constants": "kept"}),
    ("AveragePooling{}D", {"kind": "pooling", "is_linear": True}),
    ("GlobalMaxPooling{}D AdaptiveMaxPooling{}D", {"kind": "channelwise", "constants": "kept"}),
    ("GlobalAveragePooling{}D AdaptiveAveragePooling{}D",
     {"kind": "channelwise", "is_linear": True, "constants": "kept"}),
    ("ZeroPadding{}D", {"kind": "padding"}),
    ("Cropping{}D", {"kind": "cropping"}),
    # Interpolation may round, and so leave a constant by a little.
    ("UpSampling{}D", {"kind": "channelwise", "is_linear": True}),
    ("SpatialDropout{}D", {"kind": "elementwise", "is_linear": True, "constants": "kept"}),
)  # fmt: skip

_BY_NAME: tuple[tuple[str, Facts], ...] = (
    ("InputLayer", LayerFacts("input")),
    ("Dense", LayerFacts("dense")),
    ("BatchNormalization", LayerFacts("normalization")),
    ("ELU LeakyReLU ReLU", _ELEMENTWISE),
    ("Activation", _activation),
    ("Rescaling", _rescaling),
    # One slope for each place and channel.
    ("PReLU", LayerFacts("channelwise")),
    ("ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity",
     _UNCHANGED),
    ("Concatenate", LayerFacts("concatenate")),
    ("Flatten Reshape", LayerFacts("reshape")),
    ("Bidirectional SpectralNormalization TimeDistributed", _wrapper),
    ("AdditiveAttention Attention CategoryEncoding CenterCrop Dot EinsumDense Embedding GRU "
     "GroupNormalization GroupQueryAttention LSTM LayerNormalization Masking MultiHeadAttention "
     "Normalization Permute RMSNormalization RepeatVector Resizing SimpleRNN Softmax "
     "UnitNormalization "
     "AugMix AutoContrast CutMix MixUp RandAugment RandomBrightness "
     "RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform "
     "RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert "
     "RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness "
     "RandomShear RandomTranslation RandomZoom Solarization "
     "ContrastLimitedAdaptiveHistogramEqualization Discretization Equalization HashedCrossing "
     "Hashing ReversibleEmbedding", _MIXING),
    ("Pipeline", _pipeline),
)  # fmt: skip

_POINTWISE = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh "
    "leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus "
    "softsign sparse_plus sparse_sigmoid squareplus swish tanh tanh_shrink threshold"
)
_NOT_POINTWISE = "glu log_softmax softmax sparsemax"

_MERGES = ("add", "average", "maximum", "minimum", "multiply", "subtract")
_OPERATION_MERGES = {
    "Add": "add",
    "Divide": "divide",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Multiply": "multiply",
    "Subtract": "subtract",
    "TrueDivide": "divide",
}

_OPERATIONS: tuple[tuple[str, LayerFacts], ...] = (
    ("Absolute Cast Celu Clip Elu Exp Expm1 Gelu HardSigmoid HardSilu HardTanh LeakyRelu Log1p "
     "LogSigmoid Mish Negative Relu Relu6 Selu Sigmoid Silu Softplus Softsign Sqrt Square Tanh",
     _ELEMENTWISE),
    ("Concatenate", LayerFacts("concatenate")),
    ("Mean Max", LayerFacts("reduction")),
    ("Any BatchNormalization Cumsum ExpandDims Flip GetItem LogSoftmax Matmul Min Moveaxis "
     "NotEqual Normalize Pad Repeat Reshape Roll Softmax Split Squeeze Sum Swapaxes Tile "
     "Transpose", _MIXING),
    ("Conv ConvTranspose DepthwiseConv SeparableConv", _CONVOLVES_INSIDE),
    # Layers that ConvNeXt defines for itself.
    ("LayerScale", LayerFacts("channelwise", is_linear=True, is_resizable=False)),
    ("StochasticDepth", _UNCHANGED),
)  # fmt: skip


def _found(holder: Any, names: str) -> Iterator[Any]:
    """Some names are younger than the oldest Keras that is supported."""
    return (getattr(holder, name) for name in names.split() if hasattr(holder, name))


def _fill_table() -> None:
    for names, fields in _OF_EACH_RANK:
        for rank in (1, 2, 3):
            for layer in _found(L, names.replace("{}", str(rank))):
                register(layer, LayerFacts(**fields, rank=rank))
    for names, facts in _BY_NAME:
        for layer in _found(L, names):
            register(layer, facts)
    for merge in _MERGES:
        register(getattr(L, merge.capitalize()), LayerFacts("merge", merge=merge))
    for names, facts in ((_POINTWISE, _ELEMENTWISE), (_NOT_POINTWISE, _MIXING)):
        for function in _found(keras.activations, names):
            register(function, facts)
    for names, facts in _OPERATIONS:
        for name in names.split():
            register_operation(name, facts)
    for name, merge in _OPERATION_MERGES.items():
        # A number among the arguments may shift zeros.
        register_operation(name, LayerFacts("merge", merge=merge, constants="mixed"))


_fill_table()
