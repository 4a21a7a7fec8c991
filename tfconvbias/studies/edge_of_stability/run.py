"""One two-layer ReLU network on the sphere, trained by full-batch gradient descent."""

import hashlib
import json
import statistics
import time
from dataclasses import dataclass
from typing import Literal

from tfconvbias import callbacks, data, models, training
from tfconvbias.studies.edge_of_stability.descent import DescentConfig, descend, edge_ratios
from tfconvbias.studies.edge_of_stability.stored_rows import Row


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
    num_test: int = training.option(4000, "clean test points")
    teacher_width: int = training.option(20, "units of the teacher")

    def __post_init__(self):
        super().__post_init__()
        self._positive("width", "num_train", "patch_size", "dimension", "num_test", "teacher_width")
        self._at_least_zero("noise")
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


def stability_row(run: StabilityRun) -> Row:
    """Train one network and measure it on the way.

    Returns:
        `config`, `history` (column → values as `descend` gives them), the last value of each
        column under its name, `relative_sharpness` (the upper median of λη/2 over the last ten
        measurements, because the sharpness swings around the edge), `gap_at_half_time` (at the
        first measurement with half of the final ηt or more), `seconds` and `environment`.

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
        seed=run.seed,
    )
    x, y = points.x_train, points.y_train
    model = models.TwoLayerReLU(
        run.connectivity,
        run.dimension,
        run.width,
        patch_size=None if run.connectivity == "dense" else run.patch_size,
        seed=run.seed,
    )
    watchers = [
        callbacks.Sharpness(x, y, batch_size=run.num_train),
        callbacks.PathNorm(x, y),
        callbacks.ActiveUnits(x),
        callbacks.GeneralizationGap(x, y, points.x_test, points.y_test, run.noise),
    ]
    began = time.perf_counter()
    history = descend(model, x, y, run, watchers)
    seconds = time.perf_counter() - began
    last = {name: values[-1] for name, values in history.items()}
    if not last["train_error"] < float("inf"):
        raise training.TrainingDivergedError(
            f"{run.name}: the training error is {last['train_error']}."
        )
    return {
        "config": run.identity(),
        **last,
        "gap_at_half_time": _at_half_time(history),
        "relative_sharpness": statistics.median_high(edge_ratios(history)),
        "seconds": round(seconds, 1),
        "history": history,
        "environment": training.environment(),
    }


def _at_half_time(history: training.History) -> float:
    pairs = zip(history["time"], history["gap"], strict=True)
    return next(gap for time, gap in pairs if time >= history["time"][-1] / 2)
