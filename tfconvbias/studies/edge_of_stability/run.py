r"""One two-layer ReLU network on the sphere, trained by full-batch gradient descent."""

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from tfconvbias.training.claimed_folder import write_json

from tfconvbias import callbacks, data, models
from tfconvbias.training.environment import environment
from tfconvbias.training.errors import ConfigError, TrainingDivergedError

_TAIL = 10


@dataclasses.dataclass(frozen=True)
class StabilityRun:
    """Everything that determines one run.

    Attributes:
        connectivity: `"dense"`, `"local"` or `"conv"`.
        width: Hidden units, or filters.
        num_train: Training points n.
        patch_size: m, of the teacher and of the network where it has patches.
        seed: Seed of data, teacher and initial weights.
        steps: Full-batch steps.
        learning_rate: η, for half the mean squared error: the edge of stability is 2/η.
        dimension: d.
        warmup_steps: Steps over which the rate rises linearly from 0.
        noise: Standard deviation σ of the training noise.
        num_test: Clean test points.
        teacher_width: Units of the teacher.
        measure_every: Steps between measurements; a divisor of `steps`.
    """

    connectivity: Literal["dense", "local", "conv"]
    width: int
    num_train: int = 256
    patch_size: int = 4
    seed: int = 0
    steps: int = 10_000
    learning_rate: float = 0.4
    dimension: int = 40
    warmup_steps: int = 1000
    noise: float = 1.0
    num_test: int = 4000
    teacher_width: int = 20
    measure_every: int = 100

    def __post_init__(self):
        if self.steps < 1 or self.measure_every < 1 or self.steps % self.measure_every:
            raise ConfigError(
                "`measure_every` must divide `steps`. "
                f"Received: measure_every={self.measure_every}, steps={self.steps}"
            )
        if self.dimension % self.patch_size:
            raise ConfigError(
                "`patch_size` must divide `dimension`. "
                f"Received: patch_size={self.patch_size}, dimension={self.dimension}"
            )
        if not self.learning_rate > 0 or self.warmup_steps < 1:
            raise ConfigError(
                "`learning_rate` and `warmup_steps` must be positive. Received: "
                f"learning_rate={self.learning_rate}, warmup_steps={self.warmup_steps}"
            )

    @property
    def name(self) -> str:
        """A readable name that no other run has."""
        fields = json.dumps(dataclasses.asdict(self), sort_keys=True)
        digest = hashlib.sha256(fields.encode()).hexdigest()[:8]
        return (
            f"{self.connectivity}-k{self.width}-n{self.num_train}-m{self.patch_size}"
            f"-eta{self.learning_rate:g}-seed{self.seed}-{digest}"
        )


def stored_run(run: StabilityRun, folder: str | Path) -> dict[str, Any]:
    """The row of a run: read from `folder` if it is there, else trained and written there.

    The file appears when the run is complete, so that a killed sweep loses one run at most.
    """
    file = Path(folder) / f"{run.name}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    row = stability_row(run)
    write_json(file, row)
    return row


def stability_row(run: StabilityRun) -> dict[str, Any]:
    """Train one network and measure it on the way.

    Returns:
        `config`, `history` (column → one value each `measure_every` steps, with `step`), the last
        value of each column under its name, `relative_sharpness` (the median of λη/2 over the last
        ten measurements, for the edge is approached in swings), `radius`, `seconds` and
        `environment`.

    Raises:
        TrainingDivergedError: If the training error isn't finite at the end.
    """
    points = data.sphere_regression(
        run.num_train,
        run.dimension,
        run.patch_size,
        noise=run.noise,
        num_test=run.num_test,
        teacher_width=run.teacher_width,
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
    warmup = keras.optimizers.schedules.PolynomialDecay(
        0.0, run.warmup_steps, end_learning_rate=run.learning_rate
    )
    model.compile(
        keras.optimizers.SGD(warmup),
        models.HalfMeanSquaredError(),
        steps_per_execution=steps_per_execution(run.measure_every),
    )
    began = time.perf_counter()
    history = model.fit(
        same_batch(x, y),
        steps_per_epoch=run.measure_every,
        epochs=run.steps // run.measure_every,
        shuffle=False,
        verbose=0,
        callbacks=[
            callbacks.Sharpness(x, y, batch_size=run.num_train),
            callbacks.PathNorm(x, y),
            callbacks.ActiveUnits(x),
            callbacks.GeneralizationGap(x, y, points.x_test, points.y_test, run.noise),
        ],
    ).history
    seconds = time.perf_counter() - began
    columns = {name: [float(value) for value in values] for name, values in history.items()}
    columns["step"] = [
        float(step) for step in range(run.measure_every, run.steps + 1, run.measure_every)
    ]
    last = {name: values[-1] for name, values in columns.items()}
    if not last["train_error"] < float("inf"):
        raise TrainingDivergedError(f"{run.name}: the training error is {last['train_error']}.")
    ratios = sorted(
        value / edge
        for value, edge in zip(columns["sharpness"][-_TAIL:], columns["edge"][-_TAIL:], strict=True)
    )
    return {
        "config": dataclasses.asdict(run),
        **last,
        "relative_sharpness": ratios[len(ratios) // 2],
        "seconds": round(seconds, 1),
        "history": columns,
        "environment": environment(),
    }


def steps_per_execution(steps: int) -> int:
    """As many steps in one call as the backend takes: PyTorch takes one."""
    return 1 if keras.config.backend() == "torch" else steps


def same_batch(x: np.ndarray, y: np.ndarray) -> Any:
    """The whole training set as one batch, again and again."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors((x, y)).repeat()
