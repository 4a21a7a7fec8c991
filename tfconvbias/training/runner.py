"""Run a configuration: train, keep everything, resume, measure."""

import math
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import keras

from tfconvbias import analysis, callbacks, data
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.build import build_dataset, build_model, compile_model
from tfconvbias.training.device_epochs import DeviceEpochs
from tfconvbias.training.environment import environment, hardware
from tfconvbias.training.errors import RunPausedError, TrainingDivergedError
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import History, RunFolder

_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its results row and its history."""

    folder: RunFolder
    row: dict[str, Any]
    history: History


def run(config: RunConfig, dataset: data.ImageDataset | None = None) -> RunResult:
    """Train the configured network, or continue it, and store all that a table needs.

    Batches, augmentation and dropout are functions of seed and epoch, so that on CPU a resumed
    run's history equals the uninterrupted one's.

    Args:
        config: what to run, and where to keep it (`runs/<name>` when `run_dir` is `None`).
        dataset: the configured data set where the caller has loaded it already.

    Returns:
        The finished run. A run that was complete before is read from its folder.

    Raises:
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If `config.max_minutes` ended before the last epoch did.
        TrainingDivergedError: If the loss became NaN or infinite.
        data.DatasetUnavailableError: If the data set can't be had.
    """
    started = time.perf_counter()
    folder = RunFolder(config.run_dir or f"runs/{config.default_run_name()}")
    if dataset is None:
        dataset = build_dataset(config)
    batches = ShuffledBatches(dataset.x_train, dataset.y_train, config.batch_size, config.seed)
    folder.check(config)
    finished = folder.result()
    if finished is not None:
        return RunResult(folder, finished, folder.history())

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        keras.utils.set_random_seed(config.seed)
        model, first_epoch = _start(config, dataset, folder, batches.num_batches)
        # Only now, so that a configuration that can't be built leaves no folder behind.
        folder.create(config)
        folder.write_environment(environment())
        recorder = _Recorder(config, folder, started)
        _fit(config, dataset, batches, folder, model, first_epoch, recorder)
        row = _measure(config, dataset, folder, model)
    finally:
        keras.config.set_dtype_policy(policy)
    folder.write_result(row)
    return RunResult(folder, row, folder.history())


def _start(
    config: RunConfig, dataset: data.ImageDataset, folder: RunFolder, steps_per_epoch: int
) -> tuple[keras.Model, int]:
    """The compiled model, new or from the last checkpoint, and the epoch to go on with."""
    checkpoint = folder.checkpoint()
    if checkpoint is not None:
        first_epoch, file = checkpoint
        model = keras.saving.load_model(file)
    else:
        model = build_model(config, dataset)
        compile_model(config, model, steps_per_epoch * config.epochs)
        first_epoch = 0
    folder.truncate_history(first_epoch)
    return model, first_epoch


def _fit(
    config: RunConfig,
    dataset: data.ImageDataset,
    batches: ShuffledBatches,
    folder: RunFolder,
    model: keras.Model,
    first_epoch: int,
    recorder: "_Recorder",
) -> None:
    guard = callbacks.StopOnNonFiniteLoss()
    watchers: list[keras.callbacks.Callback] = [
        callbacks.EpochSeeds(config.seed),
        callbacks.NonZeros(),
        guard,
        recorder,
    ]
    if config.tensorboard:
        watchers.append(keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False))
    validation = (dataset.x_validation, dataset.y_validation)
    # `fit` builds the metrics from the first batch, which on PyTorch it then leaves out.
    model.test_on_batch(*(part[:_EVALUATION_BATCH] for part in validation))
    model.reset_metrics()
    stream: Generator[tuple] = batches.stream(first_epoch)
    steps = batches.num_batches
    if config.device_epochs:
        on_device = DeviceEpochs(batches)
        on_device.attach(model)
        stream, steps = on_device.stream(first_epoch), 1
        validation = tuple(map(keras.ops.convert_to_tensor, validation))
    model.fit(
        stream,
        steps_per_epoch=steps,
        shuffle=False,
        validation_data=validation,
        validation_batch_size=_EVALUATION_BATCH,
        initial_epoch=first_epoch,
        epochs=config.epochs,
        callbacks=watchers,
        verbose=_verbosity(config.verbose),
    )
    if guard.diverged is not None:
        checkpoint = folder.checkpoint()
        kept = (
            f"The last good model is {checkpoint[1]}."
            if checkpoint is not None
            else "No epoch ended with a finite loss, so no model was kept."
        )
        raise TrainingDivergedError(
            f"The loss became NaN or infinite in epoch {guard.diverged}. {kept} "
            "A lower --learning-rate may help."
        )
    if recorder.paused is not None:
        raise RunPausedError(
            f"Stopped behind epoch {recorder.paused} of {config.epochs}, as another one would "
            f"end later than max_minutes={config.max_minutes:g} allow. "
            "The same command with --resume continues."
        )


class _Recorder(keras.callbacks.Callback):
    """Write history row, best model and checkpoint, in this order: the checkpoint counts.

    Between checkpoints the best weights are kept on the device, since a large model takes longer
    to write than an epoch does.

    Attributes:
        paused: number of the epoch, counted from 1, behind which the time was over, or `None`.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, run_started: float):
        super().__init__()
        self.config = config
        self.folder = folder
        self.run_started = run_started
        self.best = max(folder.history().get("val_accuracy", []), default=float("-inf"))
        self.best_weights: list | None = None
        self.paused: int | None = None
        self.started = self.trained = 0.0
        self.save_seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:
        # Reading it waits for the epoch's last step.
        int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.model.stop_training:
            return
        self.folder.append_history(
            {
                "epoch": epoch + 1,
                "learning_rate": float(keras.ops.convert_to_numpy(self.rate())),
                **(logs or {}),
                "train_seconds": round(self.trained - self.started, 4),
                "seconds": round(time.perf_counter() - self.started, 4),
            }
        )
        accuracy = (logs or {})["val_accuracy"]
        if accuracy > self.best:
            self.best = accuracy
            self.best_weights = [keras.ops.copy(weight) for weight in self.model.weights]
        is_last = epoch + 1 == self.config.epochs
        is_over = not is_last and self._is_over()
        if is_last or is_over or (epoch + 1) % self.config.checkpoint_every == 0:
            self._save(epoch + 1)
        if is_over:
            self.paused = epoch + 1
            self.model.stop_training = True

    def _is_over(self) -> bool:
        """Whether another epoch and its checkpoint would end behind the time limit."""
        if self.config.max_minutes is None:
            return False
        now = time.perf_counter()
        ahead = (now - self.started) + 2 * self.save_seconds
        return now - self.run_started + ahead > 60 * self.config.max_minutes

    def _save(self, epoch: int) -> None:
        begun = time.perf_counter()
        if self.best_weights is not None:
            last = [keras.ops.copy(weight) for weight in self.model.weights]
            self._assign(self.best_weights)
            self.folder.save_model(self.model, self.folder.best_model)
            self._assign(last)
            self.best_weights = None
        self.folder.save_checkpoint(self.model, epoch)
        self.save_seconds = time.perf_counter() - begun

    def _assign(self, values: list) -> None:
        for weight, value in zip(self.model.weights, values, strict=True):
            weight.assign(value)

    def rate(self) -> Any:
        return self.model.optimizer.learning_rate


def _measure(
    config: RunConfig, dataset: data.ImageDataset, folder: RunFolder, model: keras.Model
) -> dict[str, Any]:
    """The results row: the last model's and the best model's accuracy on the test images."""
    history = folder.history()
    best = max(range(config.epochs), key=history["val_accuracy"].__getitem__)
    last_test = best_test = _evaluate(model, dataset)
    nonzeros = analysis.num_nonzeros(model)
    if best + 1 < config.epochs:
        # Into this model, whose evaluation is compiled; the last weights are on disk.
        model.load_weights(folder.best_model)
        best_test = _evaluate(model, dataset)
    return {
        "model": config.model_name,
        "width": config.width,
        "optimizer": config.optimizer,
        "dataset": dataset.name,
        "num_train": len(dataset.x_train),
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "test_accuracy": last_test["accuracy"],
        "test_loss": last_test["loss"],
        "best_epoch": best + 1,
        "best_epoch_test_accuracy": best_test["accuracy"],
        "val_accuracy": history["val_accuracy"][-1],
        "train_accuracy": history["accuracy"][-1],
        "train_loss": history["loss"][-1],
        "parameters": model.count_params(),
        "kernel_parameters": {
            name: math.prod(kernel.shape) for name, kernel in analysis.kernels(model).items()
        },
        "nonzeros": nonzeros,
        "seconds": round(sum(history["seconds"]), 1),
        "hardware": hardware(),
    }


def _evaluate(model: keras.Model, dataset: data.ImageDataset) -> dict[str, float]:
    return model.evaluate(
        dataset.x_test,
        dataset.y_test,
        batch_size=_EVALUATION_BATCH,
        return_dict=True,
        verbose=0,
    )


def _verbosity(verbose: str) -> int:
    if verbose == "auto":
        verbose = "bar" if sys.stdout.isatty() else "line"
    return {"silent": 0, "bar": 1, "line": 2}[verbose]
