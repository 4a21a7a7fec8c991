"""Run a configuration: train, keep everything, resume, measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, callbacks, data, keras
from tfconvbias.training.batches import check_batch_size
from tfconvbias.training.build import build_model, compile_model, with_precision
from tfconvbias.training.data_config import build_dataset
from tfconvbias.training.devices import Devices, distribute
from tfconvbias.training.environment import environment, hardware
from tfconvbias.training.errors import ConfigError, RunFolderError
from tfconvbias.training.execution import Deadline
from tfconvbias.training.feeds import check_execution, check_loaders
from tfconvbias.training.layouts import layout_of
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import History, RunFolder
from tfconvbias.training.trainer import evaluate, fit


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its results row and its history.

    Where several processes have trained it together, only the chief's folder remains.
    """

    folder: RunFolder
    row: dict[str, Any]
    history: History
    is_chief: bool = True


@checked
def run(
    config: RunConfig,
    dataset: data.ImageDataset | data.Loaders | None = None,
    deadline: Deadline | None = None,
    *,
    is_trial: bool = False,
) -> RunResult:
    """Train the configured network, or continue it, and store all that a table needs.

    With `config.train_on_all` there are no validation images: the test images are measured after
    every epoch instead, and what the row says of validation is `None`.

    Args:
        config: What to run, and where to keep it (`runs/<name>` when `run_dir` is `None`).
        dataset: The configured data set where the caller has loaded it already, its validation
            images still apart; or the caller's own, as `data.ImageDataset` or `data.Loaders`.
        deadline: When to stop; by default `config.max_minutes` from now on.
        is_trial: Whether the run is one of a search, judged on validation images alone. Its row
            says nothing of the test images, and its folder holds no model.

    Returns:
        The finished run. A run that was complete before is read from its folder.

    Raises:
        ConfigError: If the configuration does not fit the data set.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If the time was over before the last epoch.
        TrainingDivergedError: If the loss became NaN or infinite.
        LostProcessError: If another of the processes that train together has ended.
        data.DatasetUnavailableError: If the data set is not available.
    """
    deadline = deadline or config.deadline()
    # First of all: processes must be joined before the backend computes anything.
    devices = distribute(
        config.strategy,
        num_devices=config.num_devices,
        layout=layout_of(config),
        num_shards=config.num_shards,
    )
    devices.check(config.batch_size, config.device_epochs == "on", config.jit_compile)
    with devices.joined(), devices.scope():
        return _run(config, dataset, deadline, is_trial, devices)


def _run(
    config: RunConfig,
    dataset: data.ImageDataset | data.Loaders | None,
    deadline: Deadline,
    is_trial: bool,
    devices: Devices,
) -> RunResult:
    config = with_precision(config)
    if not devices.is_chief:
        config = config.replace(verbose="silent")
    if config.is_certified:
        config = config.replace(device_epochs="off")
    if dataset is None:
        dataset = build_dataset(config)
    check_execution(dataset, devices, config)
    if isinstance(dataset, data.Loaders):
        check_loaders(config, dataset)
        # The folder's name shall not tell of the configuration's data set.
        config = config.replace(dataset=dataset.name)
    elif config.train_on_all:
        dataset = dataset.join_validation()
    num_train, num_batches = _checked_sizes(config, dataset)
    folder = RunFolder(config.run_dir or f"runs/{config.default_run_name()}")
    _check_folder(folder, config, dataset, devices)
    finished = folder.result()
    if finished is not None:
        if devices.is_chief:
            folder.drop_checkpoints()  # of a process that was killed just before
        return RunResult(folder, finished, folder.history(), devices.is_chief)

    from tfconvbias.training.sparse_steps import sparse_steps

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        keras.utils.set_random_seed(config.seed)
        check_batch_size(config.batch_size, num_train)
        if not dataset.has("validation") and not config.train_on_all:
            raise ConfigError(f"Data set {dataset.name} has no validation images.")
        if not dataset.has("test") and not is_trial:
            raise ConfigError(f"Data set {dataset.name} has no test images.")
        model = build_model(config, dataset)
        compile_model(config, model, config.epochs * num_batches)
        watchers = sparse_steps(config, model, folder)
        # Only now, so that a configuration that cannot be built leaves no folder behind.
        folder = devices.work_folder(folder, config, dataset)
        folder.claim(config, dataset)
        folder.write_environment({**environment(), "devices": str(devices)})
        history = fit(
            model,
            dataset,
            folder,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            measured_on="test" if config.train_on_all else "validation",
            keep_best=not config.train_on_all and not is_trial,
            watchers=[*watchers, callbacks.NonZeros()],
            execution=config,
            deadline=deadline,
            devices=devices,
        )
        row = _row(config, dataset, model, history, num_train)
        if not is_trial:
            folder.save_model(model, folder.last_model)
            row |= _test(dataset, folder, model, row, devices)
    finally:
        keras.config.set_dtype_policy(policy)
    folder.write_result(row)
    folder.drop_checkpoints()
    return RunResult(folder, row, history, devices.is_chief)


def _checked_sizes(config: RunConfig, dataset: data.ImageDataset | data.Loaders) -> tuple[int, int]:
    """Training images and batches in an epoch, once all images in files have been read.

    Raises:
        ConfigError: If a file cannot be read, or loaders have other batches.
    """
    try:
        num_batches = dataset.num_batches(config.batch_size)
        # Of images in files the digest takes reading each of them.
        dataset.digest  # noqa: B018
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return dataset.num_train(config.batch_size), num_batches


def _check_folder(
    folder: RunFolder,
    config: RunConfig,
    dataset: data.ImageDataset | data.Loaders,
    devices: Devices,
) -> None:
    """The chief's check of the folder, in which the other processes take part."""
    fault = None
    if devices.is_chief:
        try:
            folder.check(config, config.resume, dataset)
        except RunFolderError as error:
            fault = error
    refused = devices.gather(fault is not None)[0]
    if fault is not None:
        raise fault
    if refused:
        raise RunFolderError(f"The first process cannot work in {folder.path}; it says why.")


def _row(
    config: RunConfig,
    dataset: data.ImageDataset | data.Loaders,
    model: keras.Model,
    history: History,
    num_train: int,
) -> dict[str, Any]:
    """The results row without test figures."""
    validation = history.get("val_accuracy")
    return {
        "model": config.model_name,
        "width": config.width,
        "optimizer": config.optimizer,
        "dataset": dataset.name
        + ("" if config.permute_pixels is None else f"-permuted{config.permute_pixels}"),
        "num_train": num_train,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "best_epoch": validation and 1 + max(range(config.epochs), key=validation.__getitem__),
        "val_accuracy": validation and validation[-1],
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


def _test(
    dataset: data.ImageDataset | data.Loaders,
    folder: RunFolder,
    model: keras.Model,
    row: dict[str, Any],
    devices: Devices,
) -> dict[str, float | None]:
    """The last model's and the best model's accuracy on the test images."""
    test = dataset.split("test")
    last = best = evaluate(model, test, devices)
    if row["best_epoch"] not in (None, row["epochs"]):
        # Into this model, whose evaluation is compiled; the last weights are on disk.
        folder.best.load_into(model, row["best_epoch"])
        best = evaluate(model, test, devices)
    return {
        "test_accuracy": last["accuracy"],
        "test_loss": last["loss"],
        "best_epoch_test_accuracy": None if row["best_epoch"] is None else best["accuracy"],
    }
