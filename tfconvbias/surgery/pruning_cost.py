"""What a model costs with a part of its channels, counted without making it."""

from collections.abc import Mapping

from tfconvbias.surgery.channel_groups import ChannelGroups, Space

_KERNELS = ("reads", "writes", "filters")


class PruningCost:
    """Parameters and multiply-adds of a model as functions of how many channels are kept.

    Multiply-adds are those of the kernels (a separable convolution is two, an attention layer has
    its projections) and of attention itself, queries by keys and weights by values.

    Args:
        groups: What `channel_groups` found in the model.
    """

    def __init__(self, groups: ChannelGroups):
        self._groups = groups
        self._base: dict[Space, int] = dict(groups.sizes)
        self._shares: dict[Space, list[tuple[str, int]]] = {}
        for group in groups.prunable():
            for space, positions in group.positions.items():
                self._base[space] -= positions.size
                self._shares.setdefault(space, []).append((group.name, positions.shape[1]))
        # For each weight its axes that count channels, once.
        self._weights: dict[int, tuple[tuple, list[tuple[int, Space]]]] = {}
        self._kernels: list[tuple[int, int | None]] = []
        for number, (call, cut) in enumerate(zip(groups.graph.calls, groups.cuts, strict=True)):
            spaces = groups.spaces_of(number)
            for weight in getattr(call.operation, "weights", ()):
                axes = [(a.axis, spaces[a.space]) for a in cut.axes if a.weight is weight]
                self._weights[id(weight)] = (tuple(weight.shape), axes)
            kernels = {id(axis.weight) for axis in cut.axes if axis.role in _KERNELS}
            for kernel in kernels:
                self._kernels.append((kernel, cut.places.get(kernel, groups.places[number])))

    def _size(self, space: Space, kept: Mapping[str, int]) -> int:
        return self._base[space] + sum(kept[name] * m for name, m in self._shares.get(space, ()))

    def _weight(self, key: int, kept: Mapping[str, int]) -> int:
        shape, axes = self._weights[key]
        lengths = list(shape)
        for axis, space in axes:
            lengths[axis] = self._size(space, kept)
        product = 1
        for length in lengths:
            product *= length
        return product

    def full(self) -> dict[str, int]:
        """How many channels each group that may be cut has."""
        return {group.name: group.channels for group in self._groups.prunable()}

    def parameters(self, kept: Mapping[str, int]) -> int:
        """Number of weights.

        Args:
            kept: Number of channels of each group that may be cut.
        """
        return sum(self._weight(key, kept) for key in self._weights)

    def multiply_adds(self, kept: Mapping[str, int]) -> int | None:
        """Multiply-adds per image; `None` where a layer's number of places is not known.

        Args:
            kept: Number of channels of each group that may be cut.
        """
        total = 0
        for key, places in self._kernels:
            if places is None:
                return None
            total += places * self._weight(key, kept)
        for number, cut in enumerate(self._groups.cuts):
            if cut.multiply_adds is not None:
                spaces = self._groups.spaces_of(number)
                counts = {name: self._size(space, kept) for name, space in spaces.items()}
                own = cut.multiply_adds(counts)
                if own is None:
                    return None
                total += own
        return total
