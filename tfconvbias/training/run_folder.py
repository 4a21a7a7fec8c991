"""What a run leaves on disk, and how it is found again."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import keras

from tfconvbias.training.claimed_folder import check_folder, write_json
from tfconvbias.training.run_config import RunConfig

History = dict[str, list[float]]


class RunFolder:
    """One run on disk.

    ```
    config.json     the resolved configuration
    environment.json  versions, commit, hardware
    history.csv     a row an epoch
    checkpoint-N.keras  model and optimizer after epoch N, while the run goes on
    last.keras      model and optimizer after the last epoch
    best.keras      model of the best validation accuracy
    result.json     the results row, once the run is complete
    tensorboard/    logs
    figures/, report.html
    ```

    A file is complete or absent: it is written beside its place and then renamed.

    Args:
        path: the folder; it is made by `create`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def last_model(self) -> Path:
        """Model and optimizer after the last epoch."""
        return self.path / "last.keras"

    @property
    def best_model(self) -> Path:
        """Model of the best validation accuracy."""
        return self.path / "best.keras"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard logs."""
        return self.path / "tensorboard"

    def check(self, config: RunConfig) -> None:
        """Check that the folder is free, or holds this very run and may be continued.

        Raises:
            RunFolderError: If the folder holds another configuration, holds this run but
                `config.resume` is off, or holds files that are not a run.
        """
        check_folder(self.path / "config.json", config.identity(), config.resume)

    def create(self, config: RunConfig) -> None:
        """Make the folder and store the configuration, which claims it for this run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "config.json", config.identity())

    def config(self) -> dict[str, Any]:
        """The stored configuration."""
        return self._read_json("config.json")

    def result(self) -> dict[str, Any] | None:
        """The results row, or `None` while the run is not complete."""
        return self._read_json("result.json") if (self.path / "result.json").exists() else None

    def environment(self) -> dict[str, Any]:
        """Versions, commit and hardware of the run."""
        return self._read_json("environment.json")

    def write_result(self, result: dict[str, Any]) -> None:
        """Store the results row, which marks the run as complete."""
        write_json(self.path / "result.json", result)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Store versions, commit and hardware."""
        write_json(self.path / "environment.json", environment)

    def save_model(self, model: keras.Model, file: Path) -> None:
        """Save a model so that a kill leaves the previous one or the new one, never a part."""
        unfinished = file.with_name(f"unfinished-{file.name}")
        model.save(unfinished)
        unfinished.replace(file)

    def checkpoint(self) -> tuple[int, Path] | None:
        """Number of epochs behind the newest checkpoint, and its file; `None` without one."""
        if self.last_model.exists():
            return self.config()["epochs"], self.last_model
        found = [(int(file.stem.split("-")[1]), file) for file in self._checkpoints()]
        return max(found, default=None)

    def save_checkpoint(self, model: keras.Model, epoch: int) -> None:
        """Store model and optimizer after an epoch, counted from 1, and drop the older ones."""
        older = self._checkpoints()
        is_last = epoch == self.config()["epochs"]
        file = self.last_model if is_last else self.path / f"checkpoint-{epoch}.keras"
        self.save_model(model, file)
        for name in older:
            if name != file:
                name.unlink()

    def history(self) -> History:
        """Column → value an epoch, epochs counted from 1."""
        file = self.path / "history.csv"
        if not file.exists():
            return {}
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}

    def append_history(self, row: dict[str, float]) -> None:
        """Add an epoch's row; floats are written so that they read back equal."""
        file = self.path / "history.csv"
        is_new = not file.exists()
        with file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
            stream.flush()
            os.fsync(stream.fileno())

    def truncate_history(self, epochs: int) -> None:
        """Drop the rows behind the last checkpoint, which will be run again."""
        file = self.path / "history.csv"
        if not file.exists():
            return
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        unfinished = file.with_name("unfinished-history.csv")
        unfinished.write_text("".join(lines[: epochs + 1]), encoding="utf-8")
        unfinished.replace(file)

    def _checkpoints(self) -> list[Path]:
        return list(self.path.glob("checkpoint-*.keras"))

    def _read_json(self, name: str) -> dict[str, Any]:
        return json.loads((self.path / name).read_text(encoding="utf-8"))
