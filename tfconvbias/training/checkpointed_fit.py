"""Training that keeps a history and a checkpoint, and goes on where it was stopped."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfconvbias import callbacks, data
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.build import xla_pays
from tfconvbias.training.errors import TrainingDivergedError
from tfconvbias.training.run_folder import History

_BATCH = 500


def checkpointed_fit(
    model: keras.Model,
    dataset: data.ImageDataset,
    folder: Path,
    *,
    epochs: int,
    optimizer: keras.optimizers.Optimizer,
    batch_size: int,
    shuffle: bool,
    seed: int,
    checkpoint_every: int,
    verbose: str,
    extra: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train from the last checkpoint on, or from the weights as they are.

    A checkpoint holds the optimizer's state beside the weights, and batches and random layers are
    functions of seed and epoch, so that on CPU a resumed run equals an uninterrupted one.

    Args:
        model: a built classifier that puts out logits; it is compiled here.
        dataset: what to train on, and the test images to measure on.
        folder: where `history.csv` and the last checkpoint stand.
        epochs: epochs in all.
        optimizer: a new one; it is restored where there is a checkpoint.
        batch_size: images a step.
        shuffle: a new order each epoch, or the images' own order in all.
        seed: seed of the orders.
        checkpoint_every: epochs between checkpoints.
        verbose: `"line"` or `"silent"`.
        extra: callbacks that run before the checkpoint is written. What a `callbacks.Measurement`
            measures is kept in the history.

    Returns:
        Columns epoch, loss, accuracy, test_loss, test_accuracy and those of the measurements; the
        row of epoch 0 is measured before the first step.

    Raises:
        TrainingDivergedError: If the loss became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=xla_pays(),
    )
    # Without its slots, what a checkpoint holds of the optimizer would be skipped.
    optimizer.build(model.trainable_variables)
    measurements = [watcher for watcher in extra if isinstance(watcher, callbacks.Measurement)]
    columns = [name for watcher in measurements for name in watcher.names]
    keeper = _Keeper(folder, epochs, checkpoint_every, columns)
    first = keeper.resume(model)
    file = folder / "history.csv"
    if first == 0:
        start: dict[str, float] = {"epoch": 0}
        for prefix, split in (("", "train"), ("test_", "test")):
            found = model.evaluate(
                *dataset.split(split), batch_size=_BATCH, verbose=0, return_dict=True
            )
            start |= {f"{prefix}{key}": found[key] for key in ("loss", "accuracy")}
        for watcher in measurements:
            watcher.set_model(model)
            start |= watcher.measure(start)
        file.write_text("", encoding="utf-8")
        _append(file, start)
    guard = callbacks.StopOnNonFiniteLoss()
    if shuffle:
        order = ShuffledBatches(dataset.x_train, dataset.y_train, batch_size, seed)
        fit: dict[str, Any] = {"x": order.stream(first), "steps_per_epoch": order.num_batches}
    else:
        fit = {"x": dataset.x_train, "y": dataset.y_train, "batch_size": batch_size}
    if first < epochs:
        model.fit(
            **fit,
            shuffle=False,
            validation_data=dataset.split("test"),
            validation_batch_size=_BATCH,
            initial_epoch=first,
            epochs=epochs,
            callbacks=[callbacks.EpochSeeds(seed), guard, *extra, keeper],
            verbose=2 if verbose == "line" else 0,
        )
    history = read_history(file)
    # The last step's harm shows in the test loss alone.
    if guard.diverged is not None or not math.isfinite(history["test_loss"][-1]):
        raise TrainingDivergedError(
            f"The loss of {folder.name} became NaN or infinite behind epoch "
            f"{history['epoch'][-1]:.0f}. A lower learning rate may help."
        )
    return history


def read_history(file: Path) -> History:
    """The columns of a `history.csv`."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


class _Keeper(keras.callbacks.Callback):
    """Writes a history row an epoch, and the weights every few epochs and at the end."""

    def __init__(self, folder: Path, epochs: int, every: int, columns: Sequence[str]):
        super().__init__()
        self.folder = folder
        self.epochs = epochs
        self.every = every
        self.columns = columns

    def resume(self, model: keras.Model) -> int:
        """Load the last checkpoint and drop the history behind it; the epochs done."""
        found = {int(f.name.split("-")[1].split(".")[0]): f for f in self._files()}
        if not found:
            return 0
        done = max(found)
        model.load_weights(found[done])
        file = self.folder / "history.csv"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[: done + 2]), encoding="utf-8")
        return done

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the epoch, unless the guard has stopped the run."""
        if self.model.stop_training:
            return
        found = logs or {}
        row = {"epoch": epoch + 1, "loss": found["loss"], "accuracy": found["accuracy"]}
        row |= {f"test_{key}": found[f"val_{key}"] for key in ("loss", "accuracy")}
        row |= {name: found[name] for name in self.columns}
        _append(self.folder / "history.csv", row)
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            older = self._files()
            unfinished = self.folder / "unfinished.weights.h5"
            self.model.save_weights(unfinished)
            unfinished.replace(self.folder / f"checkpoint-{epoch + 1}.weights.h5")
            for file in older:
                file.unlink()

    def _files(self) -> list[Path]:
        return list(self.folder.glob("checkpoint-*.weights.h5"))


def _append(file: Path, row: Mapping[str, float]) -> None:
    is_new = not file.exists() or file.stat().st_size == 0
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
