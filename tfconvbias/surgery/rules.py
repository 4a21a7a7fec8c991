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

from tfconvbias.graph import Call, LayerGraph, TensorRef
from tfconvbias.graph.calls import map_tensors
from tfconvbias.graph.facts import call_at_inference, kind_of
from tfconvbias.surgery.kernel_layers import to_numpy

LIVE = float("nan")


@dataclass
class State:
    """What is known about a tensor's channels.

    Attributes:
        axis: The channel axis, negative.
        constants: float64 array, one entry per channel: its value if constant, NaN if live.
    """

    axis: int
    constants: np.ndarray

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
        if self.evaluate == "zero":
            values = np.where(values == 0, 0.0, LIVE)
        elif self.evaluate == "computed" and not np.isnan(values).all():
            values = np.where(np.isnan(values), LIVE, self._computed(state, values))
        return [State(axis, values)]

    def _computed(self, state: State, values: np.ndarray) -> np.ndarray:
        return _call_on_constants(self, [state], [values], state.width)

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


def _call_on_constants(rule: Rule, states, values, width: int) -> np.ndarray:
    """Runs the operation on one place with the given channel values (0 where live)."""
    arrays = []
    for tensor, state, value in zip(rule.call.inputs, states, values, strict=True):
        shape = [1] * len(rule.graph.shapes[tensor])
        shape[state.axis] = state.width
        arrays.append(ops.convert_to_tensor(np.nan_to_num(value).reshape(shape).astype("float32")))
    remaining = iter(arrays)
    args = map_tensors(lambda tensor: next(remaining), rule.call.args)
    kwargs = map_tensors(lambda tensor: next(remaining), rule.call.kwargs)
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    result = to_numpy(call_at_inference(rule.operation, *args, **kwargs)).astype("float64")
    return result.reshape(-1) if result.size == width else np.full(width, LIVE)


class MergeRule(Rule):
    """Tensors of one width (or with one channel, which is broadcast) combined place by place."""

    def __init__(self, number, call, graph, states, kind: str | None):
        super().__init__(number, call, graph, states)
        self.kind = kind
        self.width = max(state.width for state in states)
        self.dropped = self._zero_terms()

    def constants(self):
        values = np.full(self.width, LIVE)
        inputs = [np.broadcast_to(state.constants, self.width) for state in self.states]
        known = ~np.isnan(np.stack(inputs)).any(axis=0)
        if known.any():
            computed = _call_on_constants(
                self, self.states, [state.constants for state in self.states], self.width
            )
            values = np.where(known, computed, values)
        if self.kind == "multiply":
            values = np.where((np.stack(inputs) == 0).any(axis=0), 0.0, values)
        return [State(self.states[0].axis, values)]

    def _zero_terms(self) -> frozenset[int]:
        """Terms of a sum that are zero everywhere: the sum is made without them."""
        if self.kind not in ("add", "subtract"):
            return frozenset()
        full = self.shape(self.output)
        widest = [index for index, shape in enumerate(self.input_shapes()) if shape == full]
        zero = [
            index
            for index, state in enumerate(self.states)
            if (state.constants == 0).all() and not (self.kind == "subtract" and index == 0)
        ]
        left = [index for index in widest if index not in zero]
        if not left:
            zero = [index for index in zero if index not in widest[:1]]
        return frozenset(zero) if widest else frozenset()

    def needs(self, output_needs):
        needed = output_needs[0]
        results: list[np.ndarray] = []
        zero_seen = np.zeros(self.width, bool)
        for state in self.states:
            need = needed.copy()
            if self.kind == "multiply":
                # One factor that is zero decides the product: the others are not needed.
                zero = np.broadcast_to(state.constants == 0, self.width)
                others = np.zeros(self.width, bool)
                for other in self.states:
                    if other is not state:
                        others |= np.broadcast_to(other.constants == 0, self.width)
                need &= np.where(zero, ~zero_seen, ~others)
                zero_seen |= zero
            if len(results) in self.dropped:
                need = np.zeros(self.width, bool)
            results.append(need if state.width == self.width else need.any(keepdims=True))
        return results

    def links(self):
        channels = np.arange(self.width)
        return [
            Link(tensor, channels, self.output, channels)
            for index, (tensor, state) in enumerate(zip(self.call.inputs, self.states, strict=True))
            if state.width == self.width and index not in self.dropped
        ]

    def rebuild(self, kept, tensors, build):
        if not self.dropped:
            return self._with_constants_cut(kept, tensors, build)
        left = [t for index, t in enumerate(self.call.inputs) if index not in self.dropped]
        if len(left) == 1:
            return [tensors[left[0]]]
        layer = build.layer(self.call, self.operation.get_config(), [])
        return layer([tensors[tensor] for tensor in left])

    def _with_constants_cut(self, kept, tensors, build):
        layer = build.layer(self.call, self.operation.get_config(), [])
        keep = kept[self.output]

        def cut(argument):
            if isinstance(argument, TensorRef):
                return tensors[argument]
            if np.ndim(argument) and np.shape(argument)[-1] == self.width > 1:
                return np.asarray(argument)[..., keep]
            if isinstance(argument, list | tuple):
                return type(argument)(cut(part) for part in argument)
            return argument

        return layer(*(cut(argument) for argument in self.call.args))


class ConcatenateRule(Rule):
    """Tensors side by side along the channel axis."""

    def constants(self):
        return [
            State(self.states[0].axis, np.concatenate([state.constants for state in self.states]))
        ]

    def _parts(self):
        start = 0
        for tensor, state in zip(self.call.inputs, self.states, strict=True):
            yield tensor, np.arange(start, start + state.width)
            start += state.width

    def needs(self, output_needs):
        return [output_needs[0][channels] for _, channels in self._parts()]

    def links(self):
        return [
            Link(tensor, np.arange(channels.size), self.output, channels)
            for tensor, channels in self._parts()
        ]

    def rebuild(self, kept, tensors, build):
        left = [tensors[tensor] for tensor in self.call.inputs if kept[tensor].any()]
        if len(left) == 1:
            return left
        layer = build.layer(self.call, self.operation.get_config(), [])
        return layer(left)


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
            spatial = [-1 if size is None else size for size in self.target[1:-1]]
            config["target_shape"] = (*spatial, int(kept[self.output].sum()))
        args, kwargs = build.arguments(self.call)
        return build.layer(self.call, config, [])(*args, **kwargs)
