"""Initializers of unshared kernels with the statistics of a shared one."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def at_each_position(initializer: Callable, num_positions: int) -> Callable:
    """An initializer of a local kernel that draws each position's kernel as a convolution's.

    An output of a locally connected layer sums over its receptive field, as an output of the
    convolution does, so its weights need the convolution's variance. Two kinds of initializer read
    a kernel's shape and would take the axes of the output positions for more receptive field:

    - `VarianceScaling` and its children (Glorot, He, LeCun): with `n` positions both of their fans
      come out `n` times too large, and the variance `n` times too small. Their values are
      multiplied by `√n`, which is exact for each of their distributions. With explicit `input_axes`
      and `output_axes` an initializer is taken at its word and left alone.
    - `Orthogonal`: it would spread one orthogonal matrix over all positions. It is drawn for each
      position instead.

    Any other initializer is called with the whole shape as it is.

    Args:
        initializer: Callable of `(shape, dtype)`.
        num_positions: Number of output positions, the product of the kernel's leading axes.

    Returns:
        Callable of `(shape, dtype)`.

    Example:
        >>> init = at_each_position(keras.initializers.HeNormal(seed=0), num_positions=100)
        >>> round(float(ops.std(init((100, 3, 3, 8, 16)))) / (2 / 72) ** 0.5, 1)
        1.0
    """
    if isinstance(initializer, keras.initializers.Orthogonal):
        return _OrthogonalAtEachPosition(initializer, num_positions)
    # The two attributes exist from Keras 3.15 on.
    takes_axes = getattr(initializer, "input_axes", None) is not None
    if isinstance(initializer, keras.initializers.VarianceScaling) and not takes_axes:
        return _Scaled(initializer, math.sqrt(num_positions))
    return initializer


class _Scaled:
    def __init__(self, initializer: Callable, factor: float):
        self.initializer = initializer
        self.factor = factor

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return self.initializer(shape, dtype=dtype) * self.factor


class _OrthogonalAtEachPosition:
    def __init__(self, initializer: keras.initializers.Orthogonal, num_positions: int):
        self.initializer = initializer
        self.num_positions = num_positions

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        num_columns = shape[-1]
        num_rows = math.prod(shape[:-1]) // self.num_positions
        tall = (self.num_positions, max(num_rows, num_columns), min(num_rows, num_columns))
        # One batched factorisation: a kernel per position, each with draws of its own.
        q, r = ops.qr(keras.random.normal(tall, dtype="float32", seed=self.initializer.seed))
        q = q * ops.sign(ops.diagonal(r, axis1=1, axis2=2))[:, None, :]
        if num_rows < num_columns:
            q = ops.transpose(q, (0, 2, 1))
        values = ops.reshape(q, shape) * self.initializer.gain
        return values if dtype is None else ops.cast(values, dtype)
