"""The one training loop: batches, history, checkpoints, resuming, and an end in time."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked
from tfconvbias.lazy import callbacks, data, keras
from tfconvbias.terminal import bars
from tfconvbias.training.devices import Devices
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import Deadline, Execution
from tfconvbias.training.feeds import feed_of, measured_batches
from tfconvbias.training.run_folder import History, RunFolder

_PREFIXES = {"train": "", "validation": "val_", "test": "test_"}


@checked
def fit(
    model: keras.Model,
    dataset: data.ImageDataset | data.Loaders,
    folder: RunFolder,
    *,
    epochs: PositiveInt,
    batch_size: PositiveInt,
    seed: NonNegativeInt,
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
        dataset: What to train on and to measure on: images in memory or in files, or loaders,
            whose order is their own.
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
        ConfigError: If there are fewer images than one batch, none to measure on, one that cannot
            be read, or loaders that do not fit the options.
        RunFolderError: If another process is at work in the folder, or it cannot be written.
        RunPausedError: If the time was over before the last epoch.
        TrainingDivergedError: If the loss became NaN or infinite.
    """
    from tfconvbias.training.epoch_progress import EpochProgress
    from tfconvbias.training.recorder import Recorder

    execution = execution or Execution()
    deadline = deadline or execution.deadline()
    devices = devices or Devices()
    devices.check(batch_size, device_epochs=execution.device_epochs == "on")
    prefix = _PREFIXES[measured_on]
    if not dataset.has(measured_on):
        raise ConfigError(f"Data set {dataset.name} has no {measured_on} images to measure on.")
    feed = feed_of(
        dataset,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        devices=devices,
        execution=execution,
    )
    devices.prepare(model)
    # `fit` builds the metrics from the first batch, which on PyTorch it then leaves out; and
    # without the optimizer's variables their state in a checkpoint would be skipped.
    model.test_on_batch(*feed.example(measured_on))
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

        recorder = Recorder(folder, epochs, prefix, keep_best, execution, deadline, devices)
        if first < epochs:
            stream, steps = feed.train(model, first)
            measured = feed.measured(measured_on)
            shown = EpochProgress(execution, first, epochs, prefix)
            watchers = [callbacks.EpochSeeds(seed), *watchers, recorder, shown]
            if execution.tensorboard:
                watchers += _tensorboard(folder, execution)
            bars.leave_out(first)
            show = shown.style == "bar"
            with feed.reading(), bars.open(folder.path.name, epochs, done=first, show=show):
                model.fit(
                    stream,
                    steps_per_epoch=steps,
                    shuffle=False,
                    **measured,
                    initial_epoch=first,
                    epochs=epochs,
                    callbacks=watchers,
                    verbose=0,
                )
    recorder.raise_if_stopped()
    return folder.history()


def _tensorboard(folder: RunFolder, execution: Execution) -> list[keras.callbacks.Callback]:
    # On every backend Keras writes these logs with TensorFlow.
    if importlib.util.find_spec("tensorflow") is None:
        execution.tell("No TensorBoard logs: they need TensorFlow, which is not installed.")
        return []
    return [keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False)]


@checked
def evaluate(
    model: keras.Model, images_and_labels: Any, devices: Devices | None = None
) -> dict[str, float]:
    """Loss and accuracy of a compiled classifier, on the devices on which it was built.

    Args:
        model: The classifier.
        images_and_labels: A split of a data set: a pair, or a loader.
        devices: By default one device.
    """
    given, size = measured_batches(images_and_labels, devices or Devices())
    arrays = given if isinstance(given, tuple) else (given,)
    return model.evaluate(*arrays, batch_size=size, return_dict=True, verbose=0)


def _start_row(
    model: keras.Model,
    dataset: data.ImageDataset | data.Loaders,
    measured_on: str,
    watchers: Sequence[keras.callbacks.Callback],
    devices: Devices,
) -> dict[str, float]:
    """The row of epoch 0, with the columns of the rows to come."""
    from tfconvbias.training.recorder import history_row

    started = time.perf_counter()
    logs: dict[str, float] = {}
    for split in ("train", measured_on):
        found = evaluate(model, dataset.split(split), devices)
        logs |= {f"{_PREFIXES[split]}{name}": found[name] for name in ("accuracy", "loss")}
    for watcher in watchers:
        if isinstance(watcher, callbacks.Measurement):
            watcher.set_model(model)
            logs |= watcher.measure(logs)
    return history_row(model, 0, logs, 0.0, time.perf_counter() - started)
