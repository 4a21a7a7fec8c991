"""`tcb report` and `tcb compare`: pages of runs that are finished."""

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path

from tfconvbias import terminal
from tfconvbias.commands.listing import check_folder, run_folders
from tfconvbias.commands.names import CommandError
from tfconvbias.training import RunFolderError, table, write_report
from tfconvbias.training.report import command_of, in_short
from tfconvbias.training.run_folder import RunFolder


def report(folders: Sequence[str]) -> None:
    """Write the page of every finished run in the folders, those of damaged runs aside.

    Raises:
        CommandError: If a folder does not exist or holds no finished run; after all others, if some
            are damaged.
    """
    damaged: list[str] = []
    runs = [run for name in folders for run in _finished(name, damaged)]
    total = len(runs) + len(damaged)
    terminal.import_keras()
    for run in runs:
        name = table.label(run.result() or {})
        path = run.path / "report.html"
        try:
            page = write_report({name: run}, path, name, command=command_of(run))
        except RunFolderError as error:
            damaged.append(str(error))
        else:
            print(f"Report: {page}", flush=True)
    if damaged:
        raise CommandError(f"{len(damaged)} of {total} runs have no page: {' '.join(damaged)}")


def compare_runs(folders: Sequence[str], output: str, title: str) -> None:
    """Set finished runs side by side: print their table and write one page.

    Raises:
        CommandError: If a folder does not exist or holds no finished run, or there is only one.
    """
    runs = list({run.path.resolve(): run for name in folders for run in _finished(name)}.values())
    if len(runs) < 2:
        raise CommandError(
            f"A comparison needs two finished runs or more. Received: {runs[0].path} alone"
        )
    terminal.import_keras()
    labelled = dict(zip(labels([run.path for run in runs]), runs, strict=True))
    rows = {name: run.result() or {} for name, run in labelled.items()}
    print(in_short(rows), flush=True)
    command = shlex.join(
        ["tcb", "compare", *folders, "--output", output, *(["--title", title] if title else [])]
    )
    page = write_report(labelled, Path(output) / "report.html", title, command=command)
    print(f"Report: {page}")


def labels(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart.

    Example:
        >>> labels([Path("a/s-conv"), Path("a/s-fc")])
        ['s-conv', 's-fc']
        >>> labels([Path("a/s-conv"), Path("b/s-conv")])
        ['a/s-conv', 'b/s-conv']
    """
    parts = [path.absolute().parts for path in paths]
    for number in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-number:]) for part in parts]
        if len(set(found)) == len(found):
            break
    return found


def _finished(name: str, damaged: list[str] | None = None) -> list[RunFolder]:
    """The finished runs in a folder; what is wrong with damaged ones is added to the list."""
    folder = Path(name)
    parent = folder.parent
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, names, n=1)
    check_folder(name, f" Did you mean {str(parent / near[0])!r}?" if near else "")
    runs = run_folders(folder)
    found = []
    for run in runs:
        try:
            row = run.result() or {}
        except RunFolderError as error:
            if damaged is None:
                raise
            damaged.append(str(error))
        else:
            found += [run] if "kernel_parameters" in row else []
    if not found and not damaged:
        state = "the runs in it are not finished" if runs else "it holds no run"
        raise CommandError(f"{name!r} has nothing to report: {state}.")
    return found
