"""A model made again with fewer channels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfconvbias.graph import Call, Rebuilder, TensorRef
from tfconvbias.graph.facts import kind_of
from tfconvbias.surgery.channel_groups import ChannelGroups, Space
from tfconvbias.surgery.compact import without_penalties
from tfconvbias.surgery.importance import mean_activations
from tfconvbias.surgery.kernel_layers import to_numpy


class Narrowing(Rebuilder):
    """Makes the calls of a model again with fewer channels.

    Args:
        groups: What `channel_groups` found in the model.
        kept: For each group that may be cut, by its name, which channels are kept.
    """

    def __init__(self, groups: ChannelGroups, kept: Mapping[str, np.ndarray]):
        super().__init__(groups.graph)
        self._groups = groups
        self._kept: dict[Space, np.ndarray] = {
            space: np.ones(size, bool) for space, size in groups.sizes.items()
        }
        for group in groups.prunable():
            for space, positions in group.positions.items():
                self._kept[space][positions[~kept[group.name]].reshape(-1)] = False
        self._means: dict[TensorRef, np.ndarray] = {}

    def compensate(self, inputs: Any) -> None:
        """Measures the means that the cut channels have where layers with a bias read them.

        Args:
            inputs: Arrays in the structure of the model's inputs.
        """
        read = {
            call.inputs[0]
            for call in self.graph.calls
            if kind_of(call.operation) in ("conv", "dense") and not self.graph.is_shared(call)
        }
        cut = {tensor for tensor in read if not self._kept[tensor].all()}
        self._means = mean_activations(self._groups, cut, inputs)

    def _lost(self, call: Call) -> np.ndarray | None:
        """What the cut channels give to each output of a layer on average."""
        means = self._means.get(call.inputs[0])
        layer = call.operation
        if means is None or kind_of(layer) not in ("conv", "dense") or self.graph.is_shared(call):
            return None
        lost = np.where(self._kept[call.inputs[0]], 0.0, means)
        kernel = to_numpy(layer.kernel).astype("float64")
        kernel = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
        groups = getattr(layer, "groups", 1)
        parts = zip(np.split(lost, groups), np.split(kernel, groups, axis=1), strict=True)
        return np.concatenate([part @ columns for part, columns in parts])

    def make(self, number: int, call: Call) -> Any:
        cut = self._groups.cuts[number]
        spaces = self._groups.spaces_of(number)
        kept = {name: self._kept[space] for name, space in spaces.items()}
        if all(keep.all() for keep in kept.values()) or not call.inputs:
            return super().make(number, call)
        layer = call.operation
        config = layer.get_config()
        if cut.narrow is not None:
            config = cut.narrow(config, kept)
        weights = []
        for weight in getattr(layer, "weights", ()):
            array = to_numpy(weight)
            for axis in cut.axes:
                if axis.weight is weight:
                    array = np.compress(kept[axis.space], array, axis=axis.axis)
            weights.append(array)
        lost = self._lost(call)
        if lost is not None:
            lost = lost[kept["output"]]
            if layer.use_bias:
                weights[-1] = weights[-1] + lost
            else:
                config = {**config, "use_bias": True}
                weights.append(lost)
        if cut.arguments is not None:
            call = Call(layer, call.name, cut.arguments(call.args, kept), call.kwargs, call.inputs)
        args, kwargs = self.arguments(call)
        return self.layer(call, config, weights)(*args, **kwargs)

    def layer(self, call: Call, config=None, weights=None) -> Any:
        config = call.operation.get_config() if config is None else config
        return super().layer(call, without_penalties(config), weights)
