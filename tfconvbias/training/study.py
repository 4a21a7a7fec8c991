"""A paper's table or figure as many runs: what they share, what varies, what is made of them."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tfconvbias.text_table import format_table
from tfconvbias.training import command_line
from tfconvbias.training.comparison import compare
from tfconvbias.training.entry_points import guarded
from tfconvbias.training.errors import ConfigError, TrainingDivergedError
from tfconvbias.training.report_page import Figures, Tables, run_notes, write_page
from tfconvbias.training.run_config import RunConfig, option
from tfconvbias.training.runner import RunResult

PAPER_DATASETS = ("cifar10", "cifar100", "svhn")
"""The data sets on which a published value is a fair neighbour."""


class Cell(NamedTuple):
    """One row of a study on one data set; it holds a run for each seed."""

    row: str
    dataset: str


Results = Mapping[Cell, Sequence[RunResult]]


class Findings(NamedTuple):
    """What a study makes of its runs: tables by heading, figures by name, and remarks."""

    tables: Tables
    figures: Figures
    remarks: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Study(RunConfig):
    """The fields that all runs share, and the data sets and seeds over which they go.

    A subclass adds the fields that it varies, names in `fixed` those that its rows set, and
    defines `variants` and `findings`.

    Raises:
        ConfigError: If two data sets or seeds are the same.
    """

    fixed: ClassVar[tuple[str, ...]] = ()

    datasets: tuple[str, ...] = option(
        ("cifar10",), "some of cifar10, cifar100, svhn, motifs10, motifs100, folders of images"
    )
    seeds: tuple[int, ...] = option((0,), "seeds; each row runs once with each")

    def __post_init__(self):
        super().__post_init__()
        for name in ("datasets", "seeds"):
            self._distinct(name)
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

    def runs(self) -> dict[str, tuple[Cell, RunConfig]]:
        """Label → cell and configuration of every run, a data set after the other."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(RunConfig)}
        return {
            f"{row}, {dataset_label(dataset)}, seed {seed}": (
                Cell(row, dataset),
                RunConfig(**shared | {"dataset": dataset, "seed": seed, **changes}),
            )
            for dataset in self.datasets
            for row, changes in self.variants().items()
            for seed in self.seeds
        }

    def _distinct(self, name: str) -> None:
        values = getattr(self, name)
        if not values or len(set(values)) < len(values):
            raise ConfigError(
                f"`{name}` must hold one value or more, each once. Received: {name}={values}"
            )


def study_recipe(
    study: Study,
    *,
    title: str,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, run what isn't on disk yet, print the tables and write the report.

    Args:
        study: the recipe's configuration.
        title: heading of the report, and the name of its folder.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.

    Raises:
        SystemExit: With a message, for faults that the user can mend.
    """
    chosen = command_line.parse(
        study,
        description=description,
        demo=demo,
        fixed=("dataset", "seed", *study.fixed),
        argv=argv,
    )
    guarded(lambda: _run_study(chosen, title))


def _run_study(study: Study, title: str) -> None:
    folder = Path(study.run_dir or f"runs/{title.replace(' ', '-').lower()}")
    planned = study.runs()
    finished, diverged = compare({name: run for name, (_, run) in planned.items()}, folder)
    if not finished:
        raise TrainingDivergedError("Every run diverged.")
    results: dict[Cell, list[RunResult]] = {}
    for name, result in finished.items():
        results.setdefault(planned[name][0], []).append(result)
    found = study.findings(results)
    tables = {heading: rows for heading, rows in found.tables.items() if rows}
    notes = [*found.remarks, *(f"Diverged: {name}. {text}" for name, text in diverged.items())]
    for heading, rows in tables.items():
        print("\n" + (f"{heading}\n\n" if heading else "") + format_table(rows))
    for note in notes:
        print(note)
    notes += run_notes({name: result.folder for name, result in finished.items()})
    page = write_page(folder / "report.html", title, tables, found.figures, notes)
    print(f"Report: {page}")
    if diverged:
        raise TrainingDivergedError(f"Diverged: {', '.join(diverged)}.")


def dataset_label(name: str) -> str:
    """A data set's name, or the last part of its folder."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def mean(results: Sequence[RunResult], column: str) -> float:
    """A column's mean over seeds."""
    return statistics.fmean(result.row[column] for result in results)


def percent(results: Sequence[RunResult], column: str) -> str:
    """A column of fractions in %: its mean over seeds, with the standard deviation of several."""
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
