"""Files that are complete or absent, whenever the process ends."""

import contextlib
import csv
import errno
import hashlib
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
        # Class names may hold bytes of file names that are no text.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


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
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file, str(error)) from error


@checked
def read_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
        RunFolderError: If it is damaged.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise damaged(file, "it holds no JSON object")
    return content


def damaged(file: Path, why: str) -> RunFolderError:
    """The error of a file that does not hold what was written to it."""
    return RunFolderError(
        f"{file} is damaged ({why}). Remove {file.parent} to begin anew, or choose another "
        "--run-dir."
    )


@checked
def write_sealed(file: Path, row: Mapping[str, Any], work: str, **seal: Any) -> None:
    """Write an object as JSON, with a seal by which `read_sealed` knows it again.

    Args:
        file: The file.
        row: The object.
        work: What it belongs to.
        **seal: What else the seal holds.
    """
    sealed = {**seal, "work": work}
    # As JSON gives it back, in which keys are text and tuples are lists.
    content = json.loads(json.dumps(row))
    write_json(file, {**row, _SEAL: {**sealed, "sha256": _digest(content, sealed)}})


@checked
def read_sealed(file: Path, work: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """An object and its seal; files of earlier versions have none, which leaves it empty.

    Args:
        file: The file.
        work: What it must belong to, or `None` if that is not known.

    Raises:
        RunFolderError: If the file is damaged or belongs to something else.
    """
    row = read_object(file)
    seal = row.pop(_SEAL, {})
    try:
        sealed = {name: value for name, value in seal.items() if name != "sha256"}
        is_whole = not seal or seal["sha256"] == _digest(row, sealed)
    except (AttributeError, KeyError):
        is_whole = False
    if not is_whole:
        raise damaged(file, "its content is not what was written")
    if seal and work is not None and sealed["work"] != work:
        raise damaged(file, "it belongs to other work")
    return row, seal


@checked
def place_of(folder: Path) -> str | None:
    """What rows in a folder belong to: the nearest configuration, and the way from there.

    It stays the same where the configured folder moves; `None` without any configuration.
    """
    for claimed in (folder, *folder.parents):
        file = claimed / "config.json"
        if file.is_file():
            return f"{sha256(file)} {folder.relative_to(claimed).as_posix()}"
    return None


_SEAL = "seal"


def _digest(row: Any, sealed: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([row, sealed], sort_keys=True).encode()).hexdigest()


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
