"""Full-batch gradient descent with a linear warm-up, measured on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfconvbias import models, training

_TAIL = 10


@dataclass(frozen=True)
class DescentConfig(training.Config):
    """Steps and step size of full-batch gradient descent on half the mean squared error.

    Raises:
        ConfigError: If a value is out of its range, or `measure_every` does not divide `steps`.
    """

    steps: int = training.option(10_000, "full-batch steps")
    learning_rate: float = training.option(
        0.4, "η for half the mean squared error: the edge of stability is 2/η"
    )
    warmup_steps: int = training.option(
        1000, "steps over which the learning rate rises linearly from 0"
    )
    measure_every: int = training.option(100, "steps between measurements; a divisor of the steps")

    def __post_init__(self):
        super().__post_init__()
        self._positive("steps", "warmup_steps", "measure_every")
        self._above_zero("learning_rate")
        if self.steps % self.measure_every:
            raise training.ConfigError(
                "measure_every must divide steps. "
                f"Received: measure_every={self.measure_every}, steps={self.steps}"
            )


def descend(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    config: DescentConfig,
    watchers: Sequence[keras.callbacks.Callback],
    **compile_options: Any,
) -> training.History:
    """Train a model on all points at once.

    Args:
        model: The model; it is compiled here.
        x: All inputs.
        y: All targets.
        config: Steps and step size.
        watchers: Callbacks that measure the model, such as `callbacks.Sharpness`.
        **compile_options: Further arguments of `model.compile`.

    Returns:
        Column → one value each `measure_every` steps; the column `step` counts them.
    """
    rate = keras.optimizers.schedules.PolynomialDecay(
        0.0, config.warmup_steps, end_learning_rate=config.learning_rate
    )
    every = config.measure_every
    model.compile(
        keras.optimizers.SGD(rate),
        models.HalfMeanSquaredError(),
        # PyTorch takes one step per execution.
        steps_per_execution=1 if keras.config.backend() == "torch" else every,
        **compile_options,
    )
    found = model.fit(
        _same_batch(x, y),
        steps_per_epoch=every,
        epochs=config.steps // every,
        shuffle=False,
        verbose=0,
        callbacks=list(watchers),
    ).history
    history = {name: [float(value) for value in values] for name, values in found.items()}
    history["step"] = [float(step) for step in range(every, config.steps + 1, every)]
    return history


def edge_ratios(history: training.History) -> list[float]:
    """λη/2 of the last ten measurements: the sharpness as a share of the edge of stability."""
    last = zip(history["sharpness"][-_TAIL:], history["edge"][-_TAIL:], strict=True)
    return [sharpness / edge for sharpness, edge in last]


def _same_batch(x: np.ndarray, y: np.ndarray) -> Any:
    """The whole training set as one batch, again and again."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors((x, y)).repeat()
