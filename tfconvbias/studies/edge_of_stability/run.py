"""One two-layer ReLU network on the sphere, trained by full-batch gradient descent."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfconvbias import training
from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, callbacks, data, keras, models
from tfconvbias.studies.edge_of_stability.descent import DescentConfig, descend, edge_ratios
from tfconvbias.studies.edge_of_stability.stored_rows import Row

Array = np.ndarray
Connectivity = Literal["dense", "local", "conv"]
CONNECTIVITIES: tuple[Connectivity, ...] = ("dense", "local", "conv")


@dataclass(frozen=True)
class StabilityRun(DescentConfig):
    """Everything that determines one run.

    Raises:
        ConfigError: If a value is out of its range, or the patches do not tile the input.
    """

    connectivity: Literal["dense", "local", "conv"] = training.option(
        "conv", "conv, local (no weight sharing) or dense (no locality either)"
    )
    width: int = training.option(128, "hidden units, or filters")
    num_train: int = training.option(256, "training points n")
    patch_size: int = training.option(
        4, "m, of the teacher, and of the network where it has patches"
    )
    seed: int = training.option(0, "seed of data, teacher and initial weights")
    dimension: int = training.option(40, "d of the inputs")
    noise: float = training.option(1.0, "standard deviation σ of the training noise")
    inputs: Literal["sphere", "product"] = training.option(
        "sphere", "points on one sphere, or each patch on a sphere of its own"
    )
    radius: float | None = training.option(
        None, "norm of the inputs; none: the root of the number of patches"
    )
    views: Literal["blocks", "strided", "random", "identical"] = training.option(
        "blocks", "which inputs the patches of teacher and network take"
    )
    num_test: int = training.option(4000, "clean test points")
    teacher_width: int = training.option(20, "units of the teacher")

    def __post_init__(self):
        super().__post_init__()
        self._positive("width", "num_train", "patch_size", "dimension", "num_test", "teacher_width")
        self._at_least_zero("noise")
        self._seeds("seed")
        if self.radius is not None:
            self._above_zero("radius")
        if self.dimension % self.patch_size:
            raise training.ConfigError(
                "patch_size must divide dimension. "
                f"Received: patch_size={self.patch_size}, dimension={self.dimension}"
            )

    @property
    def name(self) -> str:
        """A readable name that no other run has."""
        fields = json.dumps(self.identity(), sort_keys=True)
        digest = hashlib.sha256(fields.encode()).hexdigest()[:8]
        return (
            f"{self.connectivity}-k{self.width}-n{self.num_train}-m{self.patch_size}"
            f"-eta{self.learning_rate:g}-seed{self.seed}-{digest}"
        )


@checked
def stability_row(run: StabilityRun) -> Row:
    """Train one network on the sphere and measure it on the way.

    Returns:
        `config`, and what `regression_row` returns.

    Raises:
        TrainingDivergedError: If the training error is not finite at the end.
    """
    points = data.sphere_regression(
        run.num_train,
        run.dimension,
        run.patch_size,
        noise=run.noise,
        num_test=run.num_test,
        teacher_width=run.teacher_width,
        inputs=run.inputs,
        radius=run.radius,
        views=run.views,
        seed=run.seed,
    )
    found = regression_row(points, run.connectivity, run.width, run, run.seed, run.name)
    return {"config": run.identity(), **found}


def regression_row(
    points: data.TeacherRegression,
    connectivity: Connectivity,
    width: int,
    descent: DescentConfig,
    seed: int,
    name: str,
) -> Row:
    """Train one network on a teacher's targets and measure it on the way.

    Args:
        points: The data. A dense network takes them as they are, others take the teacher's views.
        connectivity: Of the network.
        width: Hidden units, or filters.
        descent: Steps and step size.
        seed: Seed of the initial weights.
        name: The run's name, for messages.

    Returns:
        `history` (column → values as `descend` gives them), the last value of each column under its
        name, `relative_sharpness` (the upper median of λη/2 over the last ten measurements, because
        the sharpness swings around the edge), `gap_at_half_time` (at the first measurement with
        half of the final ηt or more), `units` (activation rates and path norms of the hidden units,
        `start` and `end`), `seconds` and `environment`.

    Raises:
        TrainingDivergedError: If the training error is not finite at the end.
    """
    views = points.teacher.views
    x, x_test = points.x_train, points.x_test
    if connectivity != "dense" and views is not None:
        x, x_test = x[:, views.ravel()], x_test[:, views.ravel()]
    model = models.TwoLayerReLU(
        width,
        connectivity=connectivity,
        dimension=x.shape[1],
        patch_size=None if connectivity == "dense" else len(points.teacher.kernel),
        seed=seed,
    )
    watchers = [
        callbacks.Sharpness(x, points.y_train, batch_size=len(x)),
        callbacks.PathNorm(x, points.y_train),
        callbacks.ActiveUnits(x),
        callbacks.GeneralizationGap(x, points.y_train, x_test, points.y_test, points.noise),
    ]
    began = time.perf_counter()
    start = _units(model, x)
    history = descend(model, x, points.y_train, descent, watchers)
    seconds = time.perf_counter() - began
    last = {column: values[-1] for column, values in history.items()}
    if not last["train_error"] < float("inf"):
        raise training.TrainingDivergedError(
            f"{name}: the training error is {last['train_error']}."
        )
    return {
        **last,
        "gap_at_half_time": _at_half_time(history),
        "relative_sharpness": statistics.median_high(edge_ratios(history)),
        "units": {"start": start, "end": _units(model, x)},
        "seconds": round(seconds, 1),
        "history": history,
        "environment": training.environment(),
    }


def _units(model: keras.Model, x: Array) -> dict[str, list[float]]:
    """Activation rate on the training points, and path norm, of each hidden unit."""
    hidden, output = model.get_layer("hidden"), model.get_layer("output")
    kernel, bias, outgoing = (
        keras.ops.convert_to_numpy(weight) for weight in (hidden.kernel, hidden.bias, output.kernel)
    )
    inputs = x.reshape(len(x), *hidden.input.shape[1:])
    return {
        "activation_rate": analysis.activation_rates(inputs, kernel, bias).tolist(),
        "path_norm": analysis.unit_path_norms(kernel, outgoing).tolist(),
    }


def _at_half_time(history: training.History) -> float:
    pairs = zip(history["time"], history["gap"], strict=True)
    return next(gap for time, gap in pairs if time >= history["time"][-1] / 2)
