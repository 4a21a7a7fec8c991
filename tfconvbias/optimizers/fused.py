"""Element-wise updates of large variables in few passes over memory."""

import functools
from collections.abc import Callable

import keras

# From 256 KiB on a variable outgrows the inner caches and each op of an update costs a pass over
# main memory; below, compiling or cutting up costs more than it saves.
MIN_FUSED_SIZE = 2**16

# Elements, 1 MiB: what an update's temporaries may hold to stay in cache.
CHUNK_SIZE = 2**18


def apply_elementwise(optimizer, update: Callable, variable, direction, *scalars) -> None:
    """Assigns `update(variable, direction, *scalars)` to the variable.

    An update of eight element-wise ops that runs op by op reads and writes main memory some twenty
    times. For large variables on a CPU that is avoided:

    - TensorFlow: the update is compiled by XLA, also inside a step with `jit_compile=False`. XLA
      may contract a product and a sum into one rounding (FMA), so that compiled and uncompiled
      results differ in the last bit, as they do for Keras' own SGD.
    - PyTorch: the update runs in place on one cache-sized chunk after the other; the result is the
      same to the bit.

    On other devices, and on JAX, which compiles the whole step, the update runs as it is.

    Args:
        optimizer: The optimizer, for its `assign`.
        update: A function of tensors (weights, direction, scalars) that acts on each element alone
            and returns the new weights. On TensorFlow it must be the same object on every call.
        variable: The variable to be updated, a `tf.Variable` on TensorFlow.
        direction: A dense tensor of the variable's shape.
        *scalars: Scalar tensors.
    """
    backend = keras.config.backend()
    if backend == "torch" and _fits_chunks(variable.value):
        _apply_in_chunks(update, variable.value, direction, scalars)
        return
    if (
        backend == "tensorflow"
        and variable.shape.num_elements() >= MIN_FUSED_SIZE
        and "CPU" in variable.device
    ):
        update = _compiled(update, tuple(variable.shape), variable.dtype)
    weights = keras.ops.convert_to_tensor(variable)
    optimizer.assign(variable, update(weights, direction, *scalars))


@functools.cache
def _compiled(update: Callable, shape: tuple[int, ...], dtype) -> Callable:
    # One function per shape: a shared one would be reported as retracing without end.
    del shape, dtype
    import tensorflow as tf

    return tf.function(update, autograph=False, jit_compile=True)


def _fits_chunks(weights) -> bool:
    large = weights.numel() >= MIN_FUSED_SIZE
    return large and weights.device.type == "cpu" and weights.is_contiguous()


def _apply_in_chunks(update: Callable, weights, direction, scalars) -> None:
    import torch

    with torch.no_grad():
        chunks = zip(
            weights.view(-1).split(CHUNK_SIZE),
            direction.reshape(-1).split(CHUNK_SIZE),
            strict=True,
        )
        for chunk, chunk_direction in chunks:
            chunk.copy_(update(chunk, chunk_direction, *scalars))
