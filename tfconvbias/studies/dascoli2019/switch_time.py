"""The switch-time protocol: train a CNN, lift its snapshots to a larger space, train on there."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from tfconvbias.training.checkpointed_fit import checkpointed_fit, read_history
from tfconvbias.training.claimed_folder import check_folder, write_json

from tfconvbias import analysis, callbacks, data, embedding, models
from tfconvbias.embedding.memory import available_bytes, readable
from tfconvbias.training.build import load_dataset
from tfconvbias.training.environment import environment
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_config import option
from tfconvbias.training.run_folder import History

_BATCH = 500
_SLICE = 200
_HOW = ("run_dir", "resume", "worker", "num_workers", "verbose")
_POSITIVE = (
    *("filters", "epochs", "learning_rate", "embedded_epochs", "embedded_learning_rate"),
    *("batch_size", "num_train", "num_test", "string_samples", "checkpoint_every"),
)
_LANCZOS_COPIES = 30
"""Peak memory of the Hessian's eigenvalue, over that of the embedded network's weights: measured,
in float64 vectors for the most part."""
_PATH_COPIES = 9
"""The same of an interpolation, beside its points."""
_POLL_SECONDS = 5.0


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
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive. Received: {value}")
        for name in ("curvature_samples", "num_points", "string_steps", "stiffness"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative. Received: {getattr(self, name)}")
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

    def fit_options(self) -> dict[str, Any]:
        """What every training shares."""
        names = ("batch_size", "shuffle", "seed", "checkpoint_every", "verbose")
        return {name: getattr(self, name) for name in names}


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
    run loses `checkpoint_every` epochs at most.

    Args:
        config: What to run, and where to keep it.
        dataset: The data set, where the caller has loaded it already.

    Returns:
        The result; `None` in a worker that isn't the last to finish.

    Raises:
        ConfigError: If the data set doesn't hold what is asked for, or the embedded network takes
            more memory than there is.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        TrainingDivergedError: If a loss became NaN or infinite.
    """
    folder = Path(config.run_dir)
    file = folder / "config.json"
    if config.worker:
        _wait_for(file, config)
    # Of several workers each finds the folder claimed by the others.
    is_claimed = check_folder(file, config.identity(), config.resume or config.num_workers > 1)
    try:
        if dataset is None:
            dataset = load_dataset(config.dataset, config.data_dir)
        limits = {"num_train": config.num_train, "num_test": config.num_test}
        dataset = dataset.limit(**limits, seed=config.seed)
        keras.utils.set_random_seed(config.seed)
        cnn = build_cnn(config, dataset)
    except ValueError as error:
        # Too few images or too small ones: for the user to mend.
        raise ConfigError(str(error)) from error
    _check_memory(cnn, config)
    if not is_claimed:
        write_json(file, config.identity())
    snapshots = callbacks.Snapshots(folder / "cnn" / "snapshots", config.times)
    histories = {"cnn": _cnn_history(cnn, snapshots, dataset, config, folder / "cnn")}
    names = ["fcn", *(f"tw-{t}" for t in config.times)]
    for number, name in enumerate(names):
        if number % config.num_workers == config.worker:
            _say(f"[{number + 1}/{len(names)}] {name}", config)
            _point(name, cnn, snapshots, dataset, config, folder)
    rows = {}
    for name in names:
        file = folder / name / "result.json"
        if not file.exists():
            return None
        rows[name] = json.loads(file.read_text(encoding="utf-8"))
        histories[name] = read_history(folder / name / "history.csv")
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


def _cnn_history(
    cnn: keras.Model,
    snapshots: callbacks.Snapshots,
    dataset: data.ImageDataset,
    config: SwitchTimeConfig,
    place: Path,
) -> History:
    """Train the CNN, in worker 0; the others wait for its last checkpoint."""
    if config.worker:
        _wait_for(place / f"checkpoint-{config.epochs}.weights.h5", config)
        return read_history(place / "history.csv")
    return checkpointed_fit(
        cnn,
        dataset,
        place,
        epochs=config.epochs,
        optimizer=keras.optimizers.SGD(config.learning_rate),
        extra=[snapshots],
        **config.fit_options(),
    )


def _wait_for(file: Path, config: SwitchTimeConfig) -> None:
    if not file.exists():
        _say(f"Waiting for worker 0 to write {file}", config)
    while not file.exists():
        time.sleep(_POLL_SECONDS)


def _check_memory(cnn: keras.Model, config: SwitchTimeConfig) -> None:
    """Refuse at the start what would fail hours later."""
    size = embedding.embedded_size(cnn, config.target, config.padding)
    stages = {"training": 3}
    if config.curvature_samples:
        stages["the Hessian's eigenvalue (--curvature-samples)"] = _LANCZOS_COPIES
    if config.num_points and config.string_steps:
        copies = config.num_points + _PATH_COPIES
        stages["the string (--string-steps, --num-points)"] = copies
    stage = max(stages, key=stages.__getitem__)
    available = available_bytes()
    if available is not None and size.num_bytes * stages[stage] > available:
        raise ConfigError(
            f"The embedded network has {size.num_parameters:,} parameters, "
            f"{readable(size.num_bytes)}, and {stage} takes about {stages[stage]} times that; "
            f"{readable(available)} are left. Take less with --filters, --target local, "
            "--curvature-samples 0, --string-steps 0 or fewer --num-points."
        )


def _say(text: str, config: SwitchTimeConfig) -> None:
    if config.verbose == "line":
        print(text, flush=True)


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
        _say("done before", config)
        return
    last = snapshots.path(config.epochs)
    if name == "fcn":
        model = embedding.embed(cnn, config.target, config.padding)
        embedding.reinitialize(model, config.seed)
    else:
        cnn.load_weights(snapshots.path(int(name.removeprefix("tw-"))))
        model = embedding.embed(cnn, config.target, config.padding)
    started = time.perf_counter()
    _say("measuring the start", config)
    row: dict[str, Any] = {
        f"{key}_start": value for key, value in _landscape(model, dataset, config).items()
    }
    images = {"start": first_layer_image(model), "slice_start": weight_slice(model)}
    history = checkpointed_fit(
        model,
        dataset,
        place,
        epochs=config.embedded_epochs,
        optimizer=keras.optimizers.SGD(config.embedded_learning_rate),
        **config.fit_options(),
    )
    _say("measuring the end", config)
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
    write_json(place / "result.json", row)
    for file in place.glob("checkpoint-*"):
        file.unlink()


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
    norm = float(np.linalg.norm(derivatives.gradient()))
    probe = np.random.default_rng(config.seed).standard_normal(derivatives.size)
    if not derivatives.product(probe).any():
        # A dead network: Lanczos can't start on a Hessian of zeros.
        return {"gradient_norm": norm, "eigenvalue": 0.0}
    # Few Lanczos vectors: each is as long as the embedded model.
    top = derivatives.top_eigenvalues(1, tolerance=1e-2, start=probe, num_lanczos=6)
    return {"gradient_norm": norm, "eigenvalue": float(top.values[0])}


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
        _say(f"interpolating: {method}", config)
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
    """The input weights of the first filter at the central position, on the input image."""
    layer = next(embedding.embedded_layers(model))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if kernel.ndim > 2:
        rows, cols = kernel.shape[:2]
        return kernel[rows // 2, cols // 2, ..., 0]
    geometry = layer.geometry
    rows, cols = geometry.output_spatial_shape
    position = rows // 2 * cols + cols // 2
    return kernel[:, position * geometry.filters].reshape(geometry.input_shape)


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
