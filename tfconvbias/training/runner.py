"""Run a configuration: train, keep everything, resume, measure."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from tfconvbias import analysis, callbacks, data
from tfconvbias.training.batches import check_batch_size
from tfconvbias.training.build import build_model, compile_model, with_precision
from tfconvbias.training.data_config import build_dataset
from tfconvbias.training.environment import environment, hardware
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import Deadline
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import History, RunFolder
from tfconvbias.training.trainer import evaluate, fit


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its results row and its history."""

    folder: RunFolder
    row: dict[str, Any]
    history: History


def run(
    config: RunConfig,
    dataset: data.ImageDataset | None = None,
    deadline: Deadline | None = None,
) -> RunResult:
    """Train the configured network, or continue it, and store all that a table needs.

    Args:
        config: What to run, and where to keep it (`runs/<name>` when `run_dir` is `None`).
        dataset: The configured data set where the caller has loaded it already.
        deadline: When to stop; by default `config.max_minutes` from now on.

    Returns:
        The finished run. A run that was complete before is read from its folder.

    Raises:
        ConfigError: If the configuration does not fit the data set.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If the time was over before the last epoch.
        TrainingDivergedError: If the loss became NaN or infinite.
        data.DatasetUnavailableError: If the data set is not available.
    """
    deadline = deadline or config.deadline()
    config = with_precision(config)
    if dataset is None:
        dataset = build_dataset(config)
    folder = RunFolder(config.run_dir or f"runs/{config.default_run_name()}")
    folder.check(config, config.resume, dataset)
    finished = folder.result()
    if finished is not None:
        return RunResult(folder, finished, folder.history())

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        keras.utils.set_random_seed(config.seed)
        check_batch_size(config.batch_size, len(dataset.x_train))
        if not len(dataset.x_validation) or not len(dataset.x_test):
            raise ConfigError(f"Data set {dataset.name} has no validation or no test images.")
        model = build_model(config, dataset)
        steps = config.epochs * (len(dataset.x_train) // config.batch_size)
        compile_model(config, model, steps)
        # Only now, so that a configuration that cannot be built leaves no folder behind.
        folder.claim(config, dataset)
        folder.write_environment(environment())
        history = fit(
            model,
            dataset,
            folder,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            keep_best=True,
            watchers=[callbacks.NonZeros()],
            execution=config,
            deadline=deadline,
        )
        row = _measure(config, dataset, folder, model, history)
    finally:
        keras.config.set_dtype_policy(policy)
    folder.write_result(row)
    folder.drop_checkpoints()
    return RunResult(folder, row, history)


def _measure(
    config: RunConfig,
    dataset: data.ImageDataset,
    folder: RunFolder,
    model: keras.Model,
    history: History,
) -> dict[str, Any]:
    """The results row: the last model's and the best model's accuracy on the test images."""
    folder.save_model(model, folder.last_model)
    test = dataset.split("test")
    best = max(range(config.epochs), key=history["val_accuracy"].__getitem__)
    last_test = best_test = evaluate(model, test)
    nonzeros = analysis.num_nonzeros(model)
    if best + 1 < config.epochs:
        # Into this model, whose evaluation is compiled; the last weights are on disk.
        model.load_weights(folder.best_model)
        best_test = evaluate(model, test)
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
