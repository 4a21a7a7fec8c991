"""Several configurations in one folder, set side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tfconvbias.arguments import checked
from tfconvbias.training.engine import Finished, ManyRuns, Task, Workplace, run_tasks
from tfconvbias.training.errors import ConfigError, MissingRunsError, TrainingDivergedError
from tfconvbias.training.execution import Deadline
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.runner import RunResult, run
from tfconvbias.training.slug import slug


class Compared(NamedTuple):
    """How the rows of a comparison ended.

    Attributes:
        finished: Label → finished row.
        diverged: Label → message of a row whose loss diverged.
        missing: Says which rows came to no end since their processes were lost; `None` without.
    """

    finished: dict[str, RunResult]
    diverged: dict[str, str]
    missing: MissingRunsError | None


@checked
def compare(
    rows: Mapping[str, RunConfig],
    folder: str | Path,
    deadline: Deadline | None = None,
    many: ManyRuns | None = None,
) -> Compared:
    """Run every row, each in a subfolder of its own; finished rows are read from disk.

    Args:
        rows: Label → configuration. Its `run_dir` is not used, since the label names the subfolder.
        folder: Where the rows' run folders stand.
        deadline: When to stop; by default the first row's `max_minutes` from now on.
        many: How many rows at a time, and where; by default one after the other in this process.

    Returns:
        The finished rows, those whose loss diverged and those whose processes were lost.

    Raises:
        ConfigError: If two labels would share a subfolder.
        RunPausedError: If the time was over before the last row.
    """
    folders = {name: Path(folder) / slug(name) for name in rows}
    if not rows or len(set(folders.values())) < len(rows):
        raise ConfigError(f"Labels must differ in letters and digits. Received: {list(rows)}")
    tasks = [
        Task(
            name,
            run_row,
            config.replace(run_dir=str(folders[name])),
            kind=f"{config.model_name} {config.width} {config.optimizer} {config.dataset}",
            epochs=config.epochs,
        )
        for name, config in rows.items()
    ]
    first = next(iter(rows.values()))
    finished, diverged, missing = set(), {}, None
    ended = run_tasks(
        tasks,
        many or ManyRuns(),
        first,
        folder,
        deadline=deadline,
        goes_on_after=(TrainingDivergedError,),
    )
    try:
        for task, reply in ended:
            if reply.error is None:
                finished.add(task.name)
            else:
                diverged[task.name] = str(reply.error)
    except MissingRunsError as error:
        missing = error
    return Compared(
        {name: _read(RunFolder(folders[name])) for name in rows if name in finished},
        {name: diverged[name] for name in rows if name in diverged},
        missing,
    )


def run_row(place: Workplace, config: RunConfig) -> Finished:
    """One row of a comparison, as a task."""
    folder = RunFolder(config.run_dir or "")
    is_new = folder.result() is None
    if is_new:
        place.deadline.pause_before(folder.path.name)
    row = run(config, place.dataset(config), place.deadline).row
    return Finished(f"test accuracy {100 * row['test_accuracy']:.2f} %", is_new)


def _read(folder: RunFolder) -> RunResult:
    row = folder.result()
    assert row is not None, folder.path
    return RunResult(folder, row, folder.history())
