"""Channels chosen by importance under a budget, and a smaller model without them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import keras
import numpy as np

from tfconvbias.analysis import inference_times, time_ratio
from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.graph.calls import map_tensors
from tfconvbias.surgery.channel_choice import (
    ChannelChoice,
    kept_within,
    score_units,
    unreachable,
)
from tfconvbias.surgery.channel_groups import channel_groups
from tfconvbias.surgery.importance import Importance, channel_scores, dataset_arrays
from tfconvbias.surgery.narrowing import Narrowing
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
                lines.append(f"{name} {pair[0]:,} → {pair[1]:,} ({100 * pair[1] / pair[0]:.1f} %)")
        if self.time_share is not None:
            lines.append(f"time {100 * self.time_share:.1f} % of the model's")
        return "\n".join(lines)


class Pruned(NamedTuple):
    """A pruned model and what was done."""

    model: keras.Model
    report: PruningReport


@checked
def prune(
    model: keras.Model,
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
    seed: NonNegativeInt = 0,
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
    choice = ChannelChoice(
        groups, scores, scope, round_to, score_units(scores, importance, cost, name)
    )
    time_share = None
    if name == "seconds":
        images = _images(groups, dataset)
        kept, time_share = _within_time(model, groups, choice, budget, images)
    elif name == "ratio":
        kept = choice.kept(budget)
    else:
        kept = kept_within(choice, cost, name, budget)
    narrowing = Narrowing(groups, kept)
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


def _within_time(model, groups, choice: ChannelChoice, budget: float, images):
    """The same for the measured time, with few models tried."""

    def measure(share: float):
        kept = choice.kept(share)
        smaller = Narrowing(groups, kept).model()
        times = inference_times({"model": model, "smaller": smaller}, images)
        return kept, time_ratio(times["smaller"], times["model"])

    best = measure(1.0)
    if best[1] > budget:
        raise unreachable("seconds", budget, best[1])
    low, high = 0.0, 1.0
    for _ in range(_TIMED_STEPS):
        middle = (low + high) / 2
        found = measure(middle)
        if found[1] <= budget:
            best, high = found, middle
        else:
            low = middle
    return best


def _images(groups, dataset) -> Any:
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
