"""What a training leaves on disk, and how it is found again."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import filelock

from tfconvbias.arguments import checked
from tfconvbias.lazy import data, keras
from tfconvbias.training.best_model import BestModel
from tfconvbias.training.checkpoints import Checkpoints
from tfconvbias.training.config import Config
from tfconvbias.training.data_config import DataConfig, build_dataset
from tfconvbias.training.errors import RunFolderError
from tfconvbias.training.files import (
    PREFIX,
    damaged,
    place_of,
    read_object,
    read_sealed,
    refusal,
    replacing,
    sha256,
    write_json,
    write_sealed,
)
from tfconvbias.training.history_file import HistoryFile, digest

LOGS = "logs"
"""Where a study keeps what its runs print in other processes."""

History = dict[str, list[float]]
"""Column → one value per epoch."""


@checked
class Images(Protocol):
    """What tells images from others wherever they lie; a `data.ImageDataset` has both."""

    @property
    def name(self) -> str:
        """A short name."""

    @property
    def digest(self) -> str:
        """Equal for equal images."""


@checked
class RunFolder:
    """One piece of work on disk: a training, or a study that keeps trainings in subfolders.

    ```
    config.json       the fields that decide the result, the backend, a digest of the images
    environment.json  versions, commit, hardware
    history.csv       one row per epoch
    checkpoint-N.weights.h5   weights and optimizer after epoch N, while the training goes on
    checkpoint-N.json         what they belong to, and their SHA-256
    best.keras        model of the best validation accuracy
    best.json         its epoch and SHA-256, while the training goes on
    last.keras        model and optimizer after the last epoch
    result.json       the results row, once the work is complete
    lock              held by the process that works here
    tensorboard/      logs
    logs/             what the runs of a study print where they have processes of their own
    figures/, report.html
    ```

    A file is complete or absent: it is written beside its place and then renamed.

    Args:
        path: The folder; it is made by `claim`.
        owner: The folder of the study that this training is a part of.
    """

    def __init__(self, path: str | Path, owner: RunFolder | None = None):
        self.path = Path(path)
        self._owner = owner
        self._history = HistoryFile(self.path)

    @property
    def last_model(self) -> Path:
        """Model and optimizer after the last epoch."""
        return self.path / "last.keras"

    @property
    def best_model(self) -> Path:
        """Model of the best validation accuracy."""
        return self.path / BestModel.NAME

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard logs."""
        return self.path / "tensorboard"

    @property
    def is_claimed(self) -> bool:
        """Whether the folder holds a configuration."""
        return (self.path / "config.json").exists()

    def part(self, name: str) -> RunFolder:
        """The folder of one training of a study."""
        return RunFolder(self.path / name, self)

    def check(
        self,
        config: Config,
        resume: bool,
        dataset: Images | None = None,
        kind: str = "run",
    ) -> bool:
        """Check that the folder is free, or holds this very work and may be continued.

        Args:
            config: What is to be done.
            resume: Whether work that is there already may be continued.
            dataset: The images on which it is to be done.
            kind: What the folder holds, for messages.

        Returns:
            Whether the folder holds this work already.

        Raises:
            RunFolderError: If the folder holds another configuration or other images, holds this
                work while `resume` is off, or holds files without a configuration.
        """
        if not self.is_claimed:
            if self.path.exists() and any(
                file.name not in ("lock", LOGS) and not file.name.startswith(PREFIX)
                for file in self.path.iterdir()
            ):
                raise RunFolderError(
                    f"{self.path} is not empty and holds no {kind}. Choose another --run-dir."
                )
            return False
        self.check_same(config, dataset, kind)
        if not resume:
            raise RunFolderError(
                f"{self.path} already holds this {kind}. Continue it with --resume, "
                "or choose another --run-dir."
            )
        return True

    def check_same(self, config: Config, dataset: Images | None = None, kind: str = "run") -> None:
        """Check that the folder holds this configuration.

        Raises:
            RunFolderError: If it holds another one; the message lists the fields that differ.
        """
        stored, wanted = self.config(), _identity(config, dataset)
        different = ", ".join(
            f"{name}: {stored.get(name)!r} there, {wanted.get(name)!r} asked for"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name)
        )
        if different:
            raise RunFolderError(
                f"{self.path} holds a {kind} with another configuration ({different}). "
                "Choose another --run-dir."
            )

    def claim(self, config: Config, dataset: Images | None = None) -> None:
        """Make the folder and store the configuration, which claims it for this work.

        Raises:
            RunFolderError: If the folder cannot be written.
        """
        write_json(self.path / "config.json", _identity(config, dataset))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out while this one works here.

        The operating system drops the lock when the process ends, however it ends.

        Raises:
            RunFolderError: If another process holds the folder, or it cannot be written.
        """
        lock = filelock.FileLock(self.path / "lock", blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise RunFolderError(
                f"Another process is at work in {self.path}. Wait until it ends, or choose "
                "another --run-dir."
            ) from error
        except OSError as error:
            raise RunFolderError(refusal(str(self.path), error.errno or errno.EIO)) from error
        try:
            yield
        finally:
            lock.release()

    def config(self) -> dict[str, Any]:
        """The stored configuration."""
        return read_object(self.path / "config.json")

    def dataset(self, name: str | None = None, data_dir: str | None = None) -> data.ImageDataset:
        """Load the images on which the training was done.

        Args:
            name: A named data set or a folder of images. By default the name that the run folder
                knows, which is enough unless the images came from a folder.
            data_dir: Where TensorFlow Datasets keeps its files.

        Raises:
            ConfigError: If there is no such data set.
            RunFolderError: If it holds other images.
        """
        stored = self.config()
        fields = {field.name for field in dataclasses.fields(DataConfig)} & stored.keys()
        label = stored["images"].rsplit(" ", 1)[0]
        config = DataConfig(
            dataset=name or label, data_dir=data_dir, **{key: stored[key] for key in fields}
        )
        found = build_dataset(config)
        if _label(found) != stored["images"]:
            raise RunFolderError(
                f"The model in {self.path} was trained on other images than those of "
                f"{config.dataset!r} ({stored['images']} there, {_label(found)} here)."
            )
        return found

    def result(self) -> dict[str, Any] | None:
        """The results row, or `None` while the work is not complete."""
        return self._sealed_result()[0]

    def environment(self) -> dict[str, Any]:
        """Versions, commit and hardware of the training."""
        return read_object(self.path / "environment.json")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Store the results row, which marks the work as complete.

        Its seal holds digests of the history and of the models, which nothing changes any more.
        """
        models = [file for file in (self.last_model, self.best_model) if file.exists()]
        write_sealed(
            self.path / "result.json",
            result,
            place_of(self.path) or "",
            history=digest(self._history.rows()),
            models={file.name: sha256(file) for file in models},
        )

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Store versions, commit and hardware."""
        write_json(self.path / "environment.json", environment)

    def save_model(self, model: keras.Model, file: Path) -> None:
        """Save a model so that a kill leaves the previous one or the new one, never a part."""
        with replacing(file) as unfinished:
            model.save(unfinished)

    @property
    def best(self) -> BestModel:
        """The model of the best accuracy, while the training goes on."""
        return BestModel(self.path, self._work())

    @checked
    def load_model(self, file: Path, compile: bool = True) -> keras.Model:
        """Load the last or the best model of finished work, if it is the one that was stored.

        Args:
            file: `last_model` or `best_model`.
            compile: As of `keras.saving.load_model`.

        Raises:
            RunFolderError: If it is missing, damaged or another one.
        """
        if not file.is_file():
            raise damaged(file, "it is missing")
        stored = self._sealed_result()[1].get("models", {}).get(file.name)
        if stored is not None and stored != sha256(file):
            raise damaged(file, "its content is not what was written")
        return keras.saving.load_model(file, compile=compile)

    def checkpoint(self) -> tuple[int, Path] | None:
        """The newest whole checkpoint: the number of its epoch, and its file; `None` without one.

        Raises:
            RunFolderError: If there are checkpoints and none of them can be used.
        """
        return self._checkpoints().latest()

    def save_checkpoint(self, model: keras.Model, epoch: int, num_kept: int = 2) -> None:
        """Store weights and optimizer after an epoch, counted from 1; drop all but the newest."""
        self._checkpoints().save(model, epoch, num_kept, digest(self._history.rows()))

    def take_over(self, earlier: RunFolder) -> None:
        """Start from another training's end: its newest checkpoint, and its history until there.

        Raises:
            RunFolderError: If it holds no whole checkpoint.
        """
        found = earlier.checkpoint()
        if found is None:
            raise RunFolderError(f"{earlier.path} holds no checkpoint to go on from.")
        epoch, file = found
        rows = [row for row in earlier._history.rows() if row["epoch"] <= epoch]
        self._history.write(rows)
        self._checkpoints().copy(epoch, file, digest(rows))

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a training that is over."""
        self._checkpoints().drop()
        self.best.drop_seal()

    def history(self) -> History:
        """The columns of the history, one value per epoch; empty before the first one.

        Raises:
            RunFolderError: If the file is damaged.
        """
        rows = self._history.rows(self._sealed_result()[1].get("history"))
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def append_history(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row; floats are written so that they read back equal."""
        self._history.append(row)

    def truncate_history(self, epochs: int) -> None:
        """Drop the rows after an epoch, which will be run again.

        Raises:
            RunFolderError: If the file is damaged, or does not reach that epoch.
        """
        stored = self._checkpoints().history_digest(epochs) if epochs > 0 else None
        self._history.truncate(epochs, stored)

    def _sealed_result(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The results row and its seal, or `None` and no seal."""
        try:
            return read_sealed(self.path / "result.json", place_of(self.path))
        except FileNotFoundError:
            return None, {}

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path, self._work())

    def _work(self) -> str:
        """What is done here, as text that differs between different work."""
        file = self.path / "config.json"
        if file.exists():
            return hashlib.sha256(file.read_bytes()).hexdigest()
        return f"{self._owner._work()} {self.path.name}" if self._owner else ""


def _identity(config: Config, dataset: Images | None) -> dict[str, Any]:
    # The backends draw different random numbers.
    found = {**config.identity(), "backend": keras.config.backend()}
    if dataset is not None:
        found["images"] = _label(dataset)
    # As JSON holds it: lists for tuples.
    return json.loads(json.dumps(found))


def _label(dataset: Images) -> str:
    return f"{dataset.name} {dataset.digest}"
