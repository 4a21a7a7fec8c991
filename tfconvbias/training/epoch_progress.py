"""What a training shows while it runs: a bar on a terminal, a line after each epoch elsewhere."""

import time

import keras

from tfconvbias.terminal import bars, duration
from tfconvbias.training.execution import Execution


class EpochProgress(keras.callbacks.Callback):
    """Moves the open bars on with every step, or prints a line after every epoch.

    Args:
        execution: Says which of both, or neither.
        first: Epochs that were done before.
        epochs: Epochs in all.
        prefix: What the columns of the measured images begin with, such as `val_`.
    """

    def __init__(self, execution: Execution, first: int, epochs: int, prefix: str):
        super().__init__()
        self.style = execution.shown_as
        self.first = first
        self.epochs = epochs
        self.measured = {"val_": "validation", "test_": "test"}[prefix]

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.started = time.perf_counter()
        self.num_weights = sum(
            int(keras.ops.size(layer.kernel)) for layer in _with_kernel(self.model)
        )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.moved = 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.style == "bar":
            self._move((batch + 1) / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        done = epoch + 1
        text = ", ".join(self._figures(logs or {}))
        if self.style == "bar":
            self._move(1.0)
            bars.advance(0, f"epoch {done}/{self.epochs}: {text}")
        elif self.style == "line":
            seconds = (time.perf_counter() - self.started) / (done - self.first)
            left = (self.epochs - done) * seconds
            ending = f"; {duration(left)} left" if done < self.epochs else ""
            print(f"Epoch {done}/{self.epochs}: {text}{ending}", flush=True)

    def _move(self, share: float) -> None:
        bars.advance(share - self.moved)
        self.moved = share

    def _figures(self, logs: dict) -> list[str]:
        found = [f"loss {logs['loss']:.4g}"]
        for column, name in (("accuracy", "training"), ("val_accuracy", self.measured)):
            if column in logs:
                found.append(f"{name} {100 * logs[column]:.2f} %")
        counts = [value for name, value in logs.items() if name.startswith("nonzeros/")]
        nonzeros = int(sum(counts))
        if counts and nonzeros < self.num_weights:  # dense networks have none to tell of
            found.append(f"{nonzeros:,} of {self.num_weights:,} weights")
        return found


def _with_kernel(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if getattr(layer, "kernel", None) is not None]
