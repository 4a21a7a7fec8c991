"""The acceptance criteria of the experiments on the sphere, and the statistics that they need."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.studies.check import Check
from tfconvbias.studies.edge_of_stability.stored_rows import Row


@checked
def check_stability(rows: Mapping[str, Sequence[Row]]) -> list[Check]:
    """The acceptance criteria of the experiments that `rows` holds."""
    excess = max(
        norm - bound
        for found in rows.values()
        for row in found
        for norm, bound in zip(
            row["history"]["path_norm"], row["history"]["path_norm_bound"], strict=True
        )
    )
    checks = [Check.of("path norm − bound, largest of all measurements", excess, "≤", 0)]
    if "architectures" in rows:
        checks += _check_architectures(rows["architectures"])
    if "sizes" in rows:
        slopes = gap_slopes(rows["sizes"])
        name = f"slope of log gap against log n {_when(rows['sizes'])}"
        checks += [
            Check.of(f"{name}, dense", slopes["dense"][0], ">", -0.2),
            Check.of(f"{name}, conv", slopes["conv"][0], "<", -0.4),
        ]
    if "patch_sizes" in rows:
        checks += _check_patch_sizes(rows["patch_sizes"])
    return checks


def gap_slopes(rows: Iterable[Row], field: str = "num_train") -> dict[str, tuple[float, float]]:
    """Log–log slope of the gap against a field and its standard error, for each connectivity.

    Two values of the field have a slope and no error, which is NaN.
    """
    import numpy as np
    from scipy import stats

    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        config = row["config"]
        points.setdefault(config["connectivity"], []).append((config[field], row["gap"]))
    slopes = {}
    for connectivity, pairs in points.items():
        fit = stats.linregress(*np.log(np.array(pairs)).T)
        error = float(fit.stderr) if len({value for value, _ in pairs}) > 2 else math.nan
        slopes[connectivity] = (float(fit.slope), error)
    return slopes


def medians(rows: Iterable[Row], key: str, column: str) -> dict[Any, float]:
    """The median of a column over seeds, for each value of a configuration field."""
    groups: dict[Any, list[float]] = {}
    for row in rows:
        groups.setdefault(row["config"][key], []).append(row[column])
    return {value: statistics.median(found) for value, found in groups.items()}


def _when(rows: Sequence[Row]) -> str:
    """The time at which runs ended, for the names of criteria that hang on it."""
    times = sorted({row["history"]["time"][-1] for row in rows})
    return "at ηt = " + " and ".join(f"{time:.0f}" for time in times)


def _check_architectures(rows: Sequence[Row]) -> list[Check]:
    train = medians(rows, "connectivity", "train_error")
    gap = medians(rows, "connectivity", "gap")
    ratios = [row["relative_sharpness"] for row in rows]
    half = min(gap["dense"], gap["local"]) / 2
    # Convolutional gaps still grow: what is asked of them holds at this time.
    when = _when(rows)
    return [
        Check.of("λη/2, smallest of all runs", min(ratios), "≥", 0.85),
        Check.of("λη/2, largest of all runs", max(ratios), "≤", 1.1),
        Check.of("training error, dense", train["dense"], "<", 0.1),
        Check.of("training error, local", train["local"], "<", 0.35),
        Check.of(f"training error, conv, {when}", train["conv"], ">", 0.6),
        Check.of(f"gap, conv, {when}", gap["conv"], "<", half, "half of dense and local"),
    ]


def _check_patch_sizes(rows: Sequence[Row]) -> list[Check]:
    from scipy import stats

    train = medians(rows, "patch_size", "train_error")
    gap = medians(rows, "patch_size", "gap")
    correlation = float(stats.spearmanr(list(train), list(train.values())).statistic)
    checks = [Check.of("Spearman correlation of m and training error", correlation, "<", -0.8)]
    for m, value in sorted(gap.items()):
        if m <= 2:
            checks.append(Check.of(f"gap, m = {m}", value, "<", 0.3))
        elif m >= 8:
            checks.append(Check.of(f"gap, m = {m}", value, ">", 1))
    return checks
