"""Which channels of a model live or die together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph import Call, LayerGraph, TensorRef, facts_of, read_graph
from tfconvbias.graph.normalization import is_chosen
from tfconvbias.surgery.cuts_of_kinds import cut_of
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.layer_cost import places_of
from tfconvbias.surgery.layer_cuts import LayerCut, Site
from tfconvbias.text_table import format_table


class LayerSpace(NamedTuple):
    """A space of a layer: the layer's `id`, or a number of the call's own, and the space's name."""

    owner: int
    name: str


Space = TensorRef | LayerSpace


@dataclass(frozen=True)
class Slice:
    """What one weight has of the channels of a group.

    Attributes:
        layer: Name of the layer.
        weight: The variable.
        axis: Its axis that counts the channels.
        role: What the weight does to them, as in `Axis`.
        positions: `(channels, m)`: where along the axis each channel of the group stands; m is not
            1 where one channel has several places, as behind a `Flatten`.
    """

    layer: str
    weight: Any
    axis: int
    role: str
    positions: np.ndarray

    def rows(self, values: np.ndarray | None = None) -> np.ndarray:
        """The numbers that belong to each channel, `(channels, n)`.

        Args:
            values: An array of the weight's shape, such as its gradient; by default the weight.
        """
        array = to_numpy(self.weight) if values is None else values
        moved = np.moveaxis(array, self.axis, 0)[self.positions.reshape(-1)]
        return moved.reshape(len(self.positions), -1)

    def squares(self) -> np.ndarray:
        """The sum of the squared numbers of each channel, `(channels,)`."""
        array = to_numpy(self.weight)
        axes = list(range(array.ndim))
        # Summed before channels are picked: kernels are large, and are not copied so.
        sums = np.einsum(array, axes, array, axes, [axes[self.axis]], dtype="float64")
        return sums[self.positions].sum(axis=1)


@dataclass
class ChannelGroup:
    """Channels that are alike: each goes through the same layers, and each may be cut by itself.

    What is one channel here has its place in several layers: all that write to one residual sum,
    what normalizes it, and all that read it. These places go together.

    Attributes:
        name: After the first layer that writes to the group.
        channels: How many channels it has.
        slices: What the weights of the layers have of them.
        kept_because: Why no channel may be cut; empty where they may.
        positions: By space of the graph, the place of each channel, `(channels, m)`.
        width: How many elements of the widest layer one channel stands for, such as a head's size.
    """

    name: str
    channels: int
    slices: list[Slice]
    kept_because: str
    positions: dict[Space, np.ndarray] = field(repr=False)
    width: int = 1

    def with_roles(self, *roles: str) -> list[Slice]:
        """The slices of weights with certain roles."""
        return [part for part in self.slices if part.role in roles]

    def layers(self, *roles: str) -> list[str]:
        """Names of the layers that have such slices."""
        return list(dict.fromkeys(part.layer for part in self.with_roles(*roles)))


@dataclass
class ChannelGroups:
    """All groups of a model's channels. Print it for a table.

    Attributes:
        groups: The groups that weights know of, in the order of the graph.
        graph: The model's calls.
        cuts: How each call is cut.
        sizes: How many channels each space of the graph has.
        places: At how many places of an image each call writes; `None` where that is not known.
    """

    groups: list[ChannelGroup]
    graph: LayerGraph = field(repr=False)
    cuts: list[LayerCut] = field(repr=False)
    sizes: dict[Space, int] = field(repr=False)
    places: list[int | None] = field(repr=False)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> ChannelGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def prunable(self) -> list[ChannelGroup]:
        """The groups of which channels may be cut."""
        return [group for group in self.groups if not group.kept_because]

    def spaces_of(self, number: int) -> dict[str, Space]:
        """The spaces that the cut of a call names: its own, and those of its weights."""
        cut = self.cuts[number]
        names = {axis.space for axis in cut.axes} | {n for n in (*cut.inputs, *cut.outputs) if n}
        names |= {name for tie in cut.ties for name in (tie.first, tie.second)}
        return {name: _space(self.graph.calls[number], number, name) for name in sorted(names)}

    def __str__(self) -> str:
        rows = [
            {
                "group": group.name,
                "channels": str(group.channels),
                "written by": _few(group.layers("writes")),
                "read by": _few(group.layers("reads")),
                "stays because": group.kept_because,
            }
            for group in self.groups
        ]
        return format_table(rows, markdown=False)


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _space(call: Call, number: int, name: str) -> LayerSpace:
    # A layer without weights may have other widths at each of its calls.
    has_weights = bool(getattr(call.operation, "weights", ()))
    owner = id(call.operation) if has_weights else -1 - number
    return LayerSpace(owner, name)


@checked
def channel_groups(model: keras.Model, ignore: Iterable[Any] = ()) -> ChannelGroups:
    """Finds which channels of a model can only be cut together.

    Channels are tied by sums and products, by layers that keep channels apart (depthwise
    convolutions, normalizations, activations, pooling), by reshaping, and by a layer that is called
    more than once. A concatenation lays its inputs side by side; each keeps channels of its own. A
    convolution with groups, and a GroupNormalization, lose the same channels in each of their
    groups. Of an attention layer the heads are a group.

    Args:
        model: A functional or built sequential model; it is only read.
        ignore: Names or classes of layers whose outputs keep their width, with all that is tied to
            them.

    Returns:
        The `ChannelGroups`. Channels that a layer needs which the walk cannot cut, and those of the
        model's inputs and outputs, are in groups that say why they stay.

    Raises:
        ValueError: If the model's graph cannot be read, if a layer is quantized, has LoRA weights
            or weights that are not finite, if a registered cut contradicts the layer, or if a
            name in `ignore` is that of no layer.

    Example:
        >>> import keras
        >>> inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3, padding="same", name="first")(inputs)
        >>> y = keras.layers.Conv2D(4, 3, padding="same", name="second")(x)
        >>> outputs = keras.layers.Conv2D(2, 1, name="last")(keras.layers.Add()([x, y]))
        >>> groups = channel_groups(keras.Model(inputs, outputs))
        >>> [(group.name, group.layers("writes")) for group in groups.prunable()]
        [('first', ['first', 'second'])]
    """
    return _Walk(read_graph(model), tuple(ignore)).groups()


class _Walk:
    """Collects the spaces of a graph and the ties between them."""

    def __init__(self, graph: LayerGraph, ignore: tuple[Any, ...]):
        self.graph = graph
        self.cuts: list[LayerCut] = []
        self.places: list[int | None] = []
        self.sizes: dict[Space, int] = {}
        self.widths: dict[Space, int] = {}
        self.locks: dict[Space, str] = {}
        self.ties: list[tuple[Space, np.ndarray, Space, np.ndarray]] = []
        axes: dict[TensorRef, int] = {}
        missing = [one for one in ignore if not any(is_chosen(c, (one,)) for c in graph.calls)]
        if missing:
            raise ValueError(f"`ignore` must name layers of the model. Received: ignore={missing}")
        for number, call in enumerate(graph.calls):
            site = Site(number, call, graph, axes)
            cut = cut_of(site)
            self.cuts.append(cut)
            self.places.append(places_of(site.output_shape(), cut.channel_axes[1]))
            for tensor in site.outputs:
                axes[tensor] = cut.channel_axes[1]
            self._add(site, cut, is_ignored=is_chosen(call, ignore))
        for tensor in graph.flat_outputs():
            self._lock(tensor, "an output of the model")

    def _add(self, site: Site, cut: LayerCut, is_ignored: bool) -> None:
        call = site.call
        kind = getattr(facts_of(site.layer), "kind", None)
        reason = (
            f"{call.name!r} of type {type(site.layer).__name__} "
            + ("is unknown" if kind is None else "needs them all")
            if kind != "input"
            else "an input of the model"
        )

        def space(name: str) -> LayerSpace:
            return _space(call, site.number, name)

        self._check_count(site, cut)
        for axis in cut.axes:
            self._size(space(axis.space), axis.weight.shape[axis.axis], call)
        ends = [(tensor, name, 0) for tensor, name in zip(call.inputs, cut.inputs, strict=True)]
        ends += [(tensor, name, 1) for tensor, name in zip(site.outputs, cut.outputs, strict=True)]
        for tensor, name, end in ends:
            if tensor not in self.sizes:
                self.sizes[tensor] = self._channels(tensor, cut.channel_axes[1])
            if name is None:
                self._lock(tensor, reason)
            elif end == 0 and site.axes[tensor] != cut.channel_axes[0]:
                self._lock(tensor, f"{call.name!r} counts channels along another axis")
                self._lock(space(name), f"{call.name!r} counts channels along another axis")
            elif self.sizes[tensor] or end == 0:
                self._size(space(name), self.sizes[tensor], call)
                channels = np.arange(self.sizes[tensor])
                self.ties.append((space(name), channels, tensor, channels))
        for tie in cut.ties:
            first, second = space(tie.first), space(tie.second)
            # A space that neither a weight nor a tensor knows is as long as its tie says.
            self.sizes.setdefault(first, int(tie.first_channels.max(initial=-1)) + 1)
            self.sizes.setdefault(second, int(tie.second_channels.max(initial=-1)) + 1)
            self.ties.append((first, tie.first_channels, second, tie.second_channels))
        for name, why in cut.locked.items():
            self._lock(space(name), why)
        for name, width in cut.widths.items():
            self.widths[space(name)] = width
        if is_ignored:
            for tensor in site.outputs:
                self._lock(tensor, "in `ignore`")

    @staticmethod
    def _check_count(site: Site, cut: LayerCut) -> None:
        found = len(cut.inputs), len(cut.outputs)
        expected = len(site.call.inputs), len(site.outputs)
        if found != expected:
            raise ValueError(
                f"The cut of layer {site.call.name!r} must name {expected[0]} inputs and "
                f"{expected[1]} outputs. Received: {found[0]} and {found[1]}"
            )

    def _channels(self, tensor: TensorRef, axis: int) -> int:
        """Number of channels of a tensor; none where nothing reads it or its axis has no length."""
        shape = self.graph.shapes.get(tensor, ())
        width = shape[axis] if len(shape) >= max(2, -axis) else None
        return 0 if width is None else width

    def _size(self, space: LayerSpace, size: int, call: Call) -> None:
        if self.sizes.setdefault(space, size) != size:
            raise ValueError(
                f"The cut of layer {call.name!r} counts {self.sizes[space]} channels of its space "
                f"{space.name!r} in one place and {size} in another."
            )

    def _lock(self, space: Space, reason: str) -> None:
        self.locks.setdefault(space, reason)

    def groups(self) -> ChannelGroups:
        """The classes of channels, gathered into groups of those that are alike."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        spaces = list(self.sizes)
        lengths = np.array([self.sizes[space] for space in spaces], dtype=int)
        starts = dict(zip(spaces, (np.cumsum(lengths) - lengths).tolist(), strict=True))
        total = int(lengths.sum())
        rows = np.concatenate([starts[a] + i for a, i, _, _ in self.ties] or [np.zeros(0, int)])
        columns = np.concatenate([starts[b] + j for _, _, b, j in self.ties] or [np.zeros(0, int)])
        edges = coo_array((np.ones(rows.size, bool), (rows, columns)), shape=(total, total))
        count, classes = connected_components(edges, directed=False)
        # How often a class occurs in which space tells what it goes through.
        number_of_space = np.repeat(np.arange(len(spaces)), lengths)
        pairs, counts = np.unique(classes * len(spaces) + number_of_space, return_counts=True)
        owners, numbers = pairs // len(spaces), pairs % len(spaces)
        ends = np.searchsorted(owners, np.arange(count + 1))
        alike: dict[tuple, list[int]] = {}
        first = np.full(count, total)
        np.minimum.at(first, classes, np.arange(total))
        for one in np.argsort(first):
            part = slice(ends[one], ends[one + 1])
            signature = (*numbers[part].tolist(), -1, *counts[part].tolist())
            alike.setdefault(signature, []).append(int(one))
        weights = self._weights()
        groups = []
        for signature, members in alike.items():
            inside = [spaces[number] for number in signature[: signature.index(-1)]]
            rank = np.full(count, -1)
            rank[members] = np.arange(len(members))
            positions = {}
            for space in inside:
                found = rank[classes[starts[space] : starts[space] + self.sizes[space]]]
                order = np.argsort(found, kind="stable")[int((found < 0).sum()) :]
                positions[space] = order.reshape(len(members), -1)
            slices = [
                Slice(name, axis.weight, axis.axis, axis.role, positions[space])
                for space, name, axis in weights
                if space in positions
            ]
            if slices:
                groups.append(self._group(members, slices, positions))
        self._name_apart(groups)
        return ChannelGroups(groups, self.graph, self.cuts, self.sizes, self.places)

    def _group(self, members, slices, positions) -> ChannelGroup:
        reasons = list(dict.fromkeys(self.locks[s] for s in positions if s in self.locks))
        widths = [positions[s].shape[1] * self.widths.get(s, 1) for s in positions]
        writers = [part.layer for part in slices if part.role == "writes"]
        inner = [s.name for s in positions if isinstance(s, LayerSpace) and s in self.widths]
        tensors = [self.graph.calls[s.call].name for s in positions if isinstance(s, TensorRef)]
        name = (writers or tensors or [slices[0].layer])[0]
        if inner:
            name = f"{name} {inner[0]}"
        # Flattened places are not the width of a layer that is made again.
        width = max(widths) if inner else _width_of(slices)
        return ChannelGroup(name, len(members), slices, "; ".join(reasons), positions, width)

    @staticmethod
    def _name_apart(groups: list[ChannelGroup]) -> None:
        seen: dict[str, int] = {}
        for group in groups:
            seen[group.name] = seen.get(group.name, 0) + 1
            if seen[group.name] > 1:
                group.name = f"{group.name} ({seen[group.name]})"

    def _weights(self) -> list[tuple[Space, str, Any]]:
        """Every axis of a weight that counts channels, each once, with its space."""
        found: dict[tuple[int, int], tuple[Space, str, Any]] = {}
        for number, (call, cut) in enumerate(zip(self.graph.calls, self.cuts, strict=True)):
            for axis in cut.axes:
                space = _space(call, number, axis.space)
                found.setdefault((id(axis.weight), axis.axis), (space, call.name, axis))
        return list(found.values())


def _width_of(slices: list[Slice]) -> int:
    """How many filters one channel is in the layers that write it."""
    written = [part.positions.shape[1] for part in slices if part.role == "writes"]
    return max(written, default=1)
