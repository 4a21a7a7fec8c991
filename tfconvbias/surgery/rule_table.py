"""Which rule holds for which call, by what the table of layers says; anything else is an error."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfconvbias.graph import LayerFacts, facts_of
from tfconvbias.graph.facts import KERNELS, channel_axis, is_pointwise
from tfconvbias.graph.normalization import is_chosen
from tfconvbias.surgery.joins import ConcatenateRule, MergeRule
from tfconvbias.surgery.kernel_layers import check_weights
from tfconvbias.surgery.kernel_rule import KernelRule
from tfconvbias.surgery.rules import (
    InputRule,
    PassRule,
    ReshapeRule,
    Rule,
    ShiftRule,
)


def _same_axes(states) -> bool:
    return len({state.axis for state in states}) == 1


def _kernel(number, call, graph, states, facts: LayerFacts) -> Rule:
    mixes = not is_pointwise(getattr(call.operation, "activation", None))
    return KernelRule(number, call, graph, states, is_shared=graph.is_shared(call), mixes=mixes)


def _pass(number, call, graph, states, facts: LayerFacts) -> Rule:
    if len(states) > 1:
        return Rule(number, call, graph, states)
    if isinstance(call.operation, keras.layers.Rescaling) and np.ndim(call.operation.offset):
        fits = states[0].axis == -1 and np.size(call.operation.offset) == states[0].width
        kind = ShiftRule if fits else Rule
        return kind(number, call, graph, states)
    rule = PassRule(number, call, graph, states, evaluate=facts.constants)
    if facts.kind == "elementwise":
        return rule
    # The layer has to take that axis for the channels whose constants are known, and its weights
    # have to stand for one channel each.
    weights = getattr(call.operation, "weights", ())
    fits = channel_axis(call.operation, len(graph.shapes[call.inputs[0]])) == states[0].axis
    fits = fits and all(weight.shape[-1] == states[0].width for weight in weights)
    return rule if fits else Rule(number, call, graph, states)


def _merge(number, call, graph, states, facts: LayerFacts) -> Rule:
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
    return MergeRule(number, call, graph, states, kind=facts.merge)


def _concatenate(number, call, graph, states, facts: LayerFacts) -> Rule:
    rank = len(graph.shapes[call.inputs[0]])
    axis = call.operation.axis
    if not _same_axes(states) or axis not in (states[0].axis, states[0].axis + rank):
        return Rule(number, call, graph, states)
    if not isinstance(call.args[0], list | tuple) or len(call.args) > 1 or call.kwargs:
        return Rule(number, call, graph, states)
    return ConcatenateRule(number, call, graph, states)


def _reshape(number, call, graph, states, facts: LayerFacts) -> Rule:
    before = graph.shapes[call.inputs[0]]
    after = tuple(call.operation.compute_output_shape(before))
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    known = None not in before[1:] and None not in after[1:]
    if (first and len(before) > 2) or states[0].axis != -1 or not known:
        return Rule(number, call, graph, states)
    if len(before) < 2 or len(after) < 2 or max(before[-1], after[-1]) % min(before[-1], after[-1]):
        return Rule(number, call, graph, states)
    return ReshapeRule(number, call, graph, states, target=after)


def _reduce(number, call, graph, states, facts: LayerFacts) -> Rule:
    """A mean or maximum over all places, with `keras.ops`."""
    rank = len(graph.shapes[call.inputs[0]])
    axes = call.operation.axis
    axes = sorted(axis % rank for axis in ((axes,) if isinstance(axes, int) else axes or ()))
    channel = states[0].axis % rank
    if axes == [axis for axis in range(1, rank) if axis != channel] and len(call.args) == 1:
        return PassRule(number, call, graph, states, evaluate="kept")
    return Rule(number, call, graph, states)


def _input(number, call, graph, states, facts: LayerFacts) -> Rule:
    return InputRule(number, call, graph, states)


_MAKERS: dict[str, Callable[..., Rule]] = {
    **dict.fromkeys(KERNELS, _kernel),
    **dict.fromkeys(
        ("channelwise", "cropping", "elementwise", "normalization", "padding", "pooling"), _pass
    ),
    "concatenate": _concatenate,
    "input": _input,
    "merge": _merge,
    "reduction": _reduce,
    "reshape": _reshape,
}


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
    if is_chosen(call, opaque):
        return Rule(number, call, graph, states)
    facts = facts_of(operation)
    if facts is None:
        raise ValueError(
            f"Layer {call.name!r} of type {type(operation).__name__} is unknown, so `compact` "
            "cannot tell how channels pass through it. Name the layer or its class in `opaque` to "
            "keep all channels that it reads and writes, or say what the class does with "
            "`tfconvbias.graph.register`."
        )
    check_weights(operation, call.name)
    maker = _MAKERS.get(facts.kind)
    if maker is None or not facts.is_resizable:
        return Rule(number, call, graph, states)
    activation = getattr(operation, "activation", None)
    applies_it = bool(facts.kernels) or isinstance(operation, keras.layers.Activation)
    if applies_it and is_pointwise(activation) is None:
        raise ValueError(
            f"Layer {call.name!r} has an activation that is unknown: {activation}. Name the layer "
            "in `opaque` to keep all of its channels, or say what the function does with "
            "`tfconvbias.graph.register`."
        )
    return maker(number, call, graph, states, facts)
