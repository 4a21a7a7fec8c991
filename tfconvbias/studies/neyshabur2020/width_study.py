"""Accuracy against parameters, family by family: Neyshabur 2020, Figures 2 and 6."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfconvbias.lazy import models, plots
from tfconvbias.studies.study import (
    Cell,
    Findings,
    Results,
    Study,
    mean,
    origin_cells,
    percent,
)
from tfconvbias.training import ConfigError, dataset_label, option

FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ResNet18": ("resnet18", {"family": "resnet18", "connectivity": "conv"}),
    "D-CONV": ("d_conv", {"family": "d", "connectivity": "conv"}),
    "S-CONV": ("s_conv", {"family": "s", "connectivity": "conv"}),
    "3-FC": ("three_fc", {"family": "three_fc", "connectivity": "dense"}),
}


@dataclasses.dataclass(frozen=True)
class WidthStudy(Study):
    """The families at the widths that come nearest to some budgets of kernel weights.

    Widths are chosen for 32×32×3 images and 10 classes; the counts that are shown are the trained
    models' own. A member of a family is over-parameterised once it has as many weights as the
    smallest member that reaches `train_accuracy` at the end of training. The training accuracy is
    the mean over the last epoch's batches, augmentation and dropout included.
    """

    fixed = (
        *Study.fixed,
        *("family", "connectivity", "base_channels", "hidden_units", "kernel_size"),
    )

    subject: str = "accuracy against parameters"

    families: tuple[str, ...] = option(tuple(FAMILIES), f"some of {', '.join(FAMILIES)}")
    budgets: tuple[int, ...] = option(
        (10**4, 10**5, 10**6, 10**7, 10**8, 10**9), "numbers of kernel weights"
    )
    train_accuracy: float = option(95.0, "training accuracy, %, from which a network fits")

    def __post_init__(self):
        super().__post_init__()
        self._distinct("families")
        self._distinct("budgets")
        self._all_positive("budgets")
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown:
            raise ConfigError(
                f"`families` must be some of {', '.join(FAMILIES)}. Received: {', '.join(unknown)}"
            )
        if not 0 < self.train_accuracy <= 100:
            raise ConfigError(
                "`train_accuracy` must be in (0, 100]. "
                f"Received: train_accuracy={self.train_accuracy}"
            )

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """A row for each family and width; budgets that lead to the same width share one.

        Raises:
            ConfigError: If a budget is below a family's narrowest member.
        """
        found = {}
        for name in self.families:
            counted, fields = FAMILIES[name]
            column = "hidden_units" if counted == "three_fc" else "base_channels"
            for budget in self.budgets:
                try:
                    width = models.base_channels_for_budget(counted, budget)
                except ValueError as error:
                    raise ConfigError(f"budgets: {error}") from error
                found[f"{name} {width}"] = {**fields, column: width}
        return found

    def findings(self, results: Results) -> Findings:
        """A table of all members, one of the over-parameterised regime, one figure per data set."""
        members, regime, figures, conclusion = [], [], {}, []
        for cell, runs in results.items():
            members.append(
                {
                    "family": _family(cell),
                    "width": str(runs[0].row["width"]),
                    "kernel weights": f"{_size(runs):,}",
                    "train, %": percent(runs, "train_accuracy"),
                    "test, %": percent(runs, "test_accuracy"),
                    **origin_cells(cell, runs),
                }
            )
        for dataset in dict.fromkeys(cell.dataset for cell in results):
            label = dataset_label(dataset)
            train, test = (
                {
                    name: points
                    for name in self.families
                    if (points := _points(results, dataset, name, column))
                }
                for column in ("train_accuracy", "test_accuracy")
            )
            fitting = {
                name: point
                for name in train
                if (point := over_parameterised(train[name], test[name], self.train_accuracy))
            }
            for name in train:
                size, accuracy = fitting.get(name, (None, None))
                regime.append(
                    {
                        "family": name,
                        f"fewest weights with {self.train_accuracy:g} % training accuracy": (
                            "none reaches it" if size is None else f"{size:,}"
                        ),
                        "best test accuracy from there on, %": (
                            "–" if accuracy is None else f"{accuracy:.2f}"
                        ),
                        "data set": label,
                    }
                )
            conclusion.append(self._who_fits(label, fitting))
            right = (
                "; right: the best test accuracy among the members at or above the smallest one "
                f"with {self.train_accuracy:g} % training accuracy, against that one's size"
            )
            figures[f"scaling {label}"] = (
                f"{label}: training and test accuracy against the number of kernel weights"
                f"{right if fitting else ''}.",
                plots.accuracy_against_parameters(
                    train, test, fitting, self.train_accuracy, title=label
                ),
            )
        tables = {"Members": members, "Over-parameterised": regime}
        return Findings(tables, figures, conclusion=conclusion)

    def _who_fits(self, dataset: str, fitting: Mapping[str, tuple[int, float]]) -> str:
        share = f"{self.train_accuracy:g} % training accuracy"
        if not fitting:
            return f"No member trained on {dataset} reaches {share}."
        (first, (least, best)), *others = fitting.items()
        found = [f"{first} with {least:,} kernel weights or more (best test accuracy {best:.2f} %)"]
        found += [f"{name} with {size:,} ({accuracy:.2f} %)" for name, (size, accuracy) in others]
        return f"{share} on {dataset} is reached by {', by '.join(found)}."


def over_parameterised(
    train: list[tuple[int, float]], test: list[tuple[int, float]], threshold: float
) -> tuple[int, float] | None:
    """Size of the smallest member that fits, and the best test accuracy from there on.

    Args:
        train: (size, training accuracy) of each member.
        test: (size, test accuracy) of each member.
        threshold: training accuracy from which a member fits.

    Returns:
        The pair, or `None` where no member fits.

    Example:
        >>> over_parameterised([(10, 80.0), (20, 99.0)], [(10, 75.0), (20, 70.0)], 95.0)
        (20, 70.0)
    """
    fitting = [size for size, accuracy in train if accuracy >= threshold]
    if not fitting:
        return None
    least = min(fitting)
    return least, max(accuracy for size, accuracy in test if size >= least)


def _points(results: Results, dataset: str, family: str, column: str) -> list[tuple[int, float]]:
    return [
        (_size(runs), 100 * mean(runs, column))
        for cell, runs in results.items()
        if cell.dataset == dataset and _family(cell) == family
    ]


def _family(cell: Cell) -> str:
    return cell.row.rsplit(" ", 1)[0]


def _size(runs) -> int:
    return sum(runs[0].row["kernel_parameters"].values())
