"""Results rows as tables."""

from collections.abc import Mapping
from typing import Any

from tfconvbias.text_table import format_table

_OPTIMIZERS = {"sgd": "SGD", "beta_lasso": "β-LASSO"}


def label(row: Mapping[str, Any]) -> str:
    """A run's name as the paper writes it, such as "S-FC, β-LASSO"."""
    model = {"three_fc": "3-FC"}.get(row["model"], row["model"].upper().replace("_", "-"))
    return f"{model}, {_OPTIMIZERS[row['optimizer']]}"


def table_rows(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Shape results rows, by their label, for people: accuracies in %, counts with separators."""
    return [
        {
            "model": name,
            "width": str(row["width"]),
            "kernel weights": f"{sum(row['kernel_parameters'].values()):,}",
            "non-zero": f"{sum(row['nonzeros'].values()):,}",
            "non-zero, first layer": _share(row),
            "train, %": percent(row["train_accuracy"]),
            "validation, %": percent(row["val_accuracy"]),
            "test, %": percent(row["test_accuracy"]),
            "test at best epoch, %": percent(row["best_epoch_test_accuracy"]),
            "data set": row["dataset"],
            "epochs": str(row["epochs"]),
            "seed": str(row["seed"]),
            "seconds": f"{row['seconds']:.0f}",
        }
        for name, row in results.items()
    ]


_SHORT = ("model", "non-zero", "train, %", "validation, %", "test, %", "epochs", "seconds")


def short_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The columns that decide, for a terminal; the page has all."""
    rows = [{name: row[name] for name in _SHORT} for row in table_rows(results)]
    return format_table(rows, markdown=False)


def conclusion(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What results rows say, in one sentence."""
    ranked = sorted(results, key=lambda name: results[name]["test_accuracy"], reverse=True)
    best = ranked[0]
    row = results[best]
    weights, nonzeros = sum(row["kernel_parameters"].values()), sum(row["nonzeros"].values())
    sparse = f" with {100 * nonzeros / weights:.2g} % of its weights" if nonzeros < weights else ""
    reached = f"{percent(row['test_accuracy'])} % test accuracy"
    if len(ranked) == 1:
        count = row["epochs"]
        epochs = f"{count} epoch" + "s" * (count != 1)
        return f"{best} reaches {reached}{sparse} after {epochs}."
    ahead = 100 * (row["test_accuracy"] - results[ranked[1]]["test_accuracy"])
    return f"{best} is best, {reached}{sparse}: {ahead:.2f} points ahead of {ranked[1]}."


def percent(fraction: float | None) -> str:
    """A fraction in %, or a dash where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def _share(row: Mapping[str, Any]) -> str:
    name, size = next(iter(row["kernel_parameters"].items()))
    count = row["nonzeros"][name]
    return f"{count:,} ({100 * count / size:.2f} %)"
