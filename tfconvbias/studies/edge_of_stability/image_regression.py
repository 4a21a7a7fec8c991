"""Regression on images: two-layer networks over overlapping patches, and a dense one."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from tfconvbias import training
from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked
from tfconvbias.connectivity import patch_indices
from tfconvbias.lazy import data, plots
from tfconvbias.studies.edge_of_stability.descent import DescentConfig
from tfconvbias.studies.edge_of_stability.report import (
    NOTES,
    curves_of,
    environment_notes,
    show,
    spreads,
    units_by_connectivity,
    unsettled_findings,
)
from tfconvbias.studies.edge_of_stability.run import CONNECTIVITIES, Connectivity, regression_row
from tfconvbias.studies.edge_of_stability.stored_rows import Row, claimed, stored_row

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class ImageRegression(DescentConfig, training.DataConfig, training.Kept):
    """Two-layer networks on images with the targets of a convolutional teacher.

    The patches of the teacher, and of the local and the convolutional network, overlap where
    `strides` is smaller than `patch_size`. The pixels have their mean taken off, one number for
    all, and are scaled so that the inputs have a root mean squared norm of `radius`. The folder
    belongs to one configuration and to the images themselves; `num_seeds` only selects runs.

    Raises:
        ConfigError: If a value is out of its range, or `measure_every` does not divide `steps`.
    """

    patch_size: int = training.option(3, "side of a patch")
    strides: int = training.option(1, "step between patches")
    dense_width: int = training.option(256, "units of the dense network")
    local_width: int = training.option(16, "filters of the local network")
    conv_width: int = training.option(64, "filters of the convolutional network")
    num_train: int | None = training.option(
        256, "training images, drawn by class: one full batch; none: all"
    )
    num_test: int | None = training.option(1000, "measure on this many test images; none: all")
    noise: float = training.option(1.0, "standard deviation σ of the training noise")
    teacher_width: int = training.option(20, "units of the teacher")
    radius: float | None = training.option(
        None,
        "root mean squared norm of the inputs; none: that which gives patches one of about 1",
    )
    num_standardize: int = training.option(
        2000, "validation images on which the teacher is standardized"
    )
    num_seeds: int = training.option(
        3, "number of seeds (--seed and the next ones) of teacher, noise and weights", decides=False
    )
    steps: int = training.option(3000, "full-batch steps")
    measure_every: int = training.option(100, "steps between measurements; a divisor of the steps")
    run_dir: str = training.option(
        "runs/edge-of-stability-regression", "folder of rows, figures and report", decides=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive(
            *("patch_size", "strides", "teacher_width", "num_standardize"),
            *(f"{name}_width" for name in CONNECTIVITIES),
        )
        self._num_runs("num_seeds")
        self._at_least_zero("noise")
        if self.radius is not None:
            self._above_zero("radius")


@checked
def image_views(
    image_shape: Sequence[int], patch_size: PositiveInt, strides: PositiveInt = 1
) -> Array:
    """The values of a flattened image that each of its square patches takes.

    Args:
        image_shape: `(rows, cols, channels)`.
        patch_size: Side p of a patch.
        strides: Step between patches, in both directions.

    Returns:
        int64 array `(positions, p² channels)`, in the order (row, column, channel).

    Raises:
        ValueError: If the image is smaller than a patch.

    Example:
        >>> image_views((2, 2, 2), 1).tolist()
        [[0, 1], [2, 3], [4, 5], [6, 7]]
    """
    *spatial, channels = image_shape
    pixels = patch_indices(spatial, patch_size, strides)
    values = pixels[:, :, None] * channels + np.arange(channels)
    return values.reshape(len(pixels), -1)


@checked
def regression_points(
    config: ImageRegression, dataset: data.ImageDataset, seed: NonNegativeInt
) -> data.TeacherRegression:
    """A data set's images with the targets of a teacher over their patches."""
    views = image_views(dataset.image_shape, config.patch_size, config.strides)
    train, test, sample = (
        np.asarray(images, "float32").reshape(len(images), -1)
        for images in (
            dataset.x_train,
            dataset.x_test,
            dataset.x_validation[: config.num_standardize],
        )
    )
    mean = train.mean(dtype="float64")
    radius = config.radius or (train.shape[1] / views.shape[1]) ** 0.5
    scale = radius / np.sqrt(np.sum((train - mean) ** 2, axis=1, dtype="float64").mean())
    train, test, sample = (
        ((images - mean) * scale).astype("float32") for images in (train, test, sample)
    )
    seeds = [int(part) for part in np.random.SeedSequence(seed).generate_state(2)]
    teacher = data.conv_teacher(
        views.shape[1], config.teacher_width, sample, views=views, seed=seeds[0]
    )
    return data.teacher_regression(train, test, teacher, noise=config.noise, seed=seeds[1])


@checked
def run_image_regression(config: ImageRegression) -> dict[str, list[Row]]:
    """Train the three networks with each seed; a finished row is read from the run folder.

    Returns:
        Connectivity → one row for each seed, as `regression_row` gives it, and its `seed`.

    Raises:
        ConfigError: If the data set cannot be read, or its images are smaller than a patch.
        RunFolderError: If the folder holds something else, holds this comparison while `resume` is
            off, or cannot be written.
        RunPausedError: If `max_minutes` are over before the last run.
        TrainingDivergedError: If a run diverges; finished rows are kept.
    """
    deadline = config.deadline()
    dataset = training.build_dataset(config)
    if min(dataset.image_shape[:2]) < config.patch_size:
        raise training.ConfigError(
            "patch_size must not be larger than the images. Received: "
            f"patch_size={config.patch_size}, images of {dataset.image_shape}"
        )
    folder = training.RunFolder(config.run_dir)
    with claimed(folder, config, "comparison", dataset):
        rows: dict[str, list[Row]] = {name: [] for name in CONNECTIVITIES}
        for seed in range(config.seed, config.seed + config.num_seeds):
            for name in CONNECTIVITIES:
                label = f"{name}-seed{seed}"
                make = partial(_row, config, dataset, name, seed, label)
                row = stored_row(folder, label, make, deadline)
                rows[name].append(row)
                config.tell(
                    f"{label}: training error {row['train_error']:.3f}, excess risk "
                    f"{row['excess_risk']:.3f}, gap {row['gap']:.3f}, "
                    f"λη/2 {row['relative_sharpness']:.3f}, {row['seconds']} s"
                )
    return rows


@checked
def report_image_regression(config: ImageRegression) -> None:
    """Train the networks, print their table and write the page."""
    rows = run_image_regression(config)
    first = {name: found[0]["history"] for name, found in rows.items()}
    figures: training.Figures = {
        "gaps": (
            "Gap over training time ηt, one curve for each seed.",
            plots.gap_curves(
                {"gap over training": {name: curves_of(found) for name, found in rows.items()}}
            ),
        ),
        "sharpness": (
            "Sharpness against the edge 2/η, errors, and weighted path norm against its bound, "
            f"over the steps of seed {config.seed}.",
            plots.sharpness_curves(first),
        ),
        "units": (
            "Path norm of each hidden unit against the share of the training inputs (of all their "
            f"patches) that activate it, before and after training, seed {config.seed}.",
            plots.units_of_networks(units_by_connectivity(found[0] for found in rows.values())),
        ),
    }
    tables = {"Networks": _table(config, rows)}
    notes = [
        *NOTES,
        *environment_notes(row for found in rows.values() for row in found),
    ]
    gaps = {name: statistics.median(row["gap"] for row in found) for name, found in rows.items()}
    findings = [
        f"Generalization gap after {config.steps:,} steps, median over seeds: "
        f"{', '.join(f'{name} {gap:.3f}' for name, gap in gaps.items())}.",
        f"Smallest gap: {min(gaps, key=gaps.__getitem__)}.",
        *unsettled_findings(rows),
    ]
    title = "Regression on images at the edge of stability"
    show(title, config, tables, figures, notes, findings)


def _row(
    config: ImageRegression,
    dataset: data.ImageDataset,
    connectivity: Connectivity,
    seed: int,
    name: str,
) -> Row:
    points = regression_points(config, dataset, seed)
    width = getattr(config, f"{connectivity}_width")
    found = regression_row(points, connectivity, width, config, seed, name)
    return {"seed": seed, "connectivity": connectivity, **found}


def _table(config: ImageRegression, rows: Mapping[str, Sequence[Row]]) -> list[dict[str, str]]:
    return [
        {
            "connectivity": name,
            "width": str(getattr(config, f"{name}_width")),
            "seeds": str(len(found)),
            **spreads(found),
        }
        for name, found in rows.items()
    ]
