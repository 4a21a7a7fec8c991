"""One pass over memory for an element-wise update on TensorFlow's CPU."""

import functools
from collections.abc import Callable

import keras

# From 256 KiB on a variable outgrows the inner caches and each op of the update costs a pass over
# main memory; below, compiling costs more than it saves.
MIN_FUSED_SIZE = 2**16


def fuse(update: Callable, variable) -> Callable:
    """Returns `update`, compiled by XLA where that is known to save passes over memory.

    TensorFlow runs an uncompiled step op by op: an update of eight element-wise ops reads and
    writes main memory some twenty times. Compiled, it reads each operand once. That also holds
    inside a step with `jit_compile=False`. Only large variables that live on a CPU are treated so;
    inside a compiled step, on other devices and on other backends (JAX compiles the whole step)
    `update` is returned as it is.

    XLA may contract a product and a sum into one rounding (FMA), so that compiled and uncompiled
    results differ in the last bit, as they do for Keras' own SGD.

    Args:
        update: A function of tensors, first of them one of the variable's shape, that returns a
            tensor. It must be hashable and be the same object on every call.
        variable: The variable to be updated, a `tf.Variable` on TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        return update
    if variable.shape.num_elements() < MIN_FUSED_SIZE or "CPU" not in variable.device:
        return update
    return _compiled(update, tuple(variable.shape), variable.dtype)


@functools.cache
def _compiled(update: Callable, shape: tuple[int, ...], dtype) -> Callable:
    # One function per shape: a shared one would be reported as retracing without end.
    del shape, dtype
    import tensorflow as tf

    return tf.function(update, autograph=False, jit_compile=True)
