"""How long models take to infer, side by side."""

import statistics
import time
from collections.abc import Mapping

import keras
import numpy as np

from tfconvbias.arguments import checked


@checked
def inference_times(
    models: Mapping[str, keras.Model], images: np.ndarray, turns: int = 7
) -> dict[str, list[float]]:
    """Seconds in which models infer the same batch, turn by turn.

    The models take turns, so that a slow moment of the machine meets all of them: compare with
    `time_ratio`, not across calls. One turn before the first, with the compilation, is not counted.

    Args:
        models: name → model.
        images: one batch, `(batch, …)`.
        turns: how often each model infers it.

    Returns:
        Name → seconds of each turn.

    Raises:
        ValueError: If `turns` is below 1.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> len(inference_times({"dense": model}, np.ones((4, 2)), turns=3)["dense"])
        3
    """
    if turns < 1:
        raise ValueError(f"`turns` must be at least 1. Received: turns={turns}")
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(turns + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(images)
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


@checked
def time_ratio(own: list[float], other: list[float]) -> float:
    """Median over turns of one model's time divided by another's.

    Example:
        >>> time_ratio([1.0, 2.0, 9.0], [2.0, 4.0, 3.0])
        0.5
    """
    return statistics.median(a / b for a, b in zip(own, other, strict=True))
