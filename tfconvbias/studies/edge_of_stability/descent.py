"""Full-batch gradient descent with a linear warm-up, measured on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfconvbias import training
from tfconvbias.lazy import callbacks, keras, models

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
    watchers: Sequence[callbacks.Measurement],
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
        Column → one value before the first step and one each `measure_every` steps; the column
        `step` counts them, and `time` is ηt, the sum of all steps' learning rates. What only
        training gives, such as `loss`, is NaN before the first step.
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
    from tfconvbias.studies.edge_of_stability.watchers import Start

    start = Start(watchers)
    found = model.fit(
        _same_batch(x, y),
        steps_per_epoch=every,
        epochs=config.steps // every,
        shuffle=False,
        verbose=0,
        callbacks=[*watchers, start],
    ).history
    history = {
        name: [float(start.found.get(name, math.nan)), *map(float, values)]
        for name, values in found.items()
    }
    steps = range(0, config.steps + 1, every)
    history["step"] = [float(step) for step in steps]
    history["time"] = [_time(step, config) for step in steps]
    return history


def edge_ratios(history: training.History) -> list[float]:
    """λη/2 of the last ten measurements: the sharpness as a share of the edge of stability."""
    pairs = zip(history["sharpness"], history["edge"], strict=True)
    return [sharpness / edge for sharpness, edge in pairs if edge < math.inf][-_TAIL:]


def _time(step: int, config: DescentConfig) -> float:
    """The sum of the learning rates of the first steps: η·i/w at step i of the warm-up, then η."""
    warm = min(step, config.warmup_steps)
    risen = warm * (warm - 1) / 2 / config.warmup_steps
    return config.learning_rate * (risen + step - warm)


def _same_batch(x: np.ndarray, y: np.ndarray) -> Any:
    """The whole training set as one batch, again and again."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors((x, y)).repeat()
