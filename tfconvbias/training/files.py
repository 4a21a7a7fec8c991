"""Files that are complete or absent, whenever the process ends."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PREFIX = "unfinished-"


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a place beside a file to write to, and put what was written in the file's place.

    The content reaches the disk before the name does, so that a kill or a power cut leaves the
    previous file or the new one, never a part. The folder is made.

    Args:
        file: The file to write. What is yielded ends in the same suffix.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(PREFIX + file.name)
    yield unfinished
    with unfinished.open("rb+") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(file)


def write_text(file: Path, text: str) -> None:
    """Write a text file, as `replacing` does."""
    with replacing(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file, as `replacing` does."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal columns as CSV, as `replacing` does; floats read back equal."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(file, text.getvalue())


def read_json(file: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))
