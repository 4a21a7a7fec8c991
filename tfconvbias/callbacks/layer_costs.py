"""Measured time of a dense layer's training step, with its whole kernel and with its non-zeros."""

import statistics
import time

import keras
import numpy as np
from keras import ops

from tfconvbias.callbacks.certified_kernel import CertifiedKernel
from tfconvbias.optimizers import StepSizes
from tfconvbias.optimizers.beta_lasso import hard_threshold_step

_REPEATS = 5


def dense_seconds(shape, dtype, batch: int, needs_input_gradient: bool) -> float:
    """Time of the products and the update that a dense layer's kernel costs in a training step.

    Args:
        shape: The kernel's, `(inputs, units)`.
        dtype: The kernel's.
        batch: Number of examples.
        needs_input_gradient: Whether layers before this one are trained.

    Returns:
        Median of a few runs, in seconds.
    """
    inputs, gradient = (ops.convert_to_tensor(a) for a in _activations(shape, dtype, batch))
    kernel = keras.Variable(np.full(shape, 0.01, dtype), dtype=dtype)
    still = [ops.cast(0, dtype) for _ in range(3)]

    def products(kernel, inputs, gradient):
        outputs = [ops.matmul(inputs, kernel)]
        if needs_input_gradient:
            outputs.append(ops.matmul(gradient, ops.transpose(kernel)))
        return [*outputs, ops.matmul(ops.transpose(inputs), gradient)]

    def update(kernel, direction):
        return hard_threshold_step(kernel, direction, *still)

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        products, update = tf.function(products), tf.function(update, jit_compile=True)
    elif keras.config.backend() == "jax":
        import jax

        products, update = jax.jit(products), _waiting(jax.jit(update))

    def run():
        value = ops.stop_gradient(ops.convert_to_tensor(kernel))
        kernel.assign(update(value, products(value, inputs, gradient)[-1]))

    return _median_seconds(run)


def sparse_seconds(kernel, batch: int, needs_input_gradient: bool) -> float:
    """The same time with the non-zeros of `kernel`, where the certificate settles all zeros."""
    certified = CertifiedKernel()
    certified.load(kernel)
    inputs, gradient = (
        np.ascontiguousarray(part.T) for part in _activations(kernel.shape, kernel.dtype, batch)
    )
    still = StepSizes(*np.zeros(3, kernel.dtype))

    def run():
        certified.product(inputs)
        if needs_input_gradient:
            certified.input_gradient(gradient)
        certified.update(inputs, gradient, still)

    return _median_seconds(run)


def _waiting(function):
    """A compiled function of JAX that returns when its result is there."""
    import jax

    return lambda *arguments: jax.block_until_ready(function(*arguments))


def _activations(shape, dtype, batch):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((batch, size)).astype(dtype) for size in shape]


def _median_seconds(run) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
