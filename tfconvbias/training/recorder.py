"""What is written after each epoch of a training: history, best model and checkpoint."""

import math
import time
from pathlib import Path

import keras

from tfconvbias.training.devices import Devices
from tfconvbias.training.errors import RunPausedError, TrainingDivergedError
from tfconvbias.training.execution import Deadline, Execution
from tfconvbias.training.run_folder import RunFolder

# Where the configuration leaves it open, checkpoints take at most one part in so many of the time.
_CHECKPOINT_SHARE = 20


class Recorder(keras.callbacks.Callback):
    """Write history row, best model and checkpoint, in this order: the checkpoint counts.

    Between checkpoints the best weights are kept on the device, since a large model takes longer
    to write than an epoch does.
    """

    def __init__(
        self,
        folder: RunFolder,
        epochs: int,
        prefix: str,
        keep_best: bool,
        execution: Execution,
        deadline: Deadline,
        devices: Devices,
    ):
        super().__init__()
        self.folder = folder
        self.epochs = epochs
        self.prefix = prefix
        self.keep_best = keep_best
        self.execution = execution
        self.deadline = deadline
        self.devices = devices
        accuracies = folder.history().get(f"{prefix}accuracy", [])
        self.best = max(accuracies, default=float("-inf"))
        self.best_epoch = 0
        if accuracies and keep_best:
            history = folder.history()
            self.best_epoch = int(history["epoch"][accuracies.index(self.best)])
            if self.best_epoch > 0:
                folder.best.check(self.best_epoch, int(history["epoch"][-1]))
        self.best_weights: list | None = None
        self.paused: int | None = None
        self.diverged: int | None = None
        self.started = self.trained = 0.0
        self.save_seconds = 0.0
        self.saved_at = float("-inf")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:
        # Reading it waits for the epoch's last step.
        int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        found = {
            name.replace("val_", self.prefix, 1) if name.startswith("val_") else name: value
            for name, value in (logs or {}).items()
        }
        # The last step's harm shows in the measured loss alone.
        if not math.isfinite(found["loss"]) or not math.isfinite(found[f"{self.prefix}loss"]):
            self.diverged = epoch + 1
            self.model.stop_training = True
            return
        now = time.perf_counter()
        self.folder.append_history(
            history_row(
                self.model, epoch + 1, found, self.trained - self.started, now - self.started
            )
        )
        accuracy = found[f"{self.prefix}accuracy"]
        if self.keep_best and accuracy > self.best:
            self.best, self.best_epoch = accuracy, epoch + 1
            self.best_weights = [keras.ops.copy(weight) for weight in self.model.weights]
        is_last = epoch + 1 == self.epochs
        # Another epoch and its checkpoint would end after the time limit.
        ahead = (time.perf_counter() - self.started) + 2 * self.save_seconds
        is_over, is_due = self._agree(
            not is_last and self.deadline.is_over(ahead), self._is_due(epoch + 1)
        )
        if is_last or is_over or is_due:
            self._save(epoch + 1, num_kept=1 if is_last else 2)
        if is_over:
            self.paused = epoch + 1
            self.model.stop_training = True

    def _agree(self, is_over: bool, is_due: bool) -> tuple[bool, bool]:
        """Whether any process must stop, and whether the chief wants a checkpoint."""
        answers = self.devices.gather(2 * is_over + is_due)
        return any(answer & 2 for answer in answers), bool(answers[0] & 1)

    def _is_due(self, epoch: int) -> bool:
        every = self.execution.checkpoint_every
        if every is not None:
            return epoch % every == 0
        return time.perf_counter() - self.saved_at >= _CHECKPOINT_SHARE * self.save_seconds

    def _save(self, epoch: int, num_kept: int) -> None:
        begun = time.perf_counter()
        if self.best_weights is not None:
            last = [keras.ops.copy(weight) for weight in self.model.weights]
            self._assign(self.best_weights)
            self.folder.best.save(self.model, self.best_epoch)
            self._assign(last)
            self.best_weights = None
        self.folder.save_checkpoint(self.model, epoch, num_kept)
        self.saved_at = time.perf_counter()
        self.save_seconds = self.saved_at - begun

    def _assign(self, values: list) -> None:
        for weight, value in zip(self.model.weights, values, strict=True):
            weight.assign(value)

    def raise_if_stopped(self) -> None:
        """Say why the training ended before its last epoch, if it did."""
        if self.diverged is not None:
            raise TrainingDivergedError(
                f"The loss of {self.folder.path} became NaN or infinite in epoch {self.diverged}. "
                f"{_kept(self.folder.checkpoint())} A lower learning rate may help."
            )
        if self.paused is not None:
            raise RunPausedError(
                f"Stopped after epoch {self.paused} of {self.epochs} in {self.folder.path}: "
                f"{self.deadline.reason}, or would be after another one. "
                "The same command with --resume continues."
            )


def history_row(
    model: keras.Model, epoch: int, logs: dict, train_seconds: float, seconds: float
) -> dict[str, float]:
    """The row of an epoch: its number, its rate, what was measured, and the time it took."""
    return {
        "epoch": epoch,
        "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
        **logs,
        "train_seconds": round(train_seconds, 4),
        "seconds": round(seconds, 4),
    }


def _kept(checkpoint: tuple[int, Path] | None) -> str:
    if checkpoint is None:
        return "No epoch ended with a finite loss, so no weights were kept."
    return f"The last good weights are {checkpoint[1]}."
