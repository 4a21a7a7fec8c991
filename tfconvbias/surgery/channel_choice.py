"""Which channels are kept under a budget, given their scores."""

import math
from collections.abc import Mapping

import numpy as np

from tfconvbias.surgery.channel_groups import ChannelGroups
from tfconvbias.surgery.importance import ABSOLUTE, LOSS_CHANGES, Importance
from tfconvbias.surgery.pruning_cost import PruningCost

Scores = Mapping[str, np.ndarray]


def score_units(
    scores: Scores, importance: Importance, cost: PruningCost, budget: str
) -> dict[str, float]:
    """By what the scores of each group are divided, to compare with those of other groups.

    Args:
        scores: Scores by name of the group.
        importance: What gave them.
        cost: What channels cost.
        budget: Name of the budget.
    """
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


class ChannelChoice:
    """Which channels are kept when a share of them is to be cut.

    Args:
        groups: The groups; all that may be cut have scores.
        scores: Scores by name of the group.
        scope: `"global"` or `"layer"`.
        round_to: What widths are to be multiples of.
        units: By what the scores of each group are divided in the global ranking.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        scores: Scores,
        scope: str,
        round_to: int,
        units: Mapping[str, float],
    ):
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
        >>> rounded(33, channels=33, width=1, round_to=8)
        33
    """
    if wanted >= channels:
        return channels
    step = round_to // math.gcd(round_to, width)
    nearest = step * max(1, math.floor(wanted / step + 0.5))
    return min(nearest, channels)


def kept_within(
    choice: ChannelChoice, cost: PruningCost, name: str, budget: float
) -> dict[str, np.ndarray]:
    """The most channels with which the cost is within its share of what it was.

    Args:
        choice: Which channels go first.
        cost: What channels cost.
        name: `"multiply_adds"` or `"parameters"`.
        budget: Which share may be left.

    Raises:
        ValueError: If that is less than what the least channels need.
    """
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
        raise unreachable(name, budget, smallest)
    low, high = 0.0, 1.0
    if share_left(choice.kept(0.0)) <= budget:
        return choice.kept(0.0)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if share_left(choice.kept(middle)) <= budget else (middle, high)
    return choice.kept(high)


def unreachable(name: str, budget: float, smallest: float) -> ValueError:
    """The error for a budget that is smaller than any choice of channels."""
    return ValueError(
        f"`{name}` cannot be reached: with one channel (or `round_to` of them) left in each group, "
        f"{smallest:.3f} of the model's would be left. Received: {name}={budget}"
    )
