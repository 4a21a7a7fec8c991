"""Results rows as tables."""

from collections.abc import Mapping
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.text_table import format_table

OPTIMIZERS = {"sgd": "SGD", "beta_lasso": "β-LASSO"}
"""Optimizer → its name in tables."""


@checked
def label(row: Mapping[str, Any]) -> str:
    """A run's name as the paper writes it, such as "S-FC, β-LASSO"."""
    model = {"three_fc": "3-FC"}.get(row["model"], row["model"].upper().replace("_", "-"))
    return f"{model}, {OPTIMIZERS[row['optimizer']]}"


@checked
def table_rows(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Shape results rows, by their label, for people: accuracies in %, counts with separators."""
    return [
        {
            "model": name,
            "test, %": percent(row["test_accuracy"]),
            "width": str(row["width"]),
            "kernel weights": f"{sum(row['kernel_parameters'].values()):,}",
            "non-zero": f"{sum(row['nonzeros'].values()):,}",
            "non-zero, first layer": _share(row),
            "train, %": percent(row["train_accuracy"]),
            "validation, %": percent(row["val_accuracy"]),
            "test at best epoch, %": percent(row["best_epoch_test_accuracy"]),
            "data set": row["dataset"],
            "epochs": str(row["epochs"]),
            "seed": str(row["seed"]),
            "seconds": f"{row['seconds']:.0f}",
        }
        for name, row in results.items()
    ]


@checked
def counted(number: int, noun: str) -> str:
    """A number of things in words, such as "1 epoch" or "4,000 epochs".

    Example:
        >>> counted(1, "epoch"), counted(4000, "epoch")
        ('1 epoch', '4,000 epochs')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


@checked
def leaders(accuracies: Mapping[str, float]) -> str:
    """Whose accuracy is the highest, in words; those that are shown alike are named together.

    Args:
        accuracies: Name → accuracy, a fraction; one name or more.

    Raises:
        ValueError: If there is no name.

    Example:
        >>> leaders({"a": 0.5, "b": 0.6}), leaders({"a": 0.5, "b": 0.500001, "c": 0.1})
        ('b', 'a and b alike')
        >>> leaders(dict.fromkeys("abcde", 0.1))
        'a and 4 others alike'
    """
    if not accuracies:
        raise ValueError("`accuracies` must name someone. Received: none")
    most = percent(max(accuracies.values()))
    first, *others = (name for name, value in accuracies.items() if percent(value) == most)
    if not others:
        return first
    if len(others) == 1:
        return f"{first} and {others[0]} alike"
    return f"{first} and {len(others)} others alike"


_SHORT = ("model", "non-zero", "train, %", "validation, %", "test, %", "epochs", "seconds")


def short_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The columns that decide, for a terminal; the page has all."""
    rows = [{name: row[name] for name in _SHORT} for row in table_rows(results)]
    return format_table(rows, markdown=False)


def conclusion(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What results rows, by their label, say: the most accurate one, and the sparsest one."""
    measured = {n: row for n, row in results.items() if row.get("test_accuracy") is not None}
    if not measured:
        return ["No test image has been looked at yet."]
    best = max(measured, key=lambda name: measured[name]["test_accuracy"])
    accuracy = percent(measured[best]["test_accuracy"])
    if len(measured) == 1:
        row = measured[best]
        epochs = counted(row["epochs"], "epoch")
        share = f"; {100 * _kept(row):.2f} % of the kernel weights are not zero"
        return [
            f"{accuracy} % of the test images of {row['dataset']} are classified correctly after "
            f"{epochs}{share if _kept(row) < 1 else ''}."
        ]
    winners = leaders({name: row["test_accuracy"] for name, row in measured.items()})
    found = [f"Highest test accuracy: {winners}, {accuracy} %."]
    sparsest = min(measured, key=lambda name: _kept(measured[name]))
    if _kept(measured[sparsest]) < 1:
        found.append(
            f"Smallest share of non-zero kernel weights: {sparsest}, "
            f"{100 * _kept(measured[sparsest]):.2f} %, with a test accuracy of "
            f"{percent(measured[sparsest]['test_accuracy'])} %."
        )
    return found


def percent(fraction: float | None) -> str:
    """A fraction in %, or a dash where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def _kept(row: Mapping[str, Any]) -> float:
    return sum(row["nonzeros"].values()) / sum(row["kernel_parameters"].values())


def _share(row: Mapping[str, Any]) -> str:
    name, size = next(iter(row["kernel_parameters"].items()))
    count = row["nonzeros"][name]
    return f"{count:,} ({100 * count / size:.2f} %)"
