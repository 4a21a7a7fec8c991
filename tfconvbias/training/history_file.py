"""The history of a training on disk: one row per epoch."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfconvbias.training.errors import RunFolderError
from tfconvbias.training.files import damaged, write_rows

Row = dict[str, float]
"""Column → value of an epoch."""


class HistoryFile:
    """`history.csv` in a folder; floats read back equal.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.file = path / "history.csv"

    def rows(self, digest: str | None = None) -> list[Row]:
        """The rows, of which epochs count from 1, or from 0 where the start was measured.

        Args:
            digest: What `digest` of them should be; `None`: anything.

        Raises:
            RunFolderError: If the file is damaged.
        """
        if not self.file.exists():
            return self._checked([], digest)
        try:
            with self.file.open(newline="", encoding="utf-8") as stream:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
            epochs = [row["epoch"] for row in rows]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error):
            epochs, rows = [-1.0], []
        expected = [epochs[0] + k for k in range(len(epochs))] if epochs else []
        if epochs != expected or epochs[:1] not in ([], [0.0], [1.0]):
            raise RunFolderError(
                f"{self.file} is damaged. Remove {self.file.parent} to begin anew, or choose "
                "another --run-dir."
            )
        return self._checked(rows, digest)

    def truncate(self, epoch: int, digest: str | None = None) -> None:
        """Drop the rows after an epoch.

        Args:
            epoch: The epoch; if it is above 0 there is a checkpoint of it, and so must be its row.
            digest: What `digest` of the rows that are left should be; `None`: anything.

        Raises:
            RunFolderError: If the file is damaged, or does not reach that epoch.
        """
        rows = self.rows()
        kept = [row for row in rows if row["epoch"] <= epoch]
        if epoch > 0 and (not kept or kept[-1]["epoch"] != epoch):
            raise RunFolderError(
                f"{self.file} ends before epoch {epoch}, of which there is a checkpoint. Remove "
                f"{self.file.parent} to begin anew, or choose another --run-dir."
            )
        self._checked(kept, digest)
        if len(kept) < len(rows):
            self.write(kept)

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write all rows, so that a kill leaves the previous file or the new one."""
        write_rows(self.file, [{**row, "epoch": int(row["epoch"])} for row in rows])

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row."""
        self.write([*self.rows(), row])

    def _checked(self, rows: list[Row], stored: str | None) -> list[Row]:
        if stored is not None and digest(rows) != stored:
            raise damaged(self.file, "its content is not what was written")
        return rows


def digest(rows: Sequence[Mapping[str, float]]) -> str:
    """Text that is equal for equal rows."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
