"""Which rule holds for which layer or `keras.ops` function; anything else is an error."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from tfconvbias.surgery.kernel_layers import KERNEL_LAYERS
from tfconvbias.surgery.kernel_rule import KernelRule
from tfconvbias.surgery.rules import (
    ConcatenateRule,
    InputRule,
    MergeRule,
    PassRule,
    ReshapeRule,
    Rule,
)

RuleMaker = Callable[..., Rule]
_LAYERS = keras.layers


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that act on every number by itself, by the name that Keras saves them under.
POINTWISE = _words(
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh "
    "leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus "
    "softsign sparse_plus sparse_sigmoid squareplus swish tanh tanh_shrink threshold"
)

# In inference a constant stays what it is.
_SAME = _words(
    "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity "
    "SpatialDropout1D SpatialDropout2D SpatialDropout3D MaxPooling1D MaxPooling2D MaxPooling3D "
    "Cropping1D Cropping2D Cropping3D GlobalAveragePooling1D GlobalAveragePooling2D "
    "GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D"
)
# Zeros may be mixed in at the border or between.
_ZERO = _words(
    "ZeroPadding1D ZeroPadding2D ZeroPadding3D UpSampling1D UpSampling2D UpSampling3D "
    "AveragePooling1D AveragePooling2D AveragePooling3D"
)
_CALL = _words("ELU LeakyReLU ReLU")
_MERGES = {
    "Add": "add",
    "Average": "average",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Multiply": "multiply",
    "Subtract": "subtract",
}
# They look at all channels at once, or rearrange them: all of the input stays.
_MIXING = _words(
    "AdditiveAttention Attention Bidirectional CategoryEncoding CenterCrop Dot EinsumDense "
    "Embedding GRU GroupNormalization GroupQueryAttention LSTM LayerNormalization Masking "
    "MultiHeadAttention Normalization Permute RMSNormalization RandomBrightness RandomContrast "
    "RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom RepeatVector Resizing "
    "SimpleRNN Softmax SpectralNormalization TimeDistributed UnitNormalization"
)

_OPS_POINTWISE = _words(
    "Absolute Celu Elu Exp Expm1 Gelu HardSigmoid HardSilu HardTanh LeakyRelu Log1p LogSigmoid "
    "Mish Negative Relu Relu6 Selu Sigmoid Silu Softplus Softsign Sqrt Square Tanh"
)
_OPS_MERGES = {
    "Add": "add",
    "Divide": "divide",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Multiply": "multiply",
    "Subtract": "subtract",
    "TrueDivide": "divide",
}
_OPS_MIXING = _words(
    "BatchNormalization Cumsum ExpandDims Flip GetItem LogSoftmax Matmul Max Mean Min Moveaxis "
    "Normalize Pad Repeat Reshape Roll Softmax Split Squeeze Sum Swapaxes Tile Transpose"
)


def _pass(evaluate: str) -> RuleMaker:
    return functools.partial(PassRule, evaluate=evaluate)


def _activations(names: Iterable[str]) -> frozenset:
    functions = (getattr(keras.activations, name, None) for name in names)
    return frozenset(function for function in functions if callable(function))


_POINTWISE_FUNCTIONS = _activations(POINTWISE) | {None}
_OWN_FUNCTIONS = _activations(dir(keras.activations))


def _is_pointwise(name: str, function) -> bool:
    """Whether the activation is pointwise; an error if it is not one of Keras' own."""
    if function in _POINTWISE_FUNCTIONS or type(function).__name__ in _CALL:
        return True
    if function in _OWN_FUNCTIONS:
        return False
    raise ValueError(
        f"Layer {name!r} has an activation that the walk does not know: {function}. Name the layer "
        "in `opaque` to keep all of its channels."
    )


def _same_axes(states) -> bool:
    return len({state.axis for state in states}) == 1


def _kernel(number, call, graph, states) -> Rule:
    is_shared = sum(other.operation is call.operation for other in graph.calls) > 1
    activation = getattr(call.operation, "activation", None)
    mixes = not _is_pointwise(call.name, activation)
    return KernelRule(number, call, graph, states, is_shared=is_shared, mixes=mixes)


def _activation(number, call, graph, states) -> Rule:
    if _is_pointwise(call.name, call.operation.activation):
        return PassRule(number, call, graph, states)
    return Rule(number, call, graph, states)


def _normalization(number, call, graph, states) -> Rule:
    rank = len(graph.shapes[call.inputs[0]])
    axis = call.operation.axis
    if axis not in (states[0].axis, states[0].axis + rank):
        return Rule(number, call, graph, states)
    return PassRule(number, call, graph, states)


def _parametric_relu(number, call, graph, states) -> Rule:
    # One slope for each place and channel: only zero is sure to stay constant.
    if states[0].axis != -1 or call.operation.alpha.shape[-1] != states[0].width:
        return Rule(number, call, graph, states)
    return PassRule(number, call, graph, states, evaluate="zero")


def _rescaling(number, call, graph, states) -> Rule:
    if np.ndim(call.operation.scale) or np.ndim(call.operation.offset):
        return Rule(number, call, graph, states)
    return PassRule(number, call, graph, states)


def _merge(kind: str) -> RuleMaker:
    def make(number, call, graph, states) -> Rule:
        widths = {state.width for state in states} - {1}
        constants = [
            np.shape(argument)
            for argument in keras.tree.flatten((call.args, call.kwargs))
            if np.ndim(argument)
        ]
        width = max(state.width for state in states)
        broadcast = any(
            shape[-1] not in (1, width) or max(shape[:-1], default=1) > 1 for shape in constants
        )
        if not _same_axes(states) or len(widths) > 1 or broadcast or call.kwargs:
            return Rule(number, call, graph, states)
        if constants and states[0].axis != -1:
            return Rule(number, call, graph, states)
        return MergeRule(number, call, graph, states, kind=kind)

    return make


def _concatenate(number, call, graph, states) -> Rule:
    rank = len(graph.shapes[call.inputs[0]])
    axis = call.operation.axis
    if not _same_axes(states) or axis not in (states[0].axis, states[0].axis + rank):
        return Rule(number, call, graph, states)
    if not isinstance(call.args[0], list | tuple) or len(call.args) > 1 or call.kwargs:
        return Rule(number, call, graph, states)
    return ConcatenateRule(number, call, graph, states)


def _reshape(number, call, graph, states) -> Rule:
    before = graph.shapes[call.inputs[0]]
    after = tuple(call.operation.compute_output_shape(before))
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    known = None not in before[1:] and None not in after[1:]
    if (first and len(before) > 2) or states[0].axis != -1 or not known:
        return Rule(number, call, graph, states)
    if len(before) < 2 or len(after) < 2 or max(before[-1], after[-1]) % min(before[-1], after[-1]):
        return Rule(number, call, graph, states)
    return ReshapeRule(number, call, graph, states, target=after)


def _reduce(number, call, graph, states) -> Rule:
    """A mean or maximum over all places, with `keras.ops`."""
    rank = len(graph.shapes[call.inputs[0]])
    axes = call.operation.axis
    axes = sorted(axis % rank for axis in ((axes,) if isinstance(axes, int) else axes or ()))
    channel = states[0].axis % rank
    if axes == [axis for axis in range(1, rank) if axis != channel] and len(call.args) == 1:
        return PassRule(number, call, graph, states, evaluate="same")
    return Rule(number, call, graph, states)


def _layer_table() -> dict[type, RuleMaker]:
    table: dict[type, RuleMaker] = dict.fromkeys(KERNEL_LAYERS, _kernel)
    for names, maker in (
        (_SAME, _pass("same")),
        (_ZERO, _pass("zero")),
        (_CALL, _pass("call")),
        (_MIXING, Rule),
    ):
        # Some names are younger than the oldest Keras that is supported.
        found = (getattr(_LAYERS, name, None) for name in names)
        table.update({layer: maker for layer in found if layer is not None})
    table.update({getattr(_LAYERS, name): _merge(kind) for name, kind in _MERGES.items()})
    table.update(
        {
            _LAYERS.Activation: _activation,
            _LAYERS.BatchNormalization: _normalization,
            _LAYERS.Concatenate: _concatenate,
            _LAYERS.Flatten: _reshape,
            _LAYERS.InputLayer: InputRule,
            _LAYERS.PReLU: _parametric_relu,
            _LAYERS.Rescaling: _rescaling,
            _LAYERS.Reshape: _reshape,
        }
    )
    return table


_TABLE = _layer_table()


def _operation_rule(name: str) -> RuleMaker | None:
    if name in _OPS_POINTWISE:
        return PassRule
    if name in _OPS_MERGES:
        return _merge(_OPS_MERGES[name])
    if name == "Concatenate":
        return _concatenate
    if name in ("Mean", "Max"):
        return _reduce
    return Rule if name in _OPS_MIXING else None


def rule_for(number: int, call, graph, states, opaque: tuple[Any, ...] = ()) -> Rule:
    """The rule of a call.

    Args:
        number: Number of the call.
        call: The call.
        graph: The graph that it is in.
        states: States of its input tensors.
        opaque: Layer names or layer classes to be kept as they are, with all of their channels.

    Raises:
        ValueError: If nothing is known about the layer; the message names it.
    """
    operation = call.operation
    for choice in opaque:
        named = isinstance(choice, str) and choice in (call.name, operation.name)
        if named or (isinstance(choice, type) and isinstance(operation, choice)):
            return Rule(number, call, graph, states)
    maker = _TABLE.get(type(operation))
    if maker is None and type(operation).__module__.split(".")[0] == "tfconvbias":
        # This package's own layers (augmentation, local connections) are kept as they are.
        maker = Rule
    is_layer = isinstance(operation, keras.layers.Layer)
    if maker is None and not is_layer and type(operation).__module__.startswith("keras."):
        # The classes behind `keras.ops` functions are not public: their names are in saved files.
        maker = _operation_rule(type(operation).__name__)
    if maker is None:
        raise ValueError(
            f"Layer {call.name!r} of type {type(operation).__name__} is unknown to the walk, so it "
            "can't tell how channels pass through it. Name the layer or its class in `opaque` to "
            "keep all channels that it reads and writes."
        )
    return maker(number, call, graph, states)
