"""The rules of layers that join several tensors."""

import keras
import numpy as np

from tfconvbias.graph import TensorRef
from tfconvbias.graph.calls import tensors_in
from tfconvbias.surgery.rules import LIVE, Link, Rule, State, call_on_constants


class MergeRule(Rule):
    """Tensors of one width (or with one channel, which is broadcast) combined place by place."""

    def __init__(self, number, call, graph, states, kind: str | None):
        super().__init__(number, call, graph, states)
        self.kind = kind
        self.width = max(state.width for state in states)
        self.dropped = self._constant_terms()

    def constants(self):
        values = np.full(self.width, LIVE)
        inputs = [np.broadcast_to(state.constants, self.width) for state in self.states]
        known = ~np.isnan(np.stack(inputs)).any(axis=0)
        if known.any():
            computed = call_on_constants(
                self, self.states, [state.constants for state in self.states], self.width
            )
            values = np.where(known, computed, values)
        if self.kind == "multiply":
            values = np.where((np.stack(inputs) == 0).any(axis=0), 0.0, values)
        return [State(self.states[0].axis, values)]

    def _constant_terms(self) -> frozenset[int]:
        """Terms of a sum that hold constants only: the sum is made without them, and shifted."""
        if self.kind not in ("add", "subtract"):
            return frozenset()
        full = self.shape(self.output)
        widest = [index for index, shape in enumerate(self.input_shapes()) if shape == full]
        constant = [
            index
            for index, state in enumerate(self.states)
            if self._is_dropped(state) and not (self.kind == "subtract" and index == 0)
        ]
        left = [index for index in widest if index not in constant]
        if not left:
            constant = [index for index in constant if index not in widest[:1]]
        return frozenset(constant) if widest else frozenset()

    def _is_dropped(self, state: State) -> bool:
        # A shift for each channel is a layer only where the channels are last.
        is_constant = not np.isnan(state.constants).any()
        return bool((state.constants == 0).all()) or (is_constant and state.axis == -1)

    def _shift(self) -> np.ndarray:
        """What the terms that are left out add to each channel."""
        terms = [self.states[index].constants for index in self.dropped]
        total = np.sum([np.broadcast_to(term, self.width) for term in terms], axis=0)
        return -total if self.kind == "subtract" else total

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
            result = tensors[left[0]]
        else:
            layer = build.layer(self.call, self.operation.get_config(), [])
            result = layer([tensors[tensor] for tensor in left])
        shift = self._shift()[kept[self.output]]
        if not shift.any():
            return [result]
        name = build.name(self.call.name if len(left) == 1 else f"{self.call.name}_shift")
        dtype = getattr(self.operation, "dtype_policy", None)
        offset = shift.astype("float32")
        return keras.layers.Rescaling(1.0, offset, name=name, dtype=dtype)(result)

    def _with_constants_cut(self, kept, tensors, build):
        layer = build.layer(self.call, self.operation.get_config(), [])
        keep = kept[self.output]

        def cut(argument):
            if isinstance(argument, TensorRef):
                return tensors[argument]
            if any(tensors_in(argument)):
                return type(argument)(cut(part) for part in argument)
            if np.ndim(argument) and np.shape(argument)[-1] == self.width > 1:
                return np.asarray(argument)[..., keep]
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
