"""The switch-time protocol: train a CNN, embed its snapshots in a larger space, train on there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import callbacks, data, embedding, keras, models
from tfconvbias.memory import available_bytes, readable
from tfconvbias.studies.dascoli2019.config import NetworkConfig, SwitchTimeConfig
from tfconvbias.studies.dascoli2019.measurements import (
    first_layer_image,
    landscape,
    measure_paths,
    weight_slice,
)
from tfconvbias.training import (
    ConfigError,
    Deadline,
    Finished,
    History,
    RunFolder,
    Task,
    Workplace,
    compile_classifier,
    environment,
    fit,
    replacing,
    run_tasks,
)
from tfconvbias.training.batches import check_batch_size

_LANCZOS_COPIES = 30
"""Peak memory of the Hessian's eigenvalue, as a multiple of that of the embedded network's weights:
as measured; most of it are float64 vectors."""
_PATH_COPIES = 9
"""The same for an interpolation, without its points."""


@dataclass(frozen=True)
class SwitchTimeResult:
    """A finished protocol, as it is read from its folder.

    Attributes:
        config: What was run.
        histories: `"cnn"`, `"fcn"` and `"tw-N"` → columns such as epoch (from 0), loss, accuracy,
            test_loss, test_accuracy.
        rows: `"fcn"` and `"tw-N"` → measurements.
        folder: The run folder; each training has a part of it.
    """

    config: SwitchTimeConfig
    histories: dict[str, History]
    rows: dict[str, dict[str, Any]]
    folder: RunFolder

    def images(self, name: str) -> dict[str, np.ndarray]:
        """Pictures of a network's weights at the start and at the end of its training."""
        with np.load(_image_file(self.folder.part(name))) as stored:
            return dict(stored)


@checked
def run_switch_time(
    config: SwitchTimeConfig,
    dataset: data.ImageDataset | None = None,
    deadline: Deadline | None = None,
) -> SwitchTimeResult:
    """Run the protocol, or what is left of it.

    Every training keeps a checkpoint, and every finished point its measurements, so that a killed
    run loses `checkpoint_every` epochs at most. The points need the CNN and not each other.

    Args:
        config: What to run, and where to keep it.
        dataset: The configured data set, where the caller has loaded it already.
        deadline: When to stop; by default `config.max_minutes` from now on.

    Raises:
        ConfigError: If the data set does not hold what is asked for, or the embedded network takes
            more memory than there is.
        MissingRunsError: If processes of some points were lost; the others are on disk.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If the time was over before the last point.
        TrainingDivergedError: If a loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    names = ["fcn", *_names_of(config)]
    tasks = [Task("cnn", train_cnn, config, kind="cnn", epochs=config.epochs)]
    tasks += [
        Task(
            name,
            run_point,
            config,
            {"name": name},
            needs=("cnn",),
            kind="embedded",
            epochs=config.embedded_epochs,
        )
        for name in names
    ]
    for _ in run_tasks(tasks, config, config, config.run_dir, deadline=deadline, dataset=dataset):
        pass
    return read_switch_time(config)


def read_switch_time(config: SwitchTimeConfig) -> SwitchTimeResult:
    """What the run folder holds of the protocol: the CNN, and the networks that are finished."""
    folder = RunFolder(config.run_dir)
    found = {name: folder.part(name).result() for name in ("fcn", *_names_of(config))}
    rows = {name: row for name, row in found.items() if row is not None}
    histories = {name: folder.part(name).history() for name in ("cnn", *rows)}
    return SwitchTimeResult(config, histories, rows, folder)


def _names_of(config: SwitchTimeConfig) -> list[str]:
    return [f"tw-{t}" for t in config.times]


def train_cnn(place: Workplace, config: SwitchTimeConfig) -> Finished:
    """Claim the folder and train the CNN, as a task.

    Raises:
        ConfigError: If the data set does not hold what is asked for, or the embedded network takes
            more memory than there is.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
    """
    folder = RunFolder(config.run_dir)
    dataset = place.dataset(config)
    is_claimed = folder.check(config, config.resume, dataset)
    check_batch_size(config.batch_size, len(dataset.x_train))
    try:
        protocol = _Protocol.start(config, place)
    except ValueError as error:
        # The images are too small for the network.
        raise ConfigError(str(error)) from error
    _check_memory(protocol.cnn, config)
    if not is_claimed:
        folder.claim(config, dataset)
        folder.write_environment(environment())
    is_new = folder.part("cnn").history().get("epoch", [0])[-1] < config.epochs
    accuracy = protocol.train_cnn()["test_accuracy"][-1]
    return Finished(f"test accuracy {100 * accuracy:.2f} %", is_new)


def run_point(place: Workplace, config: SwitchTimeConfig, *, name: str) -> Finished:
    """Embed, train and measure the network of one switch time, or the FCN, as a task.

    Raises:
        RunPausedError: If the time is over.
    """
    part = RunFolder(config.run_dir).part(name)
    row = part.result()
    is_new = row is None
    if is_new:
        place.deadline.pause_before(name)
        _Protocol.start(config, place).run_point(name)
        row = part.result()
    assert row is not None
    return Finished(f"test accuracy {100 * row['test_accuracy']:.2f} %", is_new)


def build_cnn(config: NetworkConfig, dataset: data.ImageDataset) -> keras.Model:
    """The CNN on raw uint8 images, normalised inside."""
    arguments: dict[str, Any] = {
        "input_shape": dataset.image_shape,
        "classes": dataset.num_classes,
        "preprocessing": data.preprocessing(dataset, permute_pixels=config.permute_pixels),
    }
    if config.network == "alexnet":
        return models.AlexNet(**arguments)
    return models.VanillaCNN(config.filters, **arguments)


@dataclass(frozen=True)
class _Protocol:
    """The trainings of one run, which share the CNN and its snapshots."""

    config: SwitchTimeConfig
    dataset: data.ImageDataset
    folder: RunFolder
    deadline: Deadline
    cnn: keras.Model
    snapshots: callbacks.Snapshots

    @classmethod
    def start(cls, config: SwitchTimeConfig, place: Workplace) -> _Protocol:
        """What any of its trainings begins with.

        Raises:
            ValueError: If the images are too small for the network.
        """
        dataset = place.dataset(config)
        folder = RunFolder(config.run_dir)
        keras.utils.set_random_seed(config.seed)
        cnn = build_cnn(config, dataset)
        snapshots = callbacks.Snapshots(folder.part("cnn").path / "snapshots", config.times)
        return cls(config, dataset, folder, place.deadline, cnn, snapshots)

    def train_cnn(self) -> History:
        """Train the CNN, and keep its weights of the switch times."""
        config = self.config
        return self._fit(
            self.cnn,
            self.folder.part("cnn"),
            config.epochs,
            config.learning_rate,
            watchers=[self.snapshots],
        )

    def run_point(self, name: str) -> None:
        """Embed, train and measure the network of one switch time, or the FCN."""
        config, dataset, cnn = self.config, self.dataset, self.cnn
        place = self.folder.part(name)
        model = self._embedded(name)
        started = time.perf_counter()
        config.tell("measuring the start")
        start = landscape(model, dataset, config)
        images = {"start": first_layer_image(model), "slice_start": weight_slice(model)}
        history = self._fit(model, place, config.embedded_epochs, config.embedded_learning_rate)
        config.tell("measuring the end")
        end = landscape(model, dataset, config)
        images |= {"end": first_layer_image(model), "slice_end": weight_slice(model)}
        found = embedding.deviation(model)
        of_all = embedding.deviation(model, include_biases=True, include_head=True)
        parts = embedding.evaluate_parts(
            model, dataset.x_test, dataset.y_test, data.EVALUATION_BATCH_SIZE
        )
        cnn.load_weights(self.snapshots.path(config.epochs))
        row: dict[str, Any] = {
            **{f"{key}_start": value for key, value in start.items()},
            **{f"{key}_end": value for key, value in end.items()},
            "test_accuracy": history["test_accuracy"][-1],
            "best_test_accuracy": max(history["test_accuracy"]),
            "loss_start": history["loss"][0],
            "loss_end": history["loss"][-1],
            "off_local": found.off_local,
            "broken_sharing": found.broken_sharing,
            "off_local_of_all": of_all.off_local,
            "dataset": dataset.name,
            "source": dataset.source,
            "num_train": len(dataset.x_train),
            "num_test": len(dataset.x_test),
            "parameters": model.count_params(),
            "full": parts["full"]["accuracy"],
            "local": parts["local"]["accuracy"],
            "off_local_accuracy": parts["off_local"]["accuracy"],
            "paths": {} if name == "fcn" else measure_paths(cnn, model, dataset, config),
            "seconds": round(time.perf_counter() - started, 1),
        }
        with replacing(_image_file(place)) as unfinished:
            np.savez_compressed(unfinished, allow_pickle=False, **images)
        place.write_environment(environment())
        place.write_result(row)
        place.drop_checkpoints()

    def _embedded(self, name: str) -> keras.Model:
        """The network of a switch time, or the FCN, before its first step."""
        config = self.config
        if name == "fcn":
            model = self._embed()
            embedding.reinitialize(model, config.seed)
            return model
        self.cnn.load_weights(self.snapshots.path(int(name.removeprefix("tw-"))))
        return self._embed()

    def _embed(self) -> keras.Model:
        config = self.config
        return embedding.embed(self.cnn, config.target, config.padding, kernel_size=taps_of(config))

    def _fit(
        self,
        model: keras.Model,
        place: RunFolder,
        epochs: int,
        rate: float,
        watchers: list[keras.callbacks.Callback] | None = None,
    ) -> History:
        """Plain SGD; the paper's figures show the accuracy on test images over time."""
        compile_classifier(model, keras.optimizers.SGD(rate))
        return fit(
            model,
            self.dataset,
            place,
            epochs=epochs,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            shuffle=self.config.shuffle,
            measured_on="test",
            measure_start=True,
            watchers=watchers or (),
            execution=self.config,
            deadline=self.deadline,
        )


def taps_of(config: SwitchTimeConfig) -> int | None:
    """The taps of wide convolutions, which other targets do not have."""
    return config.kernel_size if config.target == "wide" else None


def _image_file(place: RunFolder) -> Path:
    return place.path / "images.npz"


def _check_memory(cnn: keras.Model, config: SwitchTimeConfig) -> None:
    """Refuse at the start what would fail hours later."""
    size = embedding.embedded_size(cnn, config.target, config.padding, kernel_size=taps_of(config))
    stages = {"training": 3}
    if config.curvature_samples:
        stages["the Hessian's eigenvalue (--curvature-samples)"] = _LANCZOS_COPIES
    if config.num_points and config.string_epochs:
        copies = config.num_points + _PATH_COPIES
        stages["the string (--string-epochs, --num-points)"] = copies
    stage = max(stages, key=stages.__getitem__)
    available = available_bytes()
    if available is not None and size.num_bytes * stages[stage] > available:
        raise ConfigError(
            f"The embedded network has {size.num_parameters:,} parameters, "
            f"{readable(size.num_bytes)}, and {stage} takes about {stages[stage]} times that; "
            f"{readable(available)} are left. Use fewer --filters, --target local, "
            "--curvature-samples 0, --string-epochs 0 or fewer --num-points."
        )
