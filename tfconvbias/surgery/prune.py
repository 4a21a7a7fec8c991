"""Channels chosen by importance under a budget, and a smaller model without them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import keras
import numpy as np

from tfconvbias.analysis import inference_times, time_ratio
from tfconvbias.graph import Call, Rebuilder, TensorRef
from tfconvbias.graph.calls import map_tensors
from tfconvbias.graph.facts import kind_of
from tfconvbias.surgery.channel_groups import ChannelGroups, Space, channel_groups
from tfconvbias.surgery.compact import without_penalties
from tfconvbias.surgery.importance import (
    ABSOLUTE,
    LOSS_CHANGES,
    Importance,
    channel_scores,
    dataset_arrays,
    mean_activations,
)
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.pruning_cost import PruningCost
from tfconvbias.text_table import format_table

_TIMED_STEPS = 6


@dataclass(frozen=True)
class PrunedGroup:
    """What became of one group of channels.

    Attributes:
        name: Name of the group.
        before: Number of channels of the model.
        after: Number of channels of the pruned model.
        removed: Positions of the channels that were cut, in the order of the layers' own channels.
        kept_because: Why none was to be cut; empty where some might have been.
    """

    name: str
    before: int
    after: int
    removed: tuple[int, ...]
    kept_because: str = ""


@dataclass(frozen=True)
class PruningReport:
    """What `prune` did. Print it for a table.

    Attributes:
        groups: The groups of channels.
        parameters: Number of weights before and after.
        multiply_adds: Per image, before and after; `None` if sizes of the inputs are not known.
        time_share: Measured time of the pruned model divided by that of the model, where the budget
            was a time; else `None`.
    """

    groups: tuple[PrunedGroup, ...]
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None
    time_share: float | None = None

    def __str__(self) -> str:
        rows = [
            {
                "group": group.name,
                "channels": f"{group.before} → {group.after}",
                "stays because": group.kept_because,
            }
            for group in self.groups
        ]
        lines = [format_table(rows, markdown=False)]
        pairs = {"parameters": self.parameters, "multiply-adds": self.multiply_adds}
        for name, pair in pairs.items():
            if pair is not None:
                lines.append(f"{name} {pair[0]:,} → {pair[1]:,} ({pair[1] / pair[0]:.1%})")
        if self.time_share is not None:
            lines.append(f"time {self.time_share:.1%} of the model's")
        return "\n".join(lines)


class Pruned(NamedTuple):
    """A pruned model and what was done."""

    model: keras.Model
    report: PruningReport


def prune(
    model,
    ratio: float | None = None,
    multiply_adds: float | None = None,
    parameters: float | None = None,
    seconds: float | None = None,
    importance: Importance = "magnitude",
    scope: str = "global",
    ignore: Iterable[Any] = (),
    round_to: int = 8,
    dataset: Any = None,
    loss: Any = None,
    seed: int = 0,
    compensate: bool = False,
) -> Pruned:
    """Returns a smaller model without the channels that matter least, ready to be trained on.

    Channels that depend on each other are ranked and cut together (`channel_groups`). What is left
    of the layers is what they had: the pruned model equals the model in which all kernels that read
    a cut channel have zeros for it. Normalizations over channels (LayerNormalization,
    GroupNormalization) take their statistics of the channels that are left. Train the model on.

    Exactly one of the four budgets is given.

    Args:
        model: A functional or built sequential model; it is not modified.
        ratio: Which share of the channels is cut, in [0, 1).
        multiply_adds: Which share of the model's multiply-adds may be left, in (0, 1]: 0.5 for
            half of them.
        parameters: Which share of the model's parameters may be left, likewise.
        seconds: Which share of the model's inference time may be left, likewise. It is measured on
            this machine, on the first 32 examples of `dataset` or else on random inputs.
        importance: What ranks the channels: `"magnitude"`, `"bn_scale"`, `"taylor"`, `"fisher"`,
            `"lamp"`, `"fpgm"`, `"activation"`, `"random"`, as `channel_scores` defines them, or a
            function of a `ChannelGroup` that returns one score for each of its channels.
        scope: `"global"`: all channels of the model in one ranking, where scores that are no
            changes of the loss are divided by the mean of their group; a change of the loss
            (`"taylor"`, `"fisher"`) is divided by what a channel of the group costs in the budget.
            `"layer"`: every group loses the same share of its channels.
        ignore: Names or classes of layers whose outputs keep their width.
        round_to: Layers get widths that are multiples of it (the nearest one, but at least one
            time), or keep the width that they have.
        dataset: Pairs of inputs and targets for importances that are measured: a pair of arrays, or
            an iterable of batches that fits into memory.
        loss: The loss for `"taylor"` and `"fisher"`. Defaults to that of the compiled model.
        seed: Seed of `"random"`.
        compensate: Whether the convolution and dense layers that read a cut channel go on to get
            its mean over `dataset`, added to their biases. The pruned model is nearer to the model
            then, and needs less further training. (Layers without a bias get one; zero padding is
            taken for padding with the mean.)

    Returns:
        `Pruned(model, report)`: a functional, uncompiled model without custom code of this package,
        and a report to print, with the reason for every group that stays whole.

    Raises:
        ValueError: Unless exactly one budget is given, within its range, and can be reached; for
            an unknown importance or scope; if data is needed and missing; if nothing may be cut.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(32, 3, name="conv"), keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2)])
        >>> smaller, report = prune(model, ratio=0.5)
        >>> smaller.get_layer("conv").filters
        16
    """
    budgets = {
        "ratio": ratio, "multiply_adds": multiply_adds, "parameters": parameters, "seconds": seconds
    }  # fmt: skip
    name, budget = _the_budget(budgets)
    if scope not in ("global", "layer"):
        raise ValueError(f"`scope` must be 'global' or 'layer'. Received: scope={scope!r}")
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"`round_to` must be an integer >= 1. Received: round_to={round_to}")
    if compensate and dataset is None:
        raise ValueError(
            "`dataset` must be given for compensate=True, which measures means. "
            "Received: dataset=None"
        )
    groups = channel_groups(model, ignore)
    scores = channel_scores(model, groups, importance, dataset, loss, seed)
    if not scores:
        reasons = {group.name: group.kept_because for group in groups}
        raise ValueError(
            "Nothing can be pruned: no group of channels may be cut and has a score. "
            f"Received: importance={importance!r}, and a model with the groups {reasons}"
        )
    for group in groups.prunable():
        if group.name not in scores:
            group.kept_because = f"{importance!r} says nothing of it"
    cost = PruningCost(groups)
    choice = _Choice(groups, scores, scope, round_to, _units(scores, importance, cost, name))
    time_share = None
    if name == "seconds":
        images = _images(groups, dataset)
        kept, time_share = _within_time(model, groups, choice, budget, images)
    elif name == "ratio":
        kept = choice.kept(budget)
    else:
        kept = _within(choice, cost, name, budget)
    narrowing = _Narrowing(groups, kept)
    if compensate:
        narrowing.compensate(dataset_arrays(dataset)[0])
    pruned = narrowing.model()
    counts = {group: int(keep.sum()) for group, keep in kept.items()}
    before, after = cost.multiply_adds(cost.full()), cost.multiply_adds(counts)
    report = PruningReport(
        tuple(
            PrunedGroup(
                group.name,
                group.channels,
                counts.get(group.name, group.channels),
                tuple(np.flatnonzero(~kept[group.name]).tolist()) if group.name in kept else (),
                group.kept_because,
            )
            for group in groups
        ),
        (model.count_params(), pruned.count_params()),
        None if before is None or after is None else (before, after),
        time_share,
    )
    return Pruned(pruned, report)


def _the_budget(budgets: Mapping[str, Any]) -> tuple[str, float]:
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"Exactly one of {list(budgets)} must be given. Received: {given}")
    ((name, value),) = given.items()
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    inside = is_number and (0 <= value < 1 if name == "ratio" else 0 < value <= 1)
    if not inside:
        where = "[0, 1)" if name == "ratio" else "(0, 1], the share that may be left"
        raise ValueError(f"`{name}` must be a number in {where}. Received: {name}={value}")
    return name, float(value)


def _units(scores, importance, cost: PruningCost, budget: str) -> dict[str, float]:
    """By what the scores of each group are divided, to compare with those of other groups."""
    tiny = float(np.finfo(float).tiny)
    if importance not in ABSOLUTE:
        return {name: max(abs(values.mean()), tiny) for name, values in scores.items()}
    count = cost.parameters if budget == "parameters" else cost.multiply_adds
    full = count(cost.full())
    if importance not in LOSS_CHANGES or budget == "ratio" or full is None:
        return dict.fromkeys(scores, 1.0)
    saved = {}
    for name in scores:
        one_less = count({**cost.full(), name: cost.full()[name] - 1})
        saved[name] = max(float(full - (one_less or 0)), tiny)
    return saved


class _Choice:
    """Which channels are kept when a share of them is to be cut."""

    def __init__(self, groups: ChannelGroups, scores, scope: str, round_to: int, units):
        self._groups = groups.prunable()
        self._orders = {name: np.argsort(-values, kind="stable") for name, values in scores.items()}
        self._scope = scope
        self._round_to = round_to
        comparable = {name: values / units[name] for name, values in scores.items()}
        names = list(comparable)
        all_scores = np.concatenate([comparable[name] for name in names])
        owners = np.repeat(np.arange(len(names)), [comparable[name].size for name in names])
        self._ranking = owners[np.argsort(all_scores, kind="stable")]
        self._names = names

    def kept(self, share: float) -> dict[str, np.ndarray]:
        """For each group which channels are kept."""
        lost = np.bincount(
            self._ranking[: round(share * self._ranking.size)], minlength=len(self._names)
        )
        result = {}
        for group in self._groups:
            order = self._orders[group.name]
            if self._scope == "layer":
                wanted = (1 - share) * group.channels
            else:
                wanted = group.channels - int(lost[self._names.index(group.name)])
            keep = np.zeros(group.channels, bool)
            keep[order[: rounded(wanted, group.channels, group.width, self._round_to)]] = True
            result[group.name] = keep
        return result


def rounded(wanted: float, channels: int, width: int, round_to: int) -> int:
    """How many channels are kept, so that the layer's width is a multiple.

    Args:
        wanted: How many would be.
        channels: How many there are.
        width: For how many elements of the layer one stands.
        round_to: What the width is to be a multiple of.

    Example:
        >>> rounded(19.2, channels=32, width=1, round_to=8)
        16
        >>> rounded(2.0, channels=12, width=64, round_to=8)
        2
    """
    step = round_to // math.gcd(round_to, width)
    nearest = step * max(1, math.floor(wanted / step + 0.5))
    return min(nearest, channels)


def _within(choice: _Choice, cost: PruningCost, name: str, budget: float) -> dict[str, np.ndarray]:
    """The most channels with which the cost is within its share of what it was."""
    count = getattr(cost, name)
    full = count(cost.full())
    if full is None:
        raise ValueError(
            "`multiply_adds` needs a model whose inputs have known sizes. "
            "Received: a model with inputs of unknown sizes"
        )

    def share_left(kept) -> float:
        return count({group: int(keep.sum()) for group, keep in kept.items()}) / full

    smallest = share_left(choice.kept(1.0))
    if smallest > budget:
        raise _unreachable(name, budget, smallest)
    low, high = 0.0, 1.0
    if share_left(choice.kept(0.0)) <= budget:
        return choice.kept(0.0)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if share_left(choice.kept(middle)) <= budget else (middle, high)
    return choice.kept(high)


def _unreachable(name: str, budget: float, smallest: float) -> ValueError:
    return ValueError(
        f"`{name}` cannot be reached: with one channel (or `round_to` of them) left in each group, "
        f"{smallest:.3f} of the model's would be left. Received: {name}={budget}"
    )


def _within_time(model, groups, choice: _Choice, budget: float, images):
    """The same for the measured time, with few models tried."""

    def measure(share: float):
        kept = choice.kept(share)
        smaller = _Narrowing(groups, kept).model()
        times = inference_times({"model": model, "smaller": smaller}, images)
        return kept, time_ratio(times["smaller"], times["model"])

    best = measure(1.0)
    if best[1] > budget:
        raise _unreachable("seconds", budget, best[1])
    low, high = 0.0, 1.0
    for _ in range(_TIMED_STEPS):
        middle = (low + high) / 2
        found = measure(middle)
        if found[1] <= budget:
            best, high = found, middle
        else:
            low = middle
    return best


def _images(groups: ChannelGroups, dataset) -> Any:
    if dataset is not None:
        return keras.tree.map_structure(lambda array: array[:32], dataset_arrays(dataset)[0])
    rng = np.random.default_rng(0)

    def draw(tensor):
        shape = groups.graph.shapes[tensor][1:]
        if None in shape:
            raise ValueError(
                "`seconds` needs `dataset` for a model whose inputs have unknown sizes. "
                f"Received: dataset=None, input shape {shape}"
            )
        return rng.normal(size=(32, *shape)).astype("float32")

    return map_tensors(draw, groups.graph.inputs)


class _Narrowing(Rebuilder):
    """Makes the calls of a model again with fewer channels."""

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
