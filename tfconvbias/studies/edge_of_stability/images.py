"""Image networks of each connectivity under full-batch gradient descent, with their sharpness."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tfconvbias.training.claimed_folder import write_json
from tfconvbias.training.stability_run import same_batch, steps_per_execution

from tfconvbias import callbacks, data, models, plots
from tfconvbias.training.build import build_dataset
from tfconvbias.training.environment import environment
from tfconvbias.training.errors import ConfigError, TrainingDivergedError
from tfconvbias.training.run_config import RunConfig, option

CONNECTIVITIES = ("dense", "local", "conv")


@dataclasses.dataclass(frozen=True)
class StabilityImages:
    """What the recipe's command line sets; the fields' help stands in their metadata."""

    dataset: str = option("cifar10", "as for the other recipes: a name or a folder of images")
    base_channels: int = option(4, "α: channels of the first layer")
    num_train: int = option(512, "training images, drawn by class: one full batch")
    num_test: int = option(2000, "test images")
    label_noise: float = option(0.25, "share of the training labels that are redrawn at random")
    learning_rate: float = option(1.0, "η for half the squared error, averaged over classes")
    steps: int = option(1000, "full-batch steps")
    warmup_steps: int = option(100, "steps over which the rate rises linearly from 0")
    measure_every: int = option(50, "steps between measurements")
    seed: int = option(0, "seed of subset, label noise and initial weights")
    run_dir: str = option("runs/edge-of-stability-images", "folder of rows and figure")

    def __post_init__(self):
        if self.measure_every < 1 or self.steps < 1 or self.steps % self.measure_every:
            raise ConfigError(
                "`measure_every` must divide `steps`. "
                f"Received: measure_every={self.measure_every}, steps={self.steps}"
            )
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(
                f"`label_noise` must lie in [0, 1]. Received: label_noise={self.label_noise}"
            )


def run_stability_images(config: StabilityImages) -> dict[str, dict[str, Any]]:
    """Train S-FC, S-LOCAL and S-CONV on the same images, labels and step size.

    Returns:
        Connectivity → row with the last values of `history`, `relative_sharpness` (median of λη/2
        over the last ten measurements) and `memorized`, the share of the redrawn labels that the
        network gives back. A finished row is read from the run folder.

    Raises:
        ConfigError: If the data set can't be read.
        TrainingDivergedError: If the loss isn't finite at the end.
    """
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = build_dataset(
        RunConfig(dataset=config.dataset, num_train=config.num_train, seed=config.seed)
    ).limit(num_test=config.num_test, seed=config.seed)
    rows = {}
    for connectivity in CONNECTIVITIES:
        file = folder / f"{connectivity}.json"
        wanted = dataclasses.asdict(config) | {"connectivity": connectivity}
        if file.exists():
            row = json.loads(file.read_text(encoding="utf-8"))
            if row["config"] != wanted:
                raise ConfigError(f"{file} holds another configuration. Choose another --run-dir.")
        else:
            row = {"config": wanted, **_train(config, connectivity, dataset)}
            write_json(file, row)
        rows[connectivity] = row
        print(
            f"{connectivity}: λη/2 {row['relative_sharpness']:.3f}, "
            f"training accuracy {row['accuracy']:.3f}, "
            f"redrawn labels memorized {row['memorized']:.3f}, "
            f"test accuracy {row['test_accuracy']:.3f}",
            flush=True,
        )
    figure = plots.sharpness_and_accuracy({name: row["history"] for name, row in rows.items()})
    figure.savefig(folder / "sharpness.png", dpi=110)
    print(f"Rows and figure: {folder}")
    return rows


class _TestAccuracy(callbacks.Measurement):
    """Accuracy on a test set, with the moving statistics of BatchNormalization."""

    names = ("test_accuracy",)

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def measure(self, logs):
        logits = self.model.predict(self.x, batch_size=500, verbose=0)
        return {"test_accuracy": float(np.mean(logits.argmax(axis=1) == self.y))}


def _train(config, connectivity, dataset) -> dict[str, Any]:
    keras.utils.set_random_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    labels = np.array(dataset.y_train)
    redrawn = rng.permutation(len(labels))[: round(config.label_noise * len(labels))]
    labels[redrawn] = rng.integers(0, dataset.num_classes, len(redrawn))
    x, y = dataset.x_train, np.eye(dataset.num_classes, dtype="float32")[labels]

    model = models.SConv(
        config.base_channels,
        connectivity,
        input_shape=dataset.image_shape,
        classes=dataset.num_classes,
        preprocessing=data.preprocessing(dataset, augment="none", seed=config.seed),
    )
    rate = keras.optimizers.schedules.PolynomialDecay(
        0.0, config.warmup_steps, end_learning_rate=config.learning_rate
    )
    model.compile(
        keras.optimizers.SGD(rate),
        models.HalfMeanSquaredError(),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution(config.measure_every),
        jit_compile=False,
    )
    history = model.fit(
        same_batch(x, y),
        steps_per_epoch=config.measure_every,
        epochs=config.steps // config.measure_every,
        shuffle=False,
        verbose=0,
        callbacks=[
            # What descends is the loss with the batch's own statistics.
            callbacks.Sharpness(x, y, batch_size=len(x), training=True, tolerance=1e-2),
            _TestAccuracy(dataset.x_test, dataset.y_test),
        ],
    ).history
    columns = {name: [float(value) for value in values] for name, values in history.items()}
    columns["step"] = [
        float(step) for step in range(config.measure_every, config.steps + 1, config.measure_every)
    ]
    if not np.isfinite(columns["loss"][-1]):
        raise TrainingDivergedError(f"{connectivity}: the loss is {columns['loss'][-1]}.")
    ratios = np.array(columns["sharpness"][-10:]) / np.array(columns["edge"][-10:])
    given = model.predict(x[redrawn], verbose=0).argmax(axis=1) if len(redrawn) else labels[:0]
    return {
        **{name: values[-1] for name, values in columns.items()},
        "relative_sharpness": float(np.median(ratios)),
        "memorized": float(np.mean(given == labels[redrawn])) if len(redrawn) else 0.0,
        "parameters": model.count_params(),
        "history": columns,
        "environment": environment(),
    }
