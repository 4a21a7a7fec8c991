"""Files that are complete or absent, whenever the process ends."""

import contextlib
import csv
import errno
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.training.errors import RunFolderError

PREFIX = "unfinished-"


@contextlib.contextmanager
@checked
def replacing(file: Path) -> Iterator[Path]:
    """Give a place beside a file to write to, and put what was written in the file's place.

    The content reaches the disk before the name does, so that a kill or a power cut leaves the
    previous file or the new one, never a part. The folder is made.

    Args:
        file: The file to write. What is yielded ends in the same suffix.

    Raises:
        RunFolderError: If the machine refuses to write, for example since the disk is full. The
            previous file stays as it was.
    """
    unfinished = file.with_name(PREFIX + file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        with unfinished.open("rb+") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        number = system_error_number(error)
        if number is None:
            raise
        raise RunFolderError(refusal(str(file), number)) from error


def system_error_number(error: Exception) -> int | None:
    """The operating system's number of an error, which HDF5 only has in its text; or `None`."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"errno = (\d+)", str(error))
    return int(found.group(1)) if found else None


def refusal(place: str, number: int) -> str:
    """What a user can do when the operating system refuses to write somewhere."""
    advice = "Choose another --run-dir."
    if number in (errno.ENOSPC, errno.EDQUOT):
        advice = (
            "What was stored before is intact. Make room, and the same command with --resume "
            "continues; or choose another --run-dir."
        )
    return f"{place} cannot be written ({os.strerror(number)}). {advice}"


@checked
def write_text(file: Path, text: str) -> None:
    """Write a text file, as `replacing` does."""
    with replacing(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@checked
def write_json(file: Path, content: Any) -> None:
    """Write a JSON file, as `replacing` does."""
    write_text(file, json.dumps(content, indent=1) + "\n")


@checked
def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal columns as CSV, as `replacing` does; floats read back equal."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(file, text.getvalue())


@checked
def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunFolderError: If it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(
            f"{file} is damaged ({error}). Remove {file.parent} to begin anew, or choose another "
            "--run-dir."
        ) from error
