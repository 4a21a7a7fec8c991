"""The square {shared, not} × {local, not} from one switch epoch, and the way back to the CNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import data, embedding, keras
from tfconvbias.studies.dascoli2019.config import NetworkConfig
from tfconvbias.studies.dascoli2019.protocol import build_cnn
from tfconvbias.training import (
    ConfigError,
    Deadline,
    Finished,
    ManyRuns,
    RunFolder,
    Task,
    Workplace,
    build_dataset,
    compile_classifier,
    counted,
    environment,
    evaluate,
    fit,
    option,
    run_tasks,
)
from tfconvbias.training.batches import check_batch_size

CORNERS = ("conv", "wide", "local", "dense")


@dataclass(frozen=True)
class WayBackConfig(NetworkConfig, ManyRuns):
    """One CNN per seed, the networks that it becomes at one epoch, and their way back.

    Raises:
        ConfigError: If a value is out of its range.
    """

    switch_time: int = option(10, "epochs of the CNN before it is embedded")
    learning_rate: float = option(0.1, "learning rate of the CNN before the switch")
    embedded_epochs: int = option(50, "epochs of each network after the switch, the CNN's too")
    embedded_learning_rate: float = option(0.01, "learning rate after the switch")
    fine_tune_epochs: int = option(50, "epochs after the projection back, of the CNN too")
    fine_tune_learning_rate: float = option(0.01, "learning rate after the projection")
    l1: tuple[float, ...] = option(
        (1e-5, 1e-4), "λ of β-LASSO on the off-local weights of the eFCN; one training for each"
    )
    beta: float = option(50.0, "β of β-LASSO")
    num_seeds: int = option(3, "seeds, counted from --seed; all see the same images")
    num_validation: int | None = option(
        None, "validation images, which choose each network's epoch; none: all"
    )
    batch_size: int = option(250, "images per step; the last, partial batch of an epoch is dropped")
    run_dir: str = option(
        "runs/efcn-way-back", "folder of histories, results and the report", decides=False
    )
    checkpoint_every: int = option(5, "epochs between checkpoints", decides=False)

    def __post_init__(self):
        super().__post_init__()
        self._positive("switch_time", "embedded_epochs", "fine_tune_epochs")
        self._num_runs("num_seeds")
        self._positive("batch_size")
        self._positive("num_validation", optional=True)
        self._above_zero("learning_rate", "embedded_learning_rate", "fine_tune_learning_rate")
        self._at_least_zero("beta")
        if any(not 0 <= value < float("inf") for value in self.l1):
            raise ConfigError(f"l1 must be finite and not negative. Received: l1={self.l1}")

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.num_seeds)

    @property
    def networks(self) -> tuple[str, ...]:
        """The corners of the square, and the eFCN with each λ."""
        return (*CORNERS, *(f"dense-lasso-{value:g}" for value in self.l1))


@dataclass(frozen=True)
class WayBackResult:
    """A finished study.

    Attributes:
        config: What was run.
        rows: For each seed, network → its measurements.
        folder: The run folder.
    """

    config: WayBackConfig
    rows: dict[int, dict[str, dict[str, Any]]]
    folder: RunFolder


@checked
def run_way_back(
    config: WayBackConfig,
    dataset: data.ImageDataset | None = None,
    deadline: Deadline | None = None,
) -> WayBackResult:
    """Run the study, or what is left of it.

    Every network starts from the CNN of its seed after `switch_time` epochs and has the same
    number of epochs at the same rate; the epoch that is measured, from 0, is its best on the
    validation images. Then it is projected back onto convolutions, and trains on as one; the CNN
    itself, whose projection it is, trains on for the same number of epochs.

    Args:
        config: What to run, and where to keep it.
        dataset: The configured data set, where the caller has loaded it already.
        deadline: When to stop; by default `config.max_minutes` from now on.

    Returns:
        The result.

    Raises:
        ConfigError: If the data set does not hold what is asked for.
        MissingRunsError: If processes of some networks were lost; the others are on disk.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If the time was over before the last network.
        TrainingDivergedError: If a loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    deadline = deadline or config.deadline()
    folder = RunFolder(config.run_dir)
    given = build_dataset(config) if dataset is None else dataset
    limited = _limited(given, config)
    is_claimed = folder.check(config, config.resume, limited)
    check_batch_size(config.batch_size, len(limited.x_train))
    if not is_claimed:
        folder.claim(config, limited)
        folder.write_environment(environment())
    if dataset is None and config.is_in_process:
        dataset = given
    tasks = []
    for seed in config.seeds:
        start = f"cnn, seed {seed}"
        tasks.append(
            Task(start, train_start, config, {"seed": seed}, kind="cnn", epochs=config.switch_time)
        )
        tasks += [
            Task(
                f"{name}, seed {seed}",
                train_network,
                config,
                {"seed": seed, "name": name},
                needs=(start,),
                kind=name.split("-")[0],
                epochs=config.embedded_epochs + config.fine_tune_epochs,
            )
            for name in config.networks
        ]
    for _ in run_tasks(tasks, config, config, config.run_dir, deadline=deadline, dataset=dataset):
        pass
    return read_way_back(config)


def read_way_back(config: WayBackConfig) -> WayBackResult:
    """What the run folder holds of the study: the networks that are finished."""
    folder = RunFolder(config.run_dir)
    found = {
        seed: {name: _place(folder, seed, name).result() for name in config.networks}
        for seed in config.seeds
    }
    rows = {
        seed: {name: row for name, row in networks.items() if row is not None}
        for seed, networks in found.items()
    }
    return WayBackResult(config, {seed: some for seed, some in rows.items() if some}, folder)


def train_start(place: Workplace, config: WayBackConfig, *, seed: int) -> Finished:
    """Train the CNN of a seed until the switch, as a task.

    Raises:
        ConfigError: If the images are too small for the network.
    """
    one = _Seed.at(place, config, seed)
    is_new = one.place("cnn").history().get("epoch", [0])[-1] < config.switch_time
    if is_new:
        place.deadline.pause_before(f"cnn, seed {seed}")
    one.train_start()
    return Finished(counted(config.switch_time, "epoch"), is_new)


def train_network(place: Workplace, config: WayBackConfig, *, seed: int, name: str) -> Finished:
    """Train one network of a seed and its projection, as a task."""
    one = _Seed.at(place, config, seed)
    row = one.place(name).result()
    is_new = row is None
    if row is None:
        place.deadline.pause_before(f"{name}, seed {seed}")
        row = one.network(name)
    return Finished(
        f"test accuracy {100 * row['test_accuracy']:.2f} %, projected and fine-tuned "
        f"{100 * row['fine_tuned']:.2f} %",
        is_new,
    )


def _limited(dataset: data.ImageDataset, config: WayBackConfig) -> data.ImageDataset:
    """The data set with as many validation images as are asked for."""
    try:
        return dataset.limit(num_validation=config.num_validation, seed=config.drawn_with)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _place(folder: RunFolder, seed: int, name: str) -> RunFolder:
    return folder.part(f"seed-{seed}-{name}")


@dataclass(frozen=True)
class _Seed:
    """The trainings of one seed."""

    config: WayBackConfig
    dataset: data.ImageDataset
    folder: RunFolder
    deadline: Deadline
    seed: int

    @classmethod
    def at(cls, place: Workplace, config: WayBackConfig, seed: int) -> _Seed:
        """The trainings of a seed, where a task is done."""
        dataset = _limited(place.dataset(config), config)
        return cls(config, dataset, RunFolder(config.run_dir), place.deadline, seed)

    def network(self, name: str) -> dict[str, Any]:
        """Train one network and its projection."""
        config = self.config
        place = self.place(name)
        target = name.split("-")[0]
        size = config.kernel_size if target == "wide" else None
        start = self._at_switch()
        model = start if target == "conv" else embedding.embed(start, target, kernel_size=size)
        rate = config.embedded_learning_rate
        optimizer = keras.optimizers.SGD(rate)
        if "lasso" in name:
            l1 = float(name.removeprefix("dense-lasso-"))
            layers = embedding.penalized_layers(model)
            optimizer = embedding.OffLocalBetaLasso(rate, l1, config.beta, layers)
        best, row = self._train(model, optimizer, place, config.embedded_epochs)
        row["parameters"] = model.count_params()
        row["test_accuracy_at_switch"] = row.pop("test_accuracy_at_start")
        back = best
        if target != "conv":
            row |= _parts(best, self.dataset)
            back = embedding.project(best)
        optimizer = keras.optimizers.SGD(config.fine_tune_learning_rate)
        place_back = self.place(f"{name}-back")
        _, after = self._train(back, optimizer, place_back, config.fine_tune_epochs)
        row["projected"] = after["test_accuracy_at_start"]
        row["fine_tuned"] = after["test_accuracy"]
        row["fine_tuned_validation"] = after["validation_accuracy"]
        place.write_environment(environment())
        place.write_result(row)
        for one in (place, place_back):
            one.drop_checkpoints()
            one.best_model.unlink(missing_ok=True)
        return row

    def place(self, name: str) -> RunFolder:
        """The folder of one training."""
        return _place(self.folder, self.seed, name)

    def train_start(self) -> None:
        """Train the CNN until the switch."""
        config = self.config
        optimizer = keras.optimizers.SGD(config.learning_rate)
        self._fit(self._cnn(), optimizer, self.place("cnn"), config.switch_time)

    def _at_switch(self) -> keras.Model:
        """The CNN after its last epoch before the switch."""
        cnn = self._cnn()
        found = self.place("cnn").checkpoint()
        assert found is not None, self.place("cnn").path
        cnn.load_weights(found[1])
        return cnn

    def _cnn(self) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        try:
            return build_cnn(self.config, self.dataset)
        except ValueError as error:
            # The images are too small for the network.
            raise ConfigError(str(error)) from error

    def _fit(
        self, model: keras.Model, optimizer: Any, place: RunFolder, epochs: int, keep: bool = False
    ) -> None:
        compile_classifier(model, optimizer)
        fit(
            model,
            self.dataset,
            place,
            epochs=epochs,
            batch_size=self.config.batch_size,
            seed=self.seed,
            measure_start=True,
            keep_best=keep,
            execution=self.config,
            deadline=self.deadline,
        )

    def _train(
        self, model: keras.Model, optimizer: Any, place: RunFolder, epochs: int
    ) -> tuple[keras.Model, dict[str, Any]]:
        """The network at its best epoch on the validation images, and what it reaches there.

        That may be epoch 0, before the first step.
        """
        start = model.get_weights()
        compile_classifier(model, keras.optimizers.SGD())
        before = evaluate(model, self.dataset.split("test"))["accuracy"]
        self._fit(model, optimizer, place, epochs, keep=True)
        accuracies = place.history()["val_accuracy"]
        epoch = int(np.argmax(accuracies))
        if epoch:
            best = place.load_model(place.best_model, compile=False)
        else:
            best = model
            best.set_weights(start)
        compile_classifier(best, keras.optimizers.SGD())
        return best, {
            "test_accuracy_at_start": before,
            "test_accuracy": evaluate(best, self.dataset.split("test"))["accuracy"],
            "validation_accuracy": max(accuracies),
            "epoch": epoch,
        }


def _parts(model: keras.Model, dataset: data.ImageDataset) -> dict[str, float]:
    """How far an embedded network went from the convolutions, and what it does without that."""
    found = embedding.deviation(model)
    with embedding.masked(model, "local") as local:
        alone = evaluate(local, dataset.split("test"))["accuracy"]
    row = {
        "off_local": found.off_local,
        "broken_sharing": found.broken_sharing,
        "local_alone": alone,
    }
    kinds = embedding.EmbeddedDense | embedding.EmbeddedConv
    layers = [layer for layer in embedding.embedded_layers(model) if isinstance(layer, kinds)]
    if layers:
        total = nonzero = 0
        for layer in layers:
            entries = keras.ops.convert_to_numpy(layer.kernel)[embedding.off_local_mask(layer)]
            total, nonzero = total + entries.size, nonzero + int(np.count_nonzero(entries))
        row["off_local_nonzero"] = nonzero / total
    return row
