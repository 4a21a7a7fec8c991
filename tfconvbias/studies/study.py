"""A paper's table or figure as many runs: what they share, what varies, what is made of them."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tfconvbias.arguments import checked
from tfconvbias.training import (
    ConfigError,
    Figures,
    ManyRuns,
    RunConfig,
    RunResult,
    Tables,
    TrainingDivergedError,
    compare,
    counted,
    dataset_label,
    format_table,
    leaders,
    option,
    print_plan,
    run_notes,
    slug,
    write_page,
)


class Cell(NamedTuple):
    """One row of a study on one data set; it holds a run for each seed."""

    row: str
    dataset: str


Results = Mapping[Cell, Sequence[RunResult]]
"""Cell → its finished runs, one for each seed."""


class Findings(NamedTuple):
    """What a study makes of its runs: tables by heading, figures by name, remarks, conclusion."""

    tables: Tables
    figures: Figures
    remarks: Sequence[str] = ()
    conclusion: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Study(ManyRuns):
    """What all runs share, and the data sets and seeds over which they go.

    A subclass adds the fields that it varies, names in `fixed` those fields of `run` that its rows
    set, and defines `variants` and `findings`.

    Args:
        run: What all runs share. Its `run_dir` is the study's folder, in which each run has one of
            its own; its data set and seed are not used.
        title: Beginning of the report's heading; it names the folder where `run_dir` is `None`.
        subject: What the study is about, after its title in the report's heading.

    Raises:
        ConfigError: If two data sets or seeds are the same.
    """

    fixed: ClassVar[tuple[str, ...]] = ("dataset", "seed")

    run: RunConfig = RunConfig()
    title: str = "Study"
    subject: str = ""

    datasets: tuple[str, ...] = option(
        ("cifar10",), "some of cifar10, cifar100, svhn, motifs10, motifs100, folders of images"
    )
    seeds: tuple[int, ...] = option((0,), "seeds; each row runs once with each")

    def __post_init__(self):
        super().__post_init__()
        self._distinct("datasets", "seeds")
        self._seeds("seeds")
        labels = [dataset_label(name) for name in self.datasets]
        if len(set(labels)) < len(labels):
            raise ConfigError(
                f"`datasets` must differ in their last part. Received: datasets={self.datasets}"
            )

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → the fields of `RunConfig` in which it differs."""
        raise NotImplementedError

    def findings(self, results: Results) -> Findings:
        """Tables and figures of the finished runs."""
        raise NotImplementedError

    def on(self, dataset: str) -> RunConfig:
        """What all runs on a data set share; extra images are SVHN's alone."""
        is_svhn = dataset == "svhn"
        return self.run.replace(dataset=dataset, include_extra=self.run.include_extra and is_svhn)

    def runs(self) -> dict[str, tuple[Cell, RunConfig]]:
        """Label → cell and configuration of every run, one data set after the other."""
        return {
            f"{row}, {dataset_label(dataset)}, seed {seed}": (
                Cell(row, dataset),
                self.on(dataset).replace(seed=seed, **changes),
            )
            for dataset in self.datasets
            for row, changes in self.variants().items()
            for seed in self.seeds
        }


@checked
def report_study(study: Study) -> None:
    """Run what is not on disk yet, print the tables and write the report.

    Raises:
        MissingRunsError: If processes of some runs were lost; the others are reported first.
        TrainingDivergedError: If the loss of a run diverged; the others are reported first.
    """
    folder = Path(study.run.run_dir or f"runs/{slug(study.title)}")
    planned = study.runs()
    if study.run.plan is not None:
        print_plan({name: run for name, (_, run) in planned.items()})
        return
    finished, diverged, missing = compare(
        {name: run for name, (_, run) in planned.items()}, folder, many=study
    )
    if not finished:
        raise missing or TrainingDivergedError("Every run diverged.")
    results: dict[Cell, list[RunResult]] = {}
    for name, result in finished.items():
        results.setdefault(planned[name][0], []).append(result)
    found = study.findings(results)
    notes = [*found.remarks, *(f"Diverged: {name}. {text}" for name, text in diverged.items())]
    for heading, rows in found.tables.items():
        if rows:
            print("\n" + (f"{heading}\n\n" if heading else "") + format_table(rows))
    for note in notes:
        print(note)
    folders = {name: result.folder for name, result in finished.items()}
    page = write_page(
        folder / "report.html",
        f"{study.title}: {study.subject}" if study.subject else study.title,
        found.tables,
        found.figures,
        [*notes, *run_notes(folders)],
        findings=[
            *([] if missing is None else [missing.summary]),
            *found.conclusion,
            *_most_accurate(results),
        ],
        settings=folders,
    )
    print(f"Report: {page}")
    if missing is not None:
        raise missing
    if diverged:
        raise TrainingDivergedError(f"Diverged: {', '.join(diverged)}.")


def _most_accurate(results: Results) -> list[str]:
    """For each data set, the row of the highest mean test accuracy."""
    sentences = []
    for dataset in dict.fromkeys(cell.dataset for cell in results):
        here = {cell.row: runs for cell, runs in results.items() if cell.dataset == dataset}
        means = {row: mean(runs, "test_accuracy") for row, runs in here.items()}
        best = max(means, key=means.__getitem__)
        sentences.append(
            f"Highest test accuracy on {dataset_label(dataset)} after "
            f"{counted(here[best][0].row['epochs'], 'epoch')}: {leaders(means)}, "
            f"{percent(here[best], 'test_accuracy')} %."
        )
    return sentences


def mean(results: Sequence[RunResult], column: str) -> float:
    """A column's mean over seeds."""
    return statistics.fmean(result.row[column] for result in results)


def percent(results: Sequence[RunResult], column: str) -> str:
    """A column of fractions in %: its mean over seeds, with the standard deviation of several."""
    if any(result.row[column] is None for result in results):
        return "–"
    values = [100 * result.row[column] for result in results]
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def origin_cells(cell: Cell, results: Sequence[RunResult]) -> dict[str, str]:
    """Data set, epochs and seeds, as every table of results states them."""
    return {
        "data set": dataset_label(cell.dataset),
        "epochs": str(results[0].row["epochs"]),
        "seeds": ", ".join(str(result.row["seed"]) for result in results),
    }
