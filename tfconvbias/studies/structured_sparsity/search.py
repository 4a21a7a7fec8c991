"""KerasTuner over α and τ: how hard to penalize, and what to remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfconvbias import tuning
from tfconvbias.arguments import checked
from tfconvbias.lazy import data, keras_tuner
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.studies.structured_sparsity.search_config import SparsitySearchConfig
from tfconvbias.training import (
    Deadline,
    RunFolder,
    RunPausedError,
    build_dataset,
    command_line,
    counted,
    environment,
    environment_note,
    format_table,
    write_page,
    write_rows,
)
from tfconvbias.training.batches import check_batch_size

if TYPE_CHECKING:
    from tfconvbias.studies.structured_sparsity.search_space import StructuredSparsityHyperModel

_METRICS = ("val_accuracy", "multiply_adds_ratio", "parameters")


@checked
def report_sparsity_search(config: SparsitySearchConfig) -> None:
    """Search (α, τ), print the trials and the command that runs the best one as a sweep.

    Args:
        config: What to search, and where to keep it.

    Raises:
        ConfigError: If the data set is too small or has no validation images, or the augmentation
            is unknown.
        RunFolderError: If the folder holds another search, or this one without `resume`, or
            another process is at work in it.
        RunPausedError: If the time was over before the last trial.
        SearchError: If no trial succeeded.
        TrainingDivergedError: If the base's loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    rows = search_sparsity(config)
    page = write_sparsity_search_report(config, rows)
    print(format_table(sparsity_search_table(rows)))
    print(f"All trials: {Path(config.sweep.run_dir) / 'results.csv'}")
    print(f"Best on validation images:\n  {sparsity_command(config, rows[0])}")
    print(f"Report: {page}")


def write_sparsity_search_report(
    config: SparsitySearchConfig, rows: Sequence[Mapping[str, Any]]
) -> Path:
    """Write the trials, the best one and its command into the search's folder.

    Returns:
        The path of the page.
    """
    folder, best = RunFolder(config.sweep.run_dir), rows[0]
    return write_page(
        folder.path / "report.html",
        f"Search for α and τ: {config.sweep.base}",
        {"Trials, best first": sparsity_search_table(rows)},
        {},
        [
            "The score is the validation accuracy less "
            f"{config.multiply_add_price:g} × the share of the base's multiply-adds. Test images "
            "are not looked at.",
            f"Searched on {environment_note(folder.environment())}.",
        ],
        findings=[
            f"Best of {counted(len(rows), 'trial')}: α = {best['alpha']:g} and τ = "
            f"{best['tau']:g}, with {100 * best['val_accuracy']:.2f} % of the validation images "
            f"and {100 * best['multiply_adds_ratio']:.1f} % of the base's multiply-adds.",
            f"To run it and test it: {sparsity_command(config, best)}",
        ],
        settings=config,
        folders={"the search": folder},
    )


@checked
def search_sparsity(
    config: SparsitySearchConfig,
    dataset: data.ImageDataset | None = None,
    deadline: Deadline | None = None,
) -> list[dict[str, Any]]:
    """Search (α, τ) by validation accuracy less a price for multiply-adds.

    Trials are written to disk as they end, and trainings keep checkpoints, so that a search that
    was killed continues with `config.sweep.resume`.

    Args:
        config: What to search, and where to keep it.
        dataset: The configured data set, where the caller has loaded it already.
        deadline: When to stop; by default `config.sweep.max_minutes` from now on.

    Returns:
        The trials, best first: `trial`, `alpha`, `tau`, `score` and the metrics, as they stand in
        `results.csv`. Trials that failed come last, with `message`.

    Raises:
        ConfigError: If the data set is too small or has no validation images, or the augmentation
            is unknown.
        RunFolderError: If the folder holds another search, or this one without `resume`.
        RunPausedError: If the time was over before the last trial.
        SearchError: If no trial succeeded.
        TrainingDivergedError: If the base's loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    sweep = config.sweep
    deadline = deadline or sweep.deadline()
    if dataset is None:
        dataset = build_dataset(sweep)
    folder = RunFolder(sweep.run_dir)
    is_claimed = folder.check(config, sweep.resume, dataset, "search")
    check_batch_size(sweep.batch_size, len(dataset.x_train))
    from tfconvbias.studies.structured_sparsity.search_space import StructuredSparsityHyperModel

    space = StructuredSparsityHyperModel(config, dataset, folder.part("trainings"), deadline)
    with folder.locked():
        if not is_claimed:
            folder.claim(config, dataset)
            folder.write_environment(environment())
        space.train_base()
        trials = _run_trials(config, space, folder.path)
    rows = sorted(map(_row, trials), key=lambda row: (row["score"] is None, -(row["score"] or 0.0)))
    if not rows or rows[0]["score"] is None:
        raise tuning.SearchError(
            f"No trial succeeded. The first one's end: {rows[0]['message'] if rows else 'none ran'}"
        )
    write_rows(folder.path / "results.csv", rows)
    return rows


def sparsity_search_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row per trial."""
    return [
        {
            "trial": row["trial"],
            "α": f"{row['alpha']:g}",
            "τ": f"{row['tau']:g}",
            "score": _shown(row["score"], "{:.4f}"),
            "validation, %": _in_percent(row["val_accuracy"], ".2f"),
            "multiply-adds, % of the base": _in_percent(row["multiply_adds_ratio"], ".1f"),
            "parameters": _shown(row["parameters"], "{:,.0f}"),
            "end": row["message"] or "completed",
        }
        for row in rows
    ]


def sparsity_command(config: SparsitySearchConfig, row: Mapping[str, Any]) -> str:
    """The command that runs one trial as a sweep, tested on the test images."""
    words = command_line.arguments_of(config.trial(row["alpha"], row["tau"]), SparsityConfig())
    return f"{command_line.program_name('structured_sparsity')} {words}".strip()


def _run_trials(
    config: SparsitySearchConfig, space: StructuredSparsityHyperModel, folder: Path
) -> list[Any]:
    """Run the trials that are left; KerasTuner's records of all of them."""
    with tuning.without_deprecations():
        oracle = _oracle(config, space)
        tuner = _tuner(oracle, space, directory=str(folder), project_name="trials", overwrite=False)
        tuner.save()  # So that a search that is killed in its first trial is found again.
        try:
            tuner.search(verbose=0)
        except keras_tuner.errors.FatalError as error:
            if isinstance(error.__cause__, RunPausedError):
                raise error.__cause__ from None
            raise
    if oracle.failure is not None:
        raise tuning.SearchError(f"The search stopped: {oracle.failure}") from oracle.failure
    return list(oracle.trials.values())


def _tuner(*args: Any, **options: Any) -> keras_tuner.Tuner:
    # A function, since KerasTuner is only imported for a search.
    class Tuner(tuning.WholeFiles, keras_tuner.Tuner):
        """KerasTuner's, with files that are whole or absent."""

    return Tuner(*args, **options)


def _oracle(
    config: SparsitySearchConfig, space: StructuredSparsityHyperModel
) -> tuning.GridOracle | tuning.BayesianOracle | tuning.RandomOracle:
    kinds: dict[str, Any] = {
        # KerasTuner's own grid does not store its place in it, and so cannot be continued.
        "grid": tuning.GridOracle,
        "bayesian": tuning.BayesianOracle,
        "random": tuning.RandomOracle,
    }
    sweep = config.sweep
    is_grid = config.algorithm == "grid"
    most = len(sweep.alphas) * len(sweep.taus) if is_grid else config.max_trials
    values = keras_tuner.HyperParameters()
    space.declare_hyperparameters(values)
    return kinds[config.algorithm](
        objective=keras_tuner.Objective("score", "max"),
        hyperparameters=values,
        max_trials=most,
        seed=sweep.seed + 1,  # KerasTuner draws a seed in place of 0.
        # An α that removes everything fails, and others go on.
        max_consecutive_failed_trials=most + 1,
    )


def _row(trial: Any) -> dict[str, Any]:
    metrics = trial.metrics.metrics
    return {
        "trial": trial.trial_id,
        "alpha": trial.hyperparameters.get("alpha"),
        "tau": trial.hyperparameters.get("tau"),
        "score": trial.score,
        **{
            name: float(trial.metrics.get_last_value(name)) if name in metrics else None
            for name in _METRICS
        },
        "message": (trial.message or "").strip().rpartition("\n")[2],
    }


def _in_percent(share: float | None, pattern: str) -> str:
    return "" if share is None else f"{100 * share:{pattern}}"


def _shown(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)
