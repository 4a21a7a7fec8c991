"""A study's folder: claimed before the first row is made; each row is complete or absent."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfconvbias import training

Row = dict[str, Any]


@contextlib.contextmanager
def claimed(
    folder: training.RunFolder,
    config: training.Kept,
    kind: str,
    images: training.Images | None = None,
) -> Iterator[None]:
    """Claim a study's folder, which is free or holds this very study, and keep others out of it.

    Args:
        folder: The folder.
        config: The study's configuration.
        kind: What the folder holds, for messages.
        images: The images that are studied.

    Raises:
        RunFolderError: If the folder holds something else, holds this study while `resume` is off,
            or cannot be written; or if another process is at work in it.
    """
    folder.check(config, config.resume, images, kind)
    with folder.locked():
        folder.claim(config, images)
        folder.write_environment(training.environment())
        yield


def stored_row(
    folder: training.RunFolder, name: str, make: Callable[[], Row], deadline: training.Deadline
) -> Row:
    """A row: read from `rows/<name>.json` in the folder if it is there, else made and written.

    The file appears when the row is complete, so that a killed study loses one row at most.

    Args:
        folder: The study's folder.
        name: The row's name in the folder.
        make: What makes the row.
        deadline: When to stop making rows; those on disk are read at any time.

    Raises:
        RunPausedError: If the row is not there and the time is over.
    """
    file = row_file(folder, name)
    if file.exists():
        return training.read_sealed(file, name)[0]
    deadline.pause_before(name)
    row = make()
    training.write_sealed(file, row, name)
    return row


def row_file(folder: training.RunFolder, name: str) -> Path:
    """Where a row is kept."""
    return folder.path / "rows" / f"{name}.json"
