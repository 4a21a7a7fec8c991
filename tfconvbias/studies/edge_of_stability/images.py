"""Image networks of each connectivity under full-batch gradient descent, with their sharpness."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfconvbias import training
from tfconvbias.arguments import checked
from tfconvbias.lazy import callbacks, data, keras, models, plots
from tfconvbias.studies.edge_of_stability.descent import DescentConfig, descend, edge_ratios
from tfconvbias.studies.edge_of_stability.report import environment_notes, show
from tfconvbias.studies.edge_of_stability.stored_rows import Row, claimed, row_file, stored_row

CONNECTIVITIES = ("dense", "local", "conv")


@dataclass(frozen=True)
class StabilityImages(DescentConfig, training.DataConfig, training.Kept, training.ManyRuns):
    """Networks of the S family on the same images, labels and step size.

    The folder belongs to one configuration and to the images themselves, wherever they lie.

    Raises:
        ConfigError: If a value is out of its range, or `measure_every` does not divide `steps`.
    """

    base_channels: int = training.option(4, "α: channels of the first layer")
    num_train: int | None = training.option(
        512, "training images, drawn by class: one full batch; none: all"
    )
    num_test: int | None = training.option(2000, "measure on this many test images; none: all")
    label_noise: float = training.option(
        0.25, "share of the training labels that are redrawn at random"
    )
    learning_rate: float = training.option(
        1.0, "η for half the squared error, averaged over classes; the edge is 2/η"
    )
    steps: int = training.option(1000, "full-batch steps")
    warmup_steps: int = training.option(
        100, "steps over which the learning rate rises linearly from 0"
    )
    measure_every: int = training.option(50, "steps between measurements; a divisor of the steps")
    run_dir: str = training.option(
        "runs/edge-of-stability-images", "folder of rows, figure and report", decides=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("base_channels")
        if not 0 <= self.label_noise <= 1:
            raise training.ConfigError(
                f"label_noise must lie in [0, 1]. Received: label_noise={self.label_noise}"
            )


@checked
def report_stability_images(config: StabilityImages) -> None:
    """Train the networks, print their table and write the page.

    Raises:
        MissingRunsError: If processes of some networks were lost; the others are reported first.
    """
    missing = None
    try:
        rows = run_stability_images(config)
    except training.MissingRunsError as error:
        missing, rows = error, _stored(config)
        if not rows:
            raise
    curves = plots.sharpness_and_accuracy({name: row["history"] for name, row in rows.items()})
    caption = "Sharpness against the edge 2/η, and accuracies, over the steps."
    notes = [
        "The sharpness is that of the loss with the batch's own normalization statistics.",
        *environment_notes(rows.values()),
    ]
    tables = {"Networks": _table(rows)}
    figures = {"sharpness": (caption, curves)}
    findings = [*([] if missing is None else [missing.summary]), *_findings(config, rows)]
    show("Edge of stability on images", config, tables, figures, notes, findings)
    if missing is not None:
        raise missing


def _findings(config: StabilityImages, rows: Mapping[str, Row]) -> list[str]:
    """How near each network is to the edge, and how well it generalizes."""

    def of_each(column: str, factor: int, unit: str) -> str:
        return ", ".join(f"{name} {factor * row[column]:.2f}{unit}" for name, row in rows.items())

    after = f"after {config.steps:,} steps"
    return [
        f"Sharpness as a share of the edge 2/η {after}: {of_each('relative_sharpness', 1, '')}.",
        f"Test accuracy {after}: {of_each('test_accuracy', 100, ' %')}.",
        f"Redrawn labels that are memorized: {of_each('memorized', 100, ' %')}.",
    ]


@checked
def run_stability_images(config: StabilityImages) -> dict[str, Row]:
    """Train S-FC, S-LOCAL and S-CONV on the same images, labels and step size.

    Returns:
        Connectivity → row with the last values of `history`, `relative_sharpness` (median of λη/2
        over the last ten measurements) and `memorized`, the share of the redrawn labels that the
        network predicts. A finished row is read from the run folder.

    Raises:
        ConfigError: If the data set cannot be read.
        MissingRunsError: If processes of some networks were lost; finished rows are kept.
        RunFolderError: If the folder holds something else, holds this comparison while `resume` is
            off, or cannot be written.
        RunPausedError: If `max_minutes` are over before the last network.
        TrainingDivergedError: If the loss is not finite at the end.
    """
    deadline = config.deadline()
    dataset = training.build_dataset(config)
    _network(config, "conv", dataset)  # what cannot be built leaves no folder behind
    folder = training.RunFolder(config.run_dir)
    tasks = [
        training.Task(name, make_row, config, {"name": name}, kind=name, epochs=config.steps)
        for name in CONNECTIVITIES
    ]
    with claimed(folder, config, "comparison", dataset):
        ended = training.run_tasks(
            tasks,
            config,
            config,
            folder.path,
            deadline=deadline,
            dataset=dataset if config.is_in_process else None,
        )
        for _ in ended:
            pass
    return _stored(config)


def make_row(place: training.Workplace, config: StabilityImages, *, name: str) -> training.Finished:
    """Train the network of one connectivity, unless its row is in the folder, as a task."""
    folder = training.RunFolder(config.run_dir)
    is_new = not row_file(folder, name).exists()
    make = partial(_train, config, name, place.dataset(config))
    row = stored_row(folder, name, make, place.deadline)
    return training.Finished(
        f"λη/2 {row['relative_sharpness']:.3f}, training accuracy "
        f"{100 * row['accuracy']:.2f} %, "
        f"redrawn labels memorized {100 * row['memorized']:.2f} %, "
        f"test accuracy {100 * row['test_accuracy']:.2f} %",
        is_new,
    )


def _stored(config: StabilityImages) -> dict[str, Row]:
    """The rows that are in the run folder."""
    files = {name: row_file(training.RunFolder(config.run_dir), name) for name in CONNECTIVITIES}
    return {
        name: training.read_sealed(file, file.stem)[0]
        for name, file in files.items()
        if file.exists()
    }


def _network(config: StabilityImages, connectivity: str, dataset: data.ImageDataset) -> keras.Model:
    model = models.SConv(
        config.base_channels,
        connectivity=connectivity,
        input_shape=dataset.image_shape,
        classes=dataset.num_classes,
        preprocessing=data.preprocessing(
            dataset, seed=config.seed, permute_pixels=config.permute_pixels
        ),
    )
    models.match_statistics_momentum(model, config.steps)
    return model


def _train(config: StabilityImages, connectivity: str, dataset: data.ImageDataset) -> Row:
    from tfconvbias.studies.edge_of_stability.watchers import TestAccuracy

    keras.utils.set_random_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    labels = np.array(dataset.y_train)
    redrawn = rng.permutation(len(labels))[: round(config.label_noise * len(labels))]
    labels[redrawn] = rng.integers(0, dataset.num_classes, len(redrawn))
    x, y = dataset.x_train, np.eye(dataset.num_classes, dtype="float32")[labels]
    model = _network(config, connectivity, dataset)
    watchers = [
        # What descends is the loss with the batch's own statistics.
        callbacks.Sharpness(x, y, batch_size=len(x), training=True, tolerance=1e-2),
        TestAccuracy(dataset.x_test, dataset.y_test),
    ]
    history = descend(model, x, y, config, watchers, metrics=["accuracy"], jit_compile=False)
    if not np.isfinite(history["loss"][-1]):
        raise training.TrainingDivergedError(f"{connectivity}: the loss is {history['loss'][-1]}.")
    given = model.predict(x[redrawn], verbose=0).argmax(axis=1) if len(redrawn) else labels[:0]
    return {
        **{name: values[-1] for name, values in history.items()},
        "relative_sharpness": statistics.median(edge_ratios(history)),
        "memorized": float(np.mean(given == labels[redrawn])) if len(redrawn) else 0.0,
        "parameters": model.count_params(),
        "history": history,
        "environment": training.environment(),
    }


def _table(rows: Mapping[str, Row]) -> list[dict[str, str]]:
    return [
        {
            "connectivity": name,
            "parameters": f"{row['parameters']:,}",
            "λη/2": f"{row['relative_sharpness']:.3f}",
            "training accuracy, %": f"{100 * row['accuracy']:.2f}",
            "redrawn labels memorized, %": f"{100 * row['memorized']:.2f}",
            "test accuracy, %": f"{100 * row['test_accuracy']:.2f}",
        }
        for name, row in rows.items()
    ]
