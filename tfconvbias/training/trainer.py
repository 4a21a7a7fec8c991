"""The one training loop: batches, history, checkpoints, resuming, and an end in time."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from tfconvbias import callbacks, data
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.device_epochs import DeviceEpochs
from tfconvbias.training.devices import Devices
from tfconvbias.training.environment import accelerators
from tfconvbias.training.errors import ConfigError, RunPausedError, TrainingDivergedError
from tfconvbias.training.execution import Deadline, Execution
from tfconvbias.training.run_folder import History, RunFolder

# Where the configuration leaves it open, checkpoints take at most one part in so many of the time.
_CHECKPOINT_SHARE = 20

_PREFIXES = {"train": "", "validation": "val_", "test": "test_"}


def fit(
    model: keras.Model,
    dataset: data.ImageDataset,
    folder: RunFolder,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    measured_on: str = "validation",
    measure_start: bool = False,
    keep_best: bool = False,
    watchers: Sequence[keras.callbacks.Callback] = (),
    execution: Execution | None = None,
    deadline: Deadline | None = None,
    devices: Devices | None = None,
) -> History:
    """Train a compiled classifier from its last checkpoint on, or from its weights as they are.

    A checkpoint holds the optimizer's state beside the weights, and batches, augmentation and
    dropout are functions of seed and epoch. So on a CPU a resumed training ends with the same
    numbers as an uninterrupted one. Every epoch adds a row to the history: `epoch` (counted from
    1), `learning_rate`, what Keras logs (`loss`, `accuracy`), the same on the images it is measured
    on (`val_…` or `test_…`), what the watchers add to the logs, `train_seconds` and `seconds`.

    Args:
        model: A built model, compiled with a metric named `accuracy`.
        dataset: What to train on and to measure on.
        folder: Where history and checkpoints are kept.
        epochs: Epochs in all.
        batch_size: Images per step; the last, partial batch of an epoch is dropped.
        seed: Seed of batch order, augmentation and dropout.
        shuffle: Whether each epoch has a new order; without, the images' own order in all.
        measured_on: Split that is measured after every epoch: `"validation"` or `"test"`.
        measure_start: Whether the history begins with a row of epoch 0, measured before the first
            step.
        keep_best: Whether the model of the best accuracy on that split is kept as `best.keras`.
        watchers: Callbacks that run before the row is written, such as a `callbacks.Measurement`.
        execution: How often to write checkpoints, and what to show; `run_dir` is not used.
        deadline: When to stop; by default `execution.max_minutes` from now on.
        devices: In whose scope the model was built and this is called; by default one device.
            `execution.strategy` is not used.

    Returns:
        The history, from the folder.

    Raises:
        ConfigError: If there are fewer images than one batch, or none to measure on.
        RunFolderError: If another process is at work in the folder, or it cannot be written.
        RunPausedError: If the time was over before the last epoch.
        TrainingDivergedError: If the loss became NaN or infinite.
    """
    execution = execution or Execution()
    deadline = deadline or execution.deadline()
    devices = devices or Devices()
    devices.check(batch_size, device_epochs=execution.device_epochs == "on")
    prefix = _PREFIXES[measured_on]
    measured = dataset.split(measured_on)
    if not len(measured[0]):
        raise ConfigError(f"Data set {dataset.name} has no {measured_on} images to measure on.")
    batches = ShuffledBatches(dataset.x_train, dataset.y_train, batch_size, seed, shuffle=shuffle)
    devices.prepare(model)
    # `fit` builds the metrics from the first batch, which on PyTorch it then leaves out; and
    # without the optimizer's variables their state in a checkpoint would be skipped.
    model.test_on_batch(*(part[:batch_size] for part in measured))
    model.reset_metrics()
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)

    with folder.locked():
        checkpoint = folder.checkpoint()
        first = 0
        if checkpoint is not None:
            first, file = checkpoint
            model.load_weights(file)
        # Before the first checkpoint nothing of an earlier attempt is kept, not even epoch 0.
        folder.truncate_history(first if checkpoint is not None else -1)
        if measure_start and checkpoint is None:
            folder.append_history(_start_row(model, dataset, measured_on, watchers, devices))

        recorder = _Recorder(folder, epochs, prefix, keep_best, execution, deadline, devices)
        if first < epochs:
            stream = devices.stream(batches, first)
            steps = batches.num_batches
            if execution.device_epochs == "on" or (
                execution.device_epochs == "auto" and devices.strategy == "none" and accelerators()
            ):
                on_device = DeviceEpochs(batches)
                on_device.attach(model)
                stream, steps = on_device.stream(first), 1
                measured = tuple(map(keras.ops.convert_to_tensor, measured))
            measured, measured_batch = devices.evaluation(measured)
            watchers = [callbacks.EpochSeeds(seed), *watchers, recorder]
            if execution.tensorboard:
                watchers.append(keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False))
            model.fit(
                stream,
                steps_per_epoch=steps,
                shuffle=False,
                validation_data=measured,
                validation_batch_size=measured_batch,
                initial_epoch=first,
                epochs=epochs,
                callbacks=watchers,
                verbose=execution.keras_verbose,
            )
    recorder.raise_if_stopped()
    return folder.history()


def evaluate(
    model: keras.Model, images_and_labels: tuple, devices: Devices | None = None
) -> dict[str, float]:
    """Loss and accuracy of a compiled classifier, on the devices on which it was built."""
    images_and_labels, size = (devices or Devices()).evaluation(images_and_labels)
    return model.evaluate(*images_and_labels, batch_size=size, return_dict=True, verbose=0)


def _start_row(
    model: keras.Model,
    dataset: data.ImageDataset,
    measured_on: str,
    watchers: Sequence[keras.callbacks.Callback],
    devices: Devices,
) -> dict[str, float]:
    """The row of epoch 0, with the columns of the rows to come."""
    started = time.perf_counter()
    logs: dict[str, float] = {}
    for split in ("train", measured_on):
        found = evaluate(model, dataset.split(split), devices)
        logs |= {f"{_PREFIXES[split]}{name}": found[name] for name in ("accuracy", "loss")}
    for watcher in watchers:
        if isinstance(watcher, callbacks.Measurement):
            watcher.set_model(model)
            logs |= watcher.measure(logs)
    return _row(model, 0, logs, 0.0, time.perf_counter() - started)


def _row(
    model: keras.Model, epoch: int, logs: dict, train_seconds: float, seconds: float
) -> dict[str, float]:
    return {
        "epoch": epoch,
        "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
        **logs,
        "train_seconds": round(train_seconds, 4),
        "seconds": round(seconds, 4),
    }


class _Recorder(keras.callbacks.Callback):
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
        self.best = max(folder.history().get(f"{prefix}accuracy", []), default=float("-inf"))
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
            _row(self.model, epoch + 1, found, self.trained - self.started, now - self.started)
        )
        accuracy = found[f"{self.prefix}accuracy"]
        if self.keep_best and accuracy > self.best:
            self.best = accuracy
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
            self.folder.save_model(self.model, self.folder.best_model)
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


def _kept(checkpoint: tuple[int, Path] | None) -> str:
    if checkpoint is None:
        return "No epoch ended with a finite loss, so no weights were kept."
    return f"The last good weights are {checkpoint[1]}."
