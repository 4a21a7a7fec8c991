"""The switch-time protocol: train a CNN, lift its snapshots to a larger space, train on there."""

import csv
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tfconvbias import analysis, callbacks, data, embedding, models
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.environment import environment
from tfconvbias.training.errors import ConfigError, RunFolderError, TrainingDivergedError
from tfconvbias.training.run_config import option

History = dict[str, list[float]]

_BATCH = 500
_SLICE = 200
_HOW = ("run_dir", "resume", "worker", "num_workers", "verbose")


@dataclasses.dataclass(frozen=True)
class SwitchTimeConfig:
    """What decides the protocol's result, and where it is kept.

    Raises:
        ConfigError: If a value is out of its range.
    """

    network: Literal["vanilla", "alexnet"] = option("vanilla", "the CNN")
    filters: int = option(64, "channels of VanillaCNN's convolutions")
    dataset: str = option("cifar10", "cifar10, cifar100, svhn, motifs10, or a folder of images")
    data_dir: str | None = option(None, "where TensorFlow Datasets keeps its files")
    num_train: int | None = option(None, "train on this many images; none: all")
    num_test: int | None = option(None, "measure on this many test images; none: all")
    target: Literal["dense", "local"] = option("dense", "dense: eFCN; local: LCN")
    padding: Literal["folded", "explicit"] = option("folded", "see embed")
    epochs: int = option(150, "epochs of the CNN")
    learning_rate: float = option(0.1, "rate of the CNN")
    embedded_epochs: int = option(100, "epochs of each embedded network and of the FCN")
    embedded_learning_rate: float = option(0.01, "their rate")
    switch_times: tuple[int, ...] = option((), "epochs of the CNN; none given: log-spaced")
    batch_size: int = option(250, "images a step")
    shuffle: bool = option(True, "a new order each epoch; the paper's code keeps one order")
    curvature_samples: int = option(1000, "training images for ‖∇L‖ and the Hessian; 0: none")
    num_points: int = option(11, "points of each interpolation; 0: none")
    string_steps: int = option(10, "steps of the string; 0: no string")
    string_samples: int = option(1000, "training images whose loss the string follows")
    stiffness: float = option(1.0, "k of the string")
    seed: int = option(0, "seed of initial weights and batch order")
    checkpoint_every: int = option(5, "epochs between checkpoints")
    run_dir: str = option("runs/efcn-switch-time", "folder of histories, results and the report")
    resume: bool = option(False, "continue the run in the run folder")
    worker: int = option(0, "this process, 0 … num_workers-1, where several share the points")
    num_workers: int = option(1, "processes, one a device, that share the points of one folder")
    verbose: Literal["line", "silent"] = option("line", "progress: a line an epoch, or nothing")

    def __post_init__(self):
        for name in ("filters", "epochs", "embedded_epochs", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive. Received: {getattr(self, name)}")
        if not 0 <= self.worker < self.num_workers:
            raise ConfigError(
                "worker must lie in 0 … num_workers-1. "
                f"Received: worker={self.worker}, num_workers={self.num_workers}"
            )
        if any(not 0 <= t <= self.epochs for t in self.switch_times):
            raise ConfigError(
                f"switch_times must lie in 0 … {self.epochs}. Received: {self.switch_times}"
            )
        if self.num_points and self.num_points < 3:
            raise ConfigError(f"num_points must be 0 or at least 3. Received: {self.num_points}")

    @property
    def times(self) -> tuple[int, ...]:
        """The switch times, increasing; the last epoch is always among them."""
        if not self.switch_times:
            return callbacks.log_spaced_epochs(self.epochs)
        return tuple(sorted({*self.switch_times, self.epochs}))

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _HOW}


@dataclasses.dataclass(frozen=True)
class SwitchTimeResult:
    """A finished protocol, as it is read from its folder.

    Attributes:
        config: What was run.
        histories: `"cnn"`, `"fcn"` and `"tw-N"` → columns epoch (from 0), loss, accuracy,
            test_loss, test_accuracy.
        rows: `"fcn"` and `"tw-N"` → measurements.
        folder: The run folder.
    """

    config: SwitchTimeConfig
    histories: dict[str, History]
    rows: dict[str, dict[str, Any]]
    folder: Path


def run_switch_time(
    config: SwitchTimeConfig, dataset: data.ImageDataset | None = None
) -> SwitchTimeResult | None:
    """Run the protocol, or what is left of it.

    Every training keeps a checkpoint, and every finished point its measurements, so that a killed
    run loses `checkpoint_every` epochs at most. SGD without momentum has no state beside the
    weights, and the batches are a function of seed and epoch.

    Args:
        config: What to run, and where to keep it.
        dataset: The data set, where the caller has loaded it already.

    Returns:
        The result; `None` in a worker that isn't the last to finish.

    Raises:
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        TrainingDivergedError: If a loss became NaN or infinite.
    """
    folder = Path(config.run_dir)
    _open(folder, config)
    if dataset is None:
        dataset = data.load(config.dataset, data_dir=config.data_dir)
    dataset = dataset.limit(num_train=config.num_train, num_test=config.num_test, seed=config.seed)
    keras.utils.set_random_seed(config.seed)
    cnn = build_cnn(config, dataset)
    snapshots = callbacks.Snapshots(folder / "cnn" / "snapshots", config.times)
    histories = {
        "cnn": _train(
            cnn, dataset, config, folder / "cnn", config.epochs, config.learning_rate, [snapshots]
        )
    }
    names = ["fcn", *(f"tw-{t}" for t in config.times)]
    for number, name in enumerate(names):
        if number % config.num_workers == config.worker:
            if config.verbose == "line":
                print(f"[{number + 1}/{len(names)}] {name}", flush=True)
            _point(name, cnn, snapshots, dataset, config, folder)
    rows = {}
    for name in names:
        file = folder / name / "result.json"
        if not file.exists():
            return None
        rows[name] = json.loads(file.read_text(encoding="utf-8"))
        histories[name] = _read_history(folder / name / "history.csv")
    return SwitchTimeResult(config, histories, rows, folder)


def build_cnn(config: SwitchTimeConfig, dataset: data.ImageDataset) -> keras.Model:
    """The CNN on raw uint8 images, normalised inside."""
    arguments: dict[str, Any] = {
        "input_shape": dataset.image_shape,
        "classes": dataset.num_classes,
        "preprocessing": data.preprocessing(dataset),
    }
    if config.network == "alexnet":
        return models.AlexNet(**arguments)
    return models.VanillaCNN(config.filters, **arguments)


def _point(
    name: str,
    cnn: keras.Model,
    snapshots: callbacks.Snapshots,
    dataset: data.ImageDataset,
    config: SwitchTimeConfig,
    folder: Path,
) -> None:
    """Lift, train and measure one point, unless it is done."""
    place = folder / name
    if (place / "result.json").exists():
        return
    last = snapshots.path(config.epochs)
    if name == "fcn":
        model = embedding.embed(cnn, config.target, config.padding)
        embedding.reinitialize(model, config.seed)
    else:
        cnn.load_weights(snapshots.path(int(name.removeprefix("tw-"))))
        model = embedding.embed(cnn, config.target, config.padding)
    started = time.perf_counter()
    row: dict[str, Any] = {
        f"{key}_start": value for key, value in _landscape(model, dataset, config).items()
    }
    images = {"start": first_layer_image(model), "slice_start": weight_slice(model)}
    history = _train(
        model, dataset, config, place, config.embedded_epochs, config.embedded_learning_rate, []
    )
    row |= {f"{key}_end": value for key, value in _landscape(model, dataset, config).items()}
    images |= {"end": first_layer_image(model), "slice_end": weight_slice(model)}
    found = embedding.deviation(model)
    parts = embedding.evaluate_parts(model, dataset.x_test, dataset.y_test, _BATCH)
    cnn.load_weights(last)
    row |= {
        "test_accuracy": history["test_accuracy"][-1],
        "best_test_accuracy": max(history["test_accuracy"]),
        "loss_start": history["loss"][0],
        "loss_end": history["loss"][-1],
        "off_local": found.off_local,
        "broken_sharing": found.broken_sharing,
        "off_local_of_all": embedding.deviation(
            model, include_biases=True, include_head=True
        ).off_local,
        "parameters": model.count_params(),
        "full": parts["full"]["accuracy"],
        "local": parts["local"]["accuracy"],
        "off_local_accuracy": parts["off_local"]["accuracy"],
        "paths": {} if name == "fcn" else _paths(cnn, model, dataset, config),
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment(),
    }
    np.savez_compressed(place / "images.npz", allow_pickle=False, **images)
    _write_json(place / "result.json", row)
    for file in place.glob("checkpoint-*"):
        file.unlink()


def _train(
    model: keras.Model,
    dataset: data.ImageDataset,
    config: SwitchTimeConfig,
    folder: Path,
    epochs: int,
    rate: float,
    extra: list[keras.callbacks.Callback],
) -> History:
    """Train from the last checkpoint on, or from the weights as they are; the whole history."""
    folder.mkdir(parents=True, exist_ok=True)
    model.compile(
        keras.optimizers.SGD(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    keeper = _Keeper(folder, epochs, config.checkpoint_every)
    first = keeper.resume(model)
    file = folder / "history.csv"
    if first == 0:
        start = {"epoch": 0}
        for prefix, split in (("", "train"), ("test_", "test")):
            found = model.evaluate(
                *dataset.split(split), batch_size=_BATCH, verbose=0, return_dict=True
            )
            start |= {f"{prefix}{key}": found[key] for key in ("loss", "accuracy")}
        file.write_text("", encoding="utf-8")
        _append(file, start)
    guard = callbacks.StopOnNonFiniteLoss()
    if config.shuffle:
        order = ShuffledBatches(dataset.x_train, dataset.y_train, config.batch_size, config.seed)
        fit: dict[str, Any] = {"x": order.stream(first), "steps_per_epoch": order.num_batches}
    else:
        fit = {"x": dataset.x_train, "y": dataset.y_train, "batch_size": config.batch_size}
    if first < epochs:
        model.fit(
            **fit,
            shuffle=False,
            validation_data=dataset.split("test"),
            validation_batch_size=_BATCH,
            initial_epoch=first,
            epochs=epochs,
            callbacks=[callbacks.EpochSeeds(config.seed), guard, *extra, keeper],
            verbose=2 if config.verbose == "line" else 0,
        )
    if guard.diverged is not None:
        raise TrainingDivergedError(
            f"The loss of {folder.name} became NaN or infinite in epoch {guard.diverged}. "
            "A lower learning rate may help."
        )
    return _read_history(file)


class _Keeper(keras.callbacks.Callback):
    """Writes a history row an epoch, and the weights every few epochs and at the end."""

    def __init__(self, folder: Path, epochs: int, every: int):
        super().__init__()
        self.folder = folder
        self.epochs = epochs
        self.every = every

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


def _landscape(
    model: keras.Model, dataset: data.ImageDataset, config: SwitchTimeConfig
) -> dict[str, float]:
    """‖∇L‖ and the top Hessian eigenvalue of the training loss on the stated sample."""
    num = min(config.curvature_samples, len(dataset.x_train))
    if not num:
        return {}
    sample = dataset.limit(num_train=num, seed=config.seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    derivatives = analysis.LossDerivatives(
        model, loss, sample.x_train, sample.y_train, batch_size=config.batch_size
    )
    # Few Lanczos vectors: each is as long as the embedded model.
    top = derivatives.top_eigenvalues(1, tolerance=1e-2, num_lanczos=6)
    return {
        "gradient_norm": float(np.linalg.norm(derivatives.gradient())),
        "eigenvalue": float(top.values[0]),
    }


def _paths(
    cnn: keras.Model, model: keras.Model, dataset: data.ImageDataset, config: SwitchTimeConfig
) -> dict[str, Any]:
    """Loss and accuracy between the CNN's solution and the embedded network's."""
    if not config.num_points:
        return {}
    num = min(5 * _BATCH, len(dataset.x_train), len(dataset.x_test))
    sample = dataset.limit(num_train=num, num_test=num, seed=config.seed)
    sets = {"train": sample.split("train"), "test": sample.split("test")}
    string = dataset.limit(
        num_train=min(config.string_samples, len(dataset.x_train)), seed=config.seed
    )
    paths = {}
    for method in ("linear", "string", "output"):
        if method == "string" and not config.string_steps:
            continue
        path = embedding.interpolate(
            cnn,
            model,
            sets,
            method,
            config.num_points,
            stiffness=config.stiffness,
            learning_rate=config.embedded_learning_rate,
            num_steps=config.string_steps,
            string_data=string.split("train"),
        )
        paths[method] = {
            "alphas": path.alphas.tolist(),
            "loss": {k: v.tolist() for k, v in path.loss.items()},
            "accuracy": {k: v.tolist() for k, v in path.accuracy.items()},
        }
    return paths


def first_layer_image(model: keras.Model) -> np.ndarray:
    """The input weights of the first filter at the first inner position, on the input image."""
    layer = next(embedding.embedded_layers(model))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if kernel.ndim > 2:
        return kernel[1, 1, ..., 0]
    geometry = layer.geometry
    cols = geometry.output_spatial_shape[1]
    return kernel[:, (cols + 1) * geometry.filters].reshape(geometry.input_shape)


def weight_slice(model: keras.Model) -> np.ndarray:
    """200 × 200 entries of the first layer's matrix, channel by channel as the paper draws it."""
    layer = next(embedding.embedded_layers(model))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if kernel.ndim > 2:
        return kernel.reshape(-1, kernel.shape[-1])[:_SLICE, :_SLICE]
    geometry = layer.geometry
    positions = int(np.prod(geometry.output_spatial_shape))
    rows = np.arange(min(_SLICE, int(np.prod(geometry.spatial_shape)))) * geometry.in_channels
    columns = np.arange(min(_SLICE, positions)) * geometry.filters
    return kernel[np.ix_(rows, columns)].T


def _open(folder: Path, config: SwitchTimeConfig) -> None:
    file = folder / "config.json"
    wanted = json.loads(json.dumps(config.identity()))
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(
                f"{folder} is not empty and holds no run. Choose another --run-dir."
            )
        _write_json(file, wanted)
        return
    stored = json.loads(file.read_text(encoding="utf-8"))
    different = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    if different:
        raise RunFolderError(
            f"{folder} holds a run with other {', '.join(different)}. Choose another --run-dir."
        )
    if not config.resume and config.num_workers == 1:
        raise RunFolderError(
            f"{folder} already holds this run. Continue it with --resume, or choose another "
            "--run-dir."
        )


def _read_history(file: Path) -> History:
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _append(file: Path, row: Mapping[str, float]) -> None:
    is_new = not file.exists() or file.stat().st_size == 0
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(file)
