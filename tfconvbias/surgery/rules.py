"""How channels pass through each kind of layer: one table of rules for the whole graph walk.

Every tensor has one channel axis. Of each channel the walk knows whether it is *constant*, the same
known number at every place for every input (a zero kernel gives one), or live. A rule answers four
questions about one call: what its output channels are (`constants`), which input channels it needs
to compute the output channels that are needed (`needs`), which channels can only stay or go
together (`links`), and how the call is made again with what is left (`rebuild`).
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.graph import Call, LayerGraph, TensorRef, facts_of
from tfconvbias.graph.calls import map_tensors
from tfconvbias.graph.facts import call_at_inference, kind_of
from tfconvbias.surgery.kernel_layers import precise_tensor, to_numpy
from tfconvbias.surgery.layer_cost import unknown_places, whole_multiply_adds

LIVE = float("nan")


@dataclass
class State:
    """What is known about a tensor's channels.

    Attributes:
        axis: The channel axis, negative.
        constants: float64 array, one entry per channel: its value if constant, NaN if live.
        multiples: Likewise, of live channels that are a number times one and the same volume, such
            as ones with a rim of zeros: that number, NaN for all others. `None` if there are none.
    """

    axis: int
    constants: np.ndarray
    multiples: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.constants.shape[0]


def all_live(shape: tuple, axis: int = -1) -> State:
    """The state of a tensor of which nothing is known."""
    width = shape[axis] if len(shape) > 1 else 1
    # A tensor without a static channel axis has one channel, which nothing can remove.
    return State(axis, np.full(1 if width is None else width, LIVE))


@dataclass
class Link:
    """Channels of two tensors that stay or go together, pairwise."""

    first: TensorRef
    first_channels: np.ndarray
    second: TensorRef
    second_channels: np.ndarray


class Rule:
    """A call in the walk; the base class is that of layers that mix their inputs in any way.

    Such a layer needs all of its input and gives all of its output, unchanged.

    Args:
        number: Number of the call.
        call: The call.
        graph: The graph that it is in.
        states: States of the input tensors, in the order of `call.inputs`.
    """

    def __init__(self, number: int, call: Call, graph: LayerGraph, states: list[State]):
        self.number = number
        self.call = call
        self.graph = graph
        self.states = states
        self.operation = call.operation
        self.dropped: frozenset[int] = frozenset()
        self.outputs = [
            TensorRef(number, index)
            for index in range(max(1, len(keras.tree.flatten(call.operation.output))))
        ]

    @property
    def output(self) -> TensorRef:
        """The call's only output."""
        return self.outputs[0]

    def shape(self, tensor: TensorRef) -> tuple:
        """Static shape of a tensor; that of an output which nothing reads is not recorded."""
        return self.graph.shapes.get(tensor, ())

    def input_shapes(self) -> list[tuple]:
        """Static shapes of the inputs."""
        return [self.graph.shapes[tensor] for tensor in self.call.inputs]

    def constants(self) -> list[State]:
        """States of the outputs."""
        return [all_live(self.shape(tensor)) for tensor in self.outputs]

    def needs(self, output_needs: list[np.ndarray]) -> list[np.ndarray]:
        """Which channels of each input are needed, given those of the outputs that are."""
        any_needed = any(need.any() for need in output_needs)
        return [np.full(state.width, any_needed) for state in self.states]

    def held_by_padding(self, output_needs: list[np.ndarray]) -> list[np.ndarray]:
        """Constant channels of each input that are needed only because they meet zero padding."""
        return [np.zeros(state.width, bool) for state in self.states]

    def demands(self, output_needs: list[np.ndarray]) -> list[np.ndarray]:
        """Sets of channels of the first input of which one each has to stay, whichever it is."""
        return []

    def ignore_borders(self) -> None:
        """Takes zero padding for padding with each channel's constant."""

    def multiply_adds(self, kept: dict[TensorRef, np.ndarray] | None = None) -> int:
        """Multiply-adds per image of the layer's kernels, all of which stay.

        Args:
            kept: Which channels stay, where some may go.

        Raises:
            ValueError: If the number of places is not known.
        """
        if not self.call.inputs:
            return 0
        shapes = self.input_shapes()[0], self.shape(self.output) or self.operation.output.shape
        cost = whole_multiply_adds(self.operation, *shapes)
        if cost is None:
            raise ValueError(unknown_places(self.call.name, shapes[1]))
        return cost

    def links(self) -> list[Link]:
        """Channels that stay or go together: here, all of them."""
        widths = {tensor: s.width for tensor, s in zip(self.call.inputs, self.states, strict=True)}
        widths |= {
            tensor: state.width
            for tensor, state in zip(self.outputs, self.constants(), strict=True)
        }
        root = self.outputs[0]
        return [
            Link(root, np.zeros(width, int), tensor, np.arange(width))
            for tensor, width in widths.items()
        ]

    def rebuild(self, kept: dict[TensorRef, np.ndarray], tensors: dict[TensorRef, Any], build):
        """Makes the call again on the smaller tensors; returns its outputs."""
        layer = build.layer(self.call, self.operation.get_config(), self.weights(kept))
        args, kwargs = build.arguments(self.call)
        return layer(*args, **kwargs)

    def weights(self, kept) -> list[np.ndarray]:
        """The weights of the rebuilt layer."""
        return [to_numpy(weight) for weight in getattr(self.operation, "weights", ())]


class InputRule(Rule):
    """The model's input: all of it stays."""

    def links(self):
        return []

    def rebuild(self, kept, tensors, build):
        return build.layer(self.call).output


class PassRule(Rule):
    """One tensor in, one out, every channel on its own.

    Args:
        evaluate: What becomes of a constant: it is `"kept"`, stays constant only if it is
            `"zero"` (as where zeros are padded), or is `"computed"` with the layer itself.
    """

    def __init__(self, number, call, graph, states, evaluate="computed"):
        super().__init__(number, call, graph, states)
        self.evaluate = evaluate

    def constants(self):
        (state,) = self.states
        rank = len(self.shape(self.output)) or len(self.input_shapes()[0])
        # Pooling over all places removes the axes between batch and channel.
        axis = -1 if rank == 2 else state.axis
        values = state.constants
        multiples = None
        if self.evaluate == "zero":
            multiples = self._multiples(state)
            values = np.where(values == 0, 0.0, LIVE)
        elif self.evaluate == "computed" and not np.isnan(values).all():
            values = np.where(np.isnan(values), LIVE, self._computed(state, values))
        return [State(axis, values, multiples)]

    def _multiples(self, state: State) -> np.ndarray | None:
        """What zero padding and average pooling make of constants: multiples of one volume."""
        facts = facts_of(self.operation)
        if facts is None or facts.kind not in ("padding", "pooling") or not facts.is_linear:
            return None
        multiples = state.constants if state.multiples is None else state.multiples
        return np.where(multiples == 0, LIVE, multiples)

    def _computed(self, state: State, values: np.ndarray) -> np.ndarray:
        return call_on_constants(self, [state], [values], state.width)

    def ignore_borders(self):
        if kind_of(self.operation) in ("padding", "pooling"):
            self.evaluate = "kept"

    def needs(self, output_needs):
        return [output_needs[0]]

    def held_by_padding(self, output_needs):
        constants = self.states[0].constants
        held = (constants != 0) & ~np.isnan(constants) & (self.evaluate == "zero")
        return [held & output_needs[0]]

    def links(self):
        (tensor,) = self.call.inputs
        channels = np.arange(self.states[0].width)
        return [Link(tensor, channels, self.output, channels)]

    def weights(self, kept):
        if kind_of(self.operation) == "elementwise":
            return super().weights(kept)
        keep = kept[self.call.inputs[0]]
        return [to_numpy(weight)[..., keep] for weight in getattr(self.operation, "weights", ())]


def call_on_constants(rule: Rule, states, values, width: int) -> np.ndarray:
    """Runs the operation on one place with the given channel values (0 where live)."""
    if kind_of(rule.operation) == "normalization":
        return _normalized(rule.operation, values[0])
    # A layer with weights computes with their digits.
    has_weights = bool(getattr(rule.operation, "weights", ()))
    arrays = []
    for tensor, state, value in zip(rule.call.inputs, states, values, strict=True):
        shape = [1] * len(rule.graph.shapes[tensor])
        shape[state.axis] = state.width
        array = np.nan_to_num(value).reshape(shape)
        single = ops.convert_to_tensor(array.astype("float32"))
        arrays.append(single if has_weights else precise_tensor(array))
    remaining = iter(arrays)
    args = map_tensors(lambda tensor: next(remaining), rule.call.args)
    kwargs = map_tensors(lambda tensor: next(remaining), rule.call.kwargs)
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    result = to_numpy(call_at_inference(rule.operation, *args, **kwargs)).astype("float64")
    return result.reshape(-1) if result.size == width else np.full(width, LIVE)


def _normalized(layer: Any, values: np.ndarray) -> np.ndarray:
    """What a BatchNormalization makes of constants, in float64."""
    mean, variance = (
        to_numpy(part).astype("float64") for part in (layer.moving_mean, layer.moving_variance)
    )
    result = (np.nan_to_num(values) - mean) / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        result = result * to_numpy(layer.gamma).astype("float64")
    if layer.center:
        result = result + to_numpy(layer.beta).astype("float64")
    return result


class ShiftRule(PassRule):
    """A Rescaling with an offset of its own for each channel, the last axis."""

    def rebuild(self, kept, tensors, build):
        offset = np.asarray(self.operation.offset)[kept[self.output]]
        serialized = keras.saving.serialize_keras_object(offset)
        config = {**self.operation.get_config(), "offset": serialized}
        args, kwargs = build.arguments(self.call)
        return build.layer(self.call, config, [])(*args, **kwargs)


class ReshapeRule(Rule):
    """Row-major reshaping that leaves channels last: flattening and its reverse.

    The element f of the flattened tensor is in channel f mod C before and f mod C' after, so that
    one width has to divide the other.
    """

    def __init__(self, number, call, graph, states, target: tuple):
        super().__init__(number, call, graph, states)
        self.target = target
        self.width = target[-1]

    def constants(self):
        (state,) = self.states
        values = np.full(self.width, LIVE)
        if self.width % state.width == 0:
            values = np.tile(state.constants, self.width // state.width)
        else:
            folded = state.constants.reshape(-1, self.width)
            values = np.where((folded == folded[:1]).all(axis=0), folded[0], LIVE)
        return [State(-1, values)]

    def needs(self, output_needs):
        width = self.states[0].width
        need = output_needs[0]
        if self.width % width == 0:
            return [need.reshape(-1, width).any(axis=0)]
        return [np.tile(need, width // self.width)]

    def links(self):
        (tensor,) = self.call.inputs
        width = self.states[0].width
        index = np.arange(max(width, self.width))
        return [Link(tensor, index % width, self.output, index % self.width)]

    def rebuild(self, kept, tensors, build):
        config = self.operation.get_config()
        if "target_shape" in config:
            config["target_shape"] = (*self.target[1:-1], int(kept[self.output].sum()))
        args, kwargs = build.arguments(self.call)
        return build.layer(self.call, config, [])(*args, **kwargs)
