"""How long layers take to infer, side by side."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

_LEAST_TURNS = 7
_MOST_TURNS = 60
_SECONDS = 0.5


def inference_ms(
    layers: Mapping[Any, keras.layers.Layer], num_inputs: int, num_examples: int
) -> dict[Any, float]:
    """Median milliseconds in which built layers infer the same examples, in turns.

    Args:
        layers: Name → layer, all of one compute dtype.
        num_inputs: Number of inputs.
        num_examples: Number of examples of a call.

    Returns:
        Name → milliseconds, with what a compiled call takes by itself.
    """
    inputs = np.random.default_rng(0).normal(size=(num_examples, num_inputs))
    dtype = next(iter(layers.values())).compute_dtype
    tensor = ops.cast(ops.convert_to_tensor(inputs.astype("float32")), dtype)
    functions = {name: compiled(layer) for name, layer in layers.items()}
    times: dict[Any, list[float]] = {name: [] for name in layers}
    for function in functions.values():
        # With the compilation.
        _wait_for(function(tensor))
    end = time.perf_counter() + _SECONDS * len(layers)
    turns = 0
    while turns < _LEAST_TURNS or (turns < _MOST_TURNS and time.perf_counter() < end):
        turns += 1
        for name, function in functions.items():
            begin = time.perf_counter()
            _wait_for(function(tensor))
            times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def compiled(layer: keras.layers.Layer) -> Callable:
    """A layer's inference, or a model's, as the backend compiles it."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda inputs: layer(inputs, training=False))
    if backend == "jax":
        import jax

        trainable, fixed = (
            [variable.value for variable in variables]
            for variables in (layer.trainable_variables, layer.non_trainable_variables)
        )
        call = jax.jit(lambda *args: layer.stateless_call(*args, training=False)[0])
        return lambda inputs: call(trainable, fixed, inputs)
    import torch

    def run(inputs):
        with torch.no_grad():
            return layer(inputs, training=False)

    return run


def _wait_for(outputs) -> None:
    """A call may return before its numbers are there."""
    ops.convert_to_numpy(outputs)
