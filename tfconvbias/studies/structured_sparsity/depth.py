"""Depth: which layers a residual network and a plain one lose on the same path of α."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfconvbias.arguments import checked
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.studies.structured_sparsity.figures import width_figure
from tfconvbias.studies.structured_sparsity.report import (
    sparsity_findings,
    trained_on,
    write_sparsity_report,
)
from tfconvbias.studies.structured_sparsity.result import SparsityResult
from tfconvbias.studies.structured_sparsity.sweep import run_sparsity
from tfconvbias.training import (
    Deadline,
    Figures,
    Finished,
    ManyRuns,
    MissingRunsError,
    Task,
    Workplace,
    build_dataset,
    counted,
    format_table,
    run_tasks,
    write_page,
)

NETWORKS = ("residual", "plain")
"""The networks, by the folders of their sweeps."""


@dataclass(frozen=True)
class DepthConfig(ManyRuns):
    """Two sweeps without baselines, one of the residual network and one of the plain one.

    Args:
        sweep: What both share; its `run_dir` is the folder in which each has its own.
    """

    fixed = ("residual", "uniform_widths", "random_widths", "baseline_epochs")

    sweep: SparsityConfig = SparsityConfig(run_dir="runs/structured-sparsity-depth")

    def sweep_of(self, network: str) -> SparsityConfig:
        """The sweep of one of `NETWORKS`."""
        return self.sweep.replace(
            residual=network == "residual",
            uniform_widths=(),
            random_widths=0,
            run_dir=str(Path(self.sweep.run_dir) / network),
        )


@checked
def report_sparsity_depth(config: DepthConfig) -> None:
    """Sweep a residual and a plain network, print what each has lost and write the reports.

    Args:
        config: What to run, and where to keep it.

    Raises:
        CompactionError: If a compact network computes something else than the thresholded one.
        ConfigError: If the data set is too small, or the augmentation is unknown.
        MissingRunsError: If the process of a sweep was lost; the other one is reported first.
        RunFolderError: If the folder holds another sweep, or this one without `resume`.
        RunPausedError: If the time was over before the last training.
        TrainingDivergedError: If a loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    results, missing = run_depth(config, config.sweep.deadline())
    if missing is not None and not results:
        raise missing
    table = depth_table(results)
    notes: list[str] = []
    figures: Figures = {}
    for name, result in results.items():
        write_sparsity_report(result)
        notes += [f"{name}: {sentence}" for sentence in sparsity_findings(result)]
        if result.of_kind("found"):
            caption, figure = width_figure(result)
            figures[name] = (f"{name.capitalize()} network. {caption}", figure)
    page = write_page(
        Path(config.sweep.run_dir) / "report.html",
        "Structured sparsity and depth",
        {"": table},
        figures,
        list(dict.fromkeys(map(trained_on, results.values()))),
        findings=notes if missing is None else [missing.summary, *notes],
        settings=config.sweep,
        folders={name: result.folder for name, result in results.items()},
    )
    if table:
        print("\n" + format_table(table) + "\n")
    print("\n".join(notes))
    print(f"Report: {page}")
    if missing is not None:
        raise missing


def run_depth(
    config: DepthConfig, deadline: Deadline
) -> tuple[dict[str, SparsityResult], MissingRunsError | None]:
    """Run both sweeps, or what is left of them, on the same images.

    Returns:
        The finished sweeps, and which one is missing since its process was lost.
    """
    dataset = build_dataset(config.sweep)
    tasks = [Task(name, run_network, config, {"name": name}) for name in NETWORKS]
    ended = run_tasks(
        tasks,
        config,
        config.sweep,
        config.sweep.run_dir,
        deadline=deadline,
        dataset=dataset if config.is_in_process else None,
    )
    finished, missing = [], None
    try:
        finished += [task.name for task, _ in ended]
    except MissingRunsError as error:
        missing = error
        finished = [name for name in NETWORKS if name not in error.missing]
    results = {
        # Of a finished sweep this reads the rows.
        name: run_sparsity(config.sweep_of(name).replace(resume=True), dataset, deadline)
        for name in NETWORKS
        if name in finished
    }
    return results, missing


def run_network(place: Workplace, config: DepthConfig, *, name: str) -> Finished:
    """One of the two sweeps, as a task."""
    sweep = config.sweep_of(name)
    result = run_sparsity(sweep, place.dataset(config.sweep), place.deadline)
    return Finished(counted(len(result.rows), "network"))


@checked
def depth_table(results: Mapping[str, SparsityResult]) -> list[dict[str, str]]:
    """One row for each network and α: what is left of its convolutions.

    Args:
        results: Name of the network → its sweep.
    """
    table = []
    for name, result in results.items():
        for row in result.of_kind("found"):
            layers = [layer for layer in row["architecture"] if layer["kind"] != "Dense"]
            left = [layer for layer in layers if layer["name"] not in row["vanished"]]
            table.append(
                {
                    "network": name,
                    "α": f"{row['alpha']:g}",
                    "τ": f"{row['tau']:g}",
                    "convolutions": str(len(layers)),
                    "left": str(len(left)),
                    "of one kernel": str(sum(layer["kept_kernels"] == 1 for layer in left)),
                    "kept by a warning": str(len(row["messages"])),
                    "identity kernels": str(row["identity_kernels"]),
                    "thresholded, %": f"{100 * row['test_accuracy_thresholded']:.2f}",
                    "fine-tuned, %": f"{100 * row['test_accuracy']:.2f}",
                    "multiply-adds": f"{100 * row['multiply_adds_ratio']:.1f} %",
                }
            )
    return table
