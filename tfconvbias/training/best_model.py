"""The model of the best accuracy of a training under way, with a seal that says what it is."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from tfconvbias.lazy import keras
from tfconvbias.training.files import damaged, read_object, replacing, sha256, write_json


class BestModel:
    """`best.keras` in a folder, and `best.json`, which knows its epoch and its SHA-256.

    Args:
        path: The folder.
        work: What the training is, as text that differs between different ones.
    """

    NAME = "best.keras"

    def __init__(self, path: Path, work: str):
        self.file = path / self.NAME
        self.work = work
        self._seal = path / "best.json"

    def save(self, model: keras.Model, epoch: int) -> None:
        """Save a model so that a kill leaves the previous one or the new one, never a part.

        Args:
            model: The model.
            epoch: The epoch, counted from 1, that it comes from.
        """
        with replacing(self.file) as unfinished:
            model.save(unfinished)
            # A kill before the new file has its name leaves the previous one: both are known.
            before = list(self._epochs().items())[-1:]
            epochs = dict([*before, (sha256(unfinished), epoch)])
            write_json(self._seal, {"work": self.work, "epochs": epochs})

    def check(self, epoch: int, reached: int) -> None:
        """Check that the model is the one that was stored.

        Args:
            epoch: The epoch, counted from 1, that it should come from.
            reached: The last epoch that counts; a model of a later one will be written again.

        Raises:
            RunFolderError: If it is missing, damaged or another one.
        """
        if not self.file.is_file():
            raise damaged(self.file, "it is missing")
        epochs = self._epochs()
        stored = epochs.get(sha256(self.file))
        if epochs and stored != epoch and (stored is None or stored <= reached):
            raise damaged(self.file, "its content is not what was written")

    def load_into(self, model: keras.Model, epoch: int) -> None:
        """Load its weights into a model.

        Args:
            model: The model.
            epoch: The epoch, counted from 1, that they should come from.

        Raises:
            RunFolderError: If the file is missing, damaged or another one.
        """
        self.check(epoch, sys.maxsize)
        model.load_weights(self.file)

    def take_over(self, earlier: BestModel) -> None:
        """Take over the best model of another process at the same work, if there is one."""
        for mine, theirs in ((self._seal, earlier._seal), (self.file, earlier.file)):
            if theirs.exists():
                with replacing(mine) as unfinished:
                    shutil.copyfile(theirs, unfinished)

    def drop_seal(self) -> None:
        """Remove the seal of a training that is over, whose result seals the model."""
        with contextlib.suppress(OSError):
            self._seal.unlink(missing_ok=True)

    def _epochs(self) -> dict[str, int]:
        """Epoch of each model that the file may be, by SHA-256; empty where nothing is known.

        A run of an earlier version has no seal.
        """
        try:
            seal = read_object(self._seal)
        except FileNotFoundError:
            return {}
        if seal.get("work") != self.work or not isinstance(seal.get("epochs"), dict):
            raise damaged(self._seal, "it belongs to other work")
        return seal["epochs"]
