"""The report of a comparison: what each method reaches at each budget, and who is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tfconvbias.arguments import checked
from tfconvbias.lazy import plots
from tfconvbias.studies.structured_sparsity.comparison import (
    ComparisonResult,
    read_comparison,
    run_comparison,
    task_name,
)
from tfconvbias.studies.structured_sparsity.comparison_config import (
    FROM_SCRATCH,
    SINGLE_WEIGHTS,
    TITLES,
    ComparisonConfig,
)
from tfconvbias.training import (
    Figures,
    MissingRunsError,
    build_dataset,
    counted,
    environment_note,
    format_table,
    leaders,
    write_page,
)

BASELINES = ("uniform", "random")
"""What a method has to beat."""

_GOAL = 1.0
"""Points by which it has to."""


@checked
def report_comparison(config: ComparisonConfig) -> None:
    """Run a comparison, print its table and findings and write its report.

    Args:
        config: What to run, and where to keep it.

    Raises:
        ConfigError: If the data set is too small or has no validation images, or the augmentation
            is unknown.
        MissingRunsError: If processes of some seeds were lost; the others are reported first.
        RunFolderError: If the folder holds something else, or this without `resume`.
        RunPausedError: If the time was over before the last training.
        TrainingDivergedError: If the loss of every setting of a method became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    missing = None
    try:
        result = run_comparison(config)
    except MissingRunsError as error:
        missing = error
        whole = [seed for seed in config.seeds if task_name(seed) not in error.missing]
        if not whole:
            raise
        result = read_comparison(config.replace(seeds=tuple(whole)), build_dataset(config.sweep))
    page = write_comparison_report(result, missing)
    print("\n" + format_table(comparison_table(result)) + "\n")
    print("\n".join(comparison_findings(result)))
    print(f"Report: {page}")
    if missing is not None:
        raise missing


@checked
def write_comparison_report(
    result: ComparisonResult, missing: MissingRunsError | None = None
) -> Path:
    """Write findings, tables and figure into the run folder.

    Args:
        result: The comparison, with all rows of its seeds.
        missing: Which seeds it lacks.

    Returns:
        The path of the page.
    """
    config, row = result.config, result.chosen[0]
    count = len(config.settings(config.methods[0]))
    return write_page(
        result.folder.path / "report.html",
        f"Sparsity methods compared: {config.sweep.base}",
        {"Chosen on validation images": comparison_table(result), "Tried": _tried_table(result)},
        _figures(result),
        [
            f"Every network has seen the images for "
            f"{counted(config.total_epochs, 'epoch')}. Each method tried "
            f"{counted(count, 'setting')} at each budget with seed {config.seeds[0]}; the one of "
            "the best validation accuracy ran with every seed. Test images were used once, at the "
            "end.",
            f"Data set {row['dataset']}, {row['num_train']:,} training and {row['num_test']:,} "
            f"test images. Trained on {environment_note(result.folder.environment())}.",
        ],
        findings=[
            *([] if missing is None else [missing.summary]),
            *comparison_findings(result),
        ],
        settings=config,
        folders={"all networks": result.folder},
    )


@checked
def comparison_table(result: ComparisonResult) -> list[dict[str, str]]:
    """One row for each method and budget: accuracies over the seeds, and costs."""
    table = []
    for method in result.config.methods:
        for budget in result.config.budgets_of(method):
            rows = result.of(method, budget)
            setting = result.config.settings(method)[rows[0]["setting"]]
            table.append(
                {
                    "method": TITLES[method],
                    "budget": _share(budget),
                    "test, %": _spread(_percents(rows, "test_accuracy")),
                    "validation, %": _spread(_percents(rows, "val_accuracy")),
                    "multiply-adds": f"{100 * _mean(rows, 'multiply_adds_ratio'):.1f} %",
                    "of them not zero": f"{100 * _mean(rows, 'nonzero_multiply_adds_ratio'):.1f} %",
                    "weights left": f"{_mean(rows, 'nonzeros'):,.0f}",
                    "chosen": str(setting),
                }
            )
    return table


@checked
def comparison_findings(result: ComparisonResult) -> list[str]:
    """Who is ahead at each budget, in sentences that follow from the rows alone."""
    config = result.config
    baselines = [name for name in config.methods if name in BASELINES]
    others = [m for m in config.methods if m not in (*FROM_SCRATCH, *SINGLE_WEIGHTS)]
    if not baselines or not others:
        return [_most_accurate(result)]
    sentences = []
    for budget in config.budgets:
        baseline = _best(result, baselines, budget)
        reference = _percents(result.of(baseline, budget), "test_accuracy")
        winner = _best(result, others, budget)
        for method in others:
            found = _percents(result.of(method, budget), "test_accuracy")
            leads = [own - other for own, other in zip(found, reference, strict=True)]
            best = " (the best method on validation images)" if method == winner else ""
            by_seed = f" (by seed: {_listed(leads)})" if len(leads) > 1 else ""
            sentences.append(
                f"At {_share(budget)} of the multiply-adds, {TITLES[method]}{best} has a "
                f"test accuracy of {statistics.fmean(found):.2f} %, "
                f"{statistics.fmean(leads):+.2f} points beside a network of {TITLES[baseline]} "
                f"trained from scratch{by_seed}. The goal of {_GOAL:+.0f} point is "
                f"{'met' if statistics.fmean(leads) >= _GOAL else 'missed'}."
            )
    return sentences


def _most_accurate(result: ComparisonResult) -> str:
    """Where there is nothing to compare with, the best of all."""
    cells = [(m, b) for m in result.config.methods for b in result.config.budgets_of(m)]
    means = {
        f"{TITLES[method]} at a budget of {_share(budget)}": _mean(
            result.of(method, budget), "test_accuracy"
        )
        for method, budget in cells
    }
    return f"Highest test accuracy: {leaders(means)}, {100 * max(means.values()):.2f} %."


def _best(result: ComparisonResult, methods: Sequence[str], budget: float) -> str:
    return max(methods, key=lambda method: _mean(result.of(method, budget), "val_accuracy"))


def _tried_table(result: ComparisonResult) -> list[dict[str, str]]:
    return [
        {
            "method": TITLES[row["method"]],
            "budget": _share(row["budget"]),
            "validation, %": f"{100 * row['val_accuracy']:.2f}",
            "setting": str(result.config.settings(row["method"])[row["setting"]]),
        }
        for row in result.tried
    ]


def _figures(result: ComparisonResult) -> Figures:
    series = []
    for method in result.config.methods:
        cells = [result.of(method, budget) for budget in result.config.budgets_of(method)]
        series.append(
            plots.Series(
                TITLES[method],
                {
                    "multiply-adds that are not zero, % of the base": [
                        100 * _mean(rows, "nonzero_multiply_adds_ratio") for rows in cells
                    ],
                    "weights that are not zero": [_mean(rows, "nonzeros") for rows in cells],
                },
                [_mean(rows, "test_accuracy") * 100 for rows in cells],
                "single" if method == "dense" else "line",
                spread=[
                    statistics.stdev(_percents(rows, "test_accuracy")) if len(rows) > 1 else 0.0
                    for rows in cells
                ],
            )
        )
    caption = (
        "Mean test accuracy over the seeds against what is left; bars: one standard deviation."
    )
    return {"comparison": (caption, plots.accuracy_frontier(series))}


def _percents(rows: Sequence[dict], column: str) -> list[float]:
    return [100 * row[column] for row in rows]


def _mean(rows: Sequence[dict], column: str) -> float:
    return statistics.fmean(row[column] for row in rows)


def _share(budget: float) -> str:
    return f"{100 * budget:g} %"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.2f}" for value in values)
