"""What a recipe calls: command line in, run, table and report out."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tfconvbias import data
from tfconvbias.text_table import format_table
from tfconvbias.training import command_line
from tfconvbias.training.comparison import compare
from tfconvbias.training.errors import (
    ConfigError,
    RunFolderError,
    RunPausedError,
    TrainingDivergedError,
)
from tfconvbias.training.report import write_report
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.runner import run
from tfconvbias.training.table import label, table_rows

PAUSED_STATUS = 3
"""Exit status of a command that stopped in time and is to be resumed."""


def run_recipe(
    config: RunConfig,
    *,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, train one configuration, print its row and write its report.

    Args:
        config: the recipe's configuration.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.
    """
    chosen = command_line.parse(config, description=description, demo=demo, argv=argv)

    def work() -> None:
        result = run(chosen)
        name = label(result.row)
        print(format_table(table_rows({name: result.row})))
        page = write_report({name: result.folder}, result.folder.path / "report.html", name)
        print(f"Report: {page}")

    guarded(work)


def compare_recipe(
    config: RunConfig,
    rows: Mapping[str, Mapping[str, Any]],
    *,
    title: str,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, train every row, print the table and write one report.

    Args:
        config: what all rows share.
        rows: label → the fields in which a row differs; they get no option.
        title: heading of the report, and the name of its folder.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.
    """
    fixed = sorted({name for changes in rows.values() for name in changes})
    chosen = command_line.parse(config, description=description, demo=demo, fixed=fixed, argv=argv)

    def work() -> None:
        folder = Path(chosen.run_dir or f"runs/{title.replace(' ', '-').lower()}")
        configs = {name: dataclasses.replace(chosen, **fields) for name, fields in rows.items()}
        finished, diverged = compare(configs, folder)
        if not finished:
            raise TrainingDivergedError("Every row diverged.")
        print("\n" + format_table(table_rows({name: r.row for name, r in finished.items()})))
        folders = {name: result.folder for name, result in finished.items()}
        print(f"Report: {write_report(folders, folder / 'report.html', title)}")
        if diverged:
            raise TrainingDivergedError(f"Diverged: {', '.join(diverged)}.")

    guarded(work)


def guarded(work: Callable[[], None]) -> None:
    """Show errors that the user can mend as a message, and leave with status 1.

    Args:
        work: what a recipe does once its options are read.

    Raises:
        SystemExit: With status 1 after such an error, 130 after an interruption, 3 where
            `max_minutes` ended before the run did.
    """
    try:
        work()
    except data.DatasetUnavailableError as error:
        program = command_line.program_name()
        _leave(
            f"The data set {error.name!r} can't be had: {error.reason}.\n"
            "These commands work without it:\n"
            f"  {program} --demo\n"
            f"  {program} --dataset FOLDER   (images as train/<class>/*, test/<class>/*)"
        )
    except (ConfigError, RunFolderError, TrainingDivergedError) as error:
        _leave(str(error))
    except RunPausedError as pause:
        print(pause)
        raise SystemExit(PAUSED_STATUS) from None
    except KeyboardInterrupt:
        _leave("Interrupted. The same command with --resume continues.", status=130)


def _leave(message: str, status: int = 1) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
