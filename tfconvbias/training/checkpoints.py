"""Weights and optimizer of a training under way, each file with a seal that says what it is."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path

from tfconvbias.lazy import keras
from tfconvbias.training.errors import RunFolderError
from tfconvbias.training.files import read_json, refusal, replacing, sha256, write_json

_SUFFIX = ".weights.h5"


class Checkpoints:
    """The checkpoints in a folder, `checkpoint-N.weights.h5` after epoch N, counted from 1.

    Beside each stands `checkpoint-N.json`, its seal: the epoch, the work it belongs to and the
    SHA-256 of the weights. A checkpoint that is damaged or belongs to other work is not used.

    Args:
        path: The folder.
        work: What the training is, as text that differs between different ones.
    """

    def __init__(self, path: Path, work: str):
        self.path = path
        self.work = work

    def latest(self) -> tuple[int, Path] | None:
        """Epoch and file of the newest checkpoint that is whole; `None` if there is none at all.

        What is wrong with newer ones is printed to the standard error stream.

        Raises:
            RunFolderError: If there are checkpoints and none of them can be used.
        """
        faults: list[str] = []
        for epoch, file in sorted(self._files().items(), reverse=True):
            fault = self._fault(epoch, file)
            if fault is None:
                for text in faults:
                    print(f"{text} Going on from epoch {epoch}.", file=sys.stderr)
                return epoch, file
            faults.append(f"{file} {fault}.")
        if faults:
            raise RunFolderError(
                f"{' '.join(faults)} No other checkpoint is left. Remove {self.path} to begin "
                "anew, or choose another --run-dir."
            )
        return None

    def save(self, model: keras.Model, epoch: int, num_kept: int, history: str) -> None:
        """Store weights and optimizer after an epoch, and drop all but the newest checkpoints.

        Args:
            model: A compiled model.
            epoch: The epoch, counted from 1.
            num_kept: How many checkpoints stay.
            history: Digest of the history until then.
        """
        file = self.path / f"checkpoint-{epoch}{_SUFFIX}"
        with replacing(file) as unfinished:
            model.save_weights(unfinished)
            self._write_seal(file, epoch, unfinished, history)
        self._keep(num_kept)

    def copy(self, epoch: int, other: Path, history: str) -> None:
        """Take over another training's checkpoint, as one of this training."""
        file = self.path / f"checkpoint-{epoch}{_SUFFIX}"
        with replacing(file) as unfinished:
            shutil.copyfile(other, unfinished)
            self._write_seal(file, epoch, unfinished, history)

    def drop(self) -> None:
        """Remove all checkpoints."""
        self._keep(0)

    def history_digest(self, epoch: int) -> str | None:
        """Digest of the history until an epoch, or `None` if its seal is of an earlier version."""
        return read_json(_seal(self.path / f"checkpoint-{epoch}{_SUFFIX}")).get("history")

    def _write_seal(self, file: Path, epoch: int, weights: Path, history: str) -> None:
        """Write a seal before the weights have their name, so that none is ever without."""
        seal = {"epoch": epoch, "work": self.work, "sha256": sha256(weights)}
        seal["history"] = history
        write_json(_seal(file), seal)

    def _keep(self, num_kept: int) -> None:
        files = self._files()
        for epoch in sorted(files)[: max(0, len(files) - num_kept)]:
            try:
                files[epoch].unlink()
                _seal(files[epoch]).unlink(missing_ok=True)
            except OSError as error:
                raise RunFolderError(
                    refusal(str(files[epoch]), error.errno or errno.EIO)
                ) from error

    def _files(self) -> dict[int, Path]:
        numbered = {}
        for file in self.path.glob(f"checkpoint-*{_SUFFIX}"):
            number = file.name.removeprefix("checkpoint-").removesuffix(_SUFFIX)
            if number.isdecimal():
                numbered[int(number)] = file
        return numbered

    def _fault(self, epoch: int, file: Path) -> str | None:
        """What is wrong with a checkpoint, as the end of a sentence, or `None`."""
        try:
            seal = read_json(_seal(file))
            stored = {name: seal[name] for name in ("epoch", "work", "sha256")}
        except (FileNotFoundError, KeyError, TypeError, RunFolderError):
            return f"has no {_seal(file).name} that says what it is"
        if stored["work"] != self.work:
            return "belongs to another training"
        try:
            is_whole = stored["epoch"] == epoch and stored["sha256"] == sha256(file)
        except OSError:
            is_whole = False
        return None if is_whole else "is damaged"


def _seal(file: Path) -> Path:
    return file.with_name(file.name.removesuffix(_SUFFIX) + ".json")
