"""Run a configuration: train, keep everything, resume, measure."""

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import keras

from tfconvbias import analysis, callbacks, data
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.build import build_dataset, build_model, compile_model
from tfconvbias.training.environment import environment, hardware
from tfconvbias.training.errors import TrainingDivergedError
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
        TrainingDivergedError: If the loss became NaN or infinite.
        data.DatasetUnavailableError: If the data set can't be had.
    """
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
        _fit(config, dataset, batches, folder, model, first_epoch)
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
) -> None:
    guard = callbacks.StopOnNonFiniteLoss()
    watchers: list[keras.callbacks.Callback] = [
        callbacks.EpochSeeds(config.seed),
        callbacks.NonZeros(),
        guard,
        _Recorder(config, folder),
    ]
    if config.tensorboard:
        watchers.append(keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False))
    model.fit(
        batches.stream(first_epoch),
        steps_per_epoch=batches.num_batches,
        shuffle=False,
        validation_data=(dataset.x_validation, dataset.y_validation),
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


class _Recorder(keras.callbacks.Callback):
    """Write history row, best model and checkpoint, in this order: the checkpoint counts."""

    def __init__(self, config: RunConfig, folder: RunFolder):
        super().__init__()
        self.config = config
        self.folder = folder
        self.best = max(folder.history().get("val_accuracy", []), default=float("-inf"))
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.model.stop_training:
            return
        self.folder.append_history(
            {
                "epoch": epoch + 1,
                "learning_rate": float(keras.ops.convert_to_numpy(self.rate())),
                **(logs or {}),
                "seconds": round(time.perf_counter() - self.started, 3),
            }
        )
        accuracy = (logs or {})["val_accuracy"]
        if accuracy > self.best:
            self.best = accuracy
            self.folder.save_model(self.model, self.folder.best_model)
        is_last = epoch + 1 == self.config.epochs
        if is_last or (epoch + 1) % self.config.checkpoint_every == 0:
            self.folder.save_checkpoint(self.model, epoch + 1)

    def rate(self) -> Any:
        return self.model.optimizer.learning_rate


def _measure(
    config: RunConfig, dataset: data.ImageDataset, folder: RunFolder, model: keras.Model
) -> dict[str, Any]:
    """The results row: the last model's and the best model's accuracy on the test images."""
    history = folder.history()
    best = max(range(config.epochs), key=history["val_accuracy"].__getitem__)
    last_test = _evaluate(model, dataset)
    best_test = _evaluate(keras.saving.load_model(folder.best_model), dataset)
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
        "nonzeros": analysis.num_nonzeros(model),
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
