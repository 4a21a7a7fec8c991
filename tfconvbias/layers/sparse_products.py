"""Products with a sparse kernel, on NumPy arrays: three functions, compiled by Numba where it is.

A kernel of shape `(inputs, units)` is stored unit after unit: the weights of unit `j` are
`values[starts[j]:starts[j + 1]]`, and `rows` holds the input that each of them reads. Activations
come transposed, `(inputs, batch)` and `(units, batch)`, so that one weight meets two contiguous
runs of numbers. Every function takes the arithmetic's dtype from its arguments.

Without Numba the products are SciPy's and NumPy's: the same numbers up to rounding, in about three
to ten times the time.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tfconvbias.compiled import compiled
from tfconvbias.layers import product_loops

# Weights whose two runs of activations are gathered at a time where Numba is missing: few enough
# for the gathered numbers to stay in the processor's cache.
_GATHERED = 4096
# Multiplications from which on a product is shared among the processor's cores.
_SHARED_FROM = 1_000_000


class Products(NamedTuple):
    """The loops of `product_loops`, compiled."""

    kernel_product: Callable
    weight_gradient: Callable
    input_gradient: Callable


@functools.cache
def compiled_products() -> Products | None:
    """The compiled products, or None where Numba is not installed."""
    return compiled(product_loops, Products)


def kernel_product(inputs, values, rows, starts):
    """`kernel.T @ inputs`: the units' sums.

    Args:
        inputs: Array `(inputs, batch)`.
        values: Array `(nonzeros,)`.
        rows: Integer array `(nonzeros,)`: the input that each weight reads.
        starts: Integer array `(units + 1,)`: where each unit's weights begin.

    Returns:
        Array `(units, batch)`.
    """
    loops = compiled_products()
    if loops is None:
        return _matrix(values, rows, starts, inputs.shape[0]) @ inputs
    outputs = np.empty((starts.size - 1, inputs.shape[1]), inputs.dtype)
    work = functools.partial(loops.kernel_product, inputs, values, rows, starts)
    _share(work, outputs, unit_runs(starts, inputs.shape[1]))
    return outputs


def input_gradient(gradient, values, rows, starts, num_inputs):
    """`kernel @ gradient`: the gradient of the inputs.

    Args:
        gradient: Array `(units, batch)`: the gradient of the units' sums.
        values: As for `kernel_product`.
        rows: As for `kernel_product`.
        starts: As for `kernel_product`.
        num_inputs: Number of inputs.

    Returns:
        Array `(inputs, batch)`.
    """
    loops = compiled_products()
    if loops is None:
        return _matrix(values, rows, starts, num_inputs).T @ gradient
    outputs = np.zeros((num_inputs, gradient.shape[1]), gradient.dtype)
    # Each core has examples of its own, because two units may read the same input.
    ends = np.linspace(0, gradient.shape[1], num_cores() + 1).astype("int64")
    work = functools.partial(loops.input_gradient, gradient, values, rows, starts)
    _share(work, outputs, _runs(ends, rows.size * gradient.shape[1]))
    return outputs


def weight_gradient(inputs, gradient, rows, starts):
    """The entries of `inputs @ gradient.T` at the stored weights, and none of the others.

    Args:
        inputs: Array `(inputs, batch)`.
        gradient: Array `(units, batch)`: the gradient of the units' sums.
        rows: As for `kernel_product`.
        starts: As for `kernel_product`.

    Returns:
        Array `(nonzeros,)`.
    """
    loops = compiled_products()
    outputs = np.empty(rows.size, inputs.dtype)
    if loops is not None:
        work = functools.partial(loops.weight_gradient, inputs, gradient, rows, starts)
        _share(work, outputs, unit_runs(starts, inputs.shape[1]))
        return outputs
    units = units_of(starts)
    for begin in range(0, rows.size, _GATHERED):
        part = slice(begin, begin + _GATHERED)
        outputs[part] = np.einsum("kb,kb->k", inputs[rows[part]], gradient[units[part]])
    return outputs


def units_of(starts):
    """The unit of each stored weight, from where each unit's weights begin."""
    return np.repeat(np.arange(starts.size - 1, dtype="int32"), np.diff(starts))


def unit_runs(starts, batch: int) -> list[tuple[int, int]]:
    """Runs of units, from the first to before the last, with about equally many weights.

    One for each core; a single one where products with a batch are too small to share.

    Args:
        starts: As for `kernel_product`.
        batch: Number of examples.
    """
    ends = np.linspace(0, starts[-1], num_cores() + 1)[1:-1]
    borders = np.concatenate([[0], np.searchsorted(starts, ends), [starts.size - 1]])
    return _runs(borders, starts[-1] * batch)


def map_on_cores(function, items):
    """`map`, on all cores at once; NumPy's matrix products then use one core each.

    Two threads that each wait for the threads of the other's product are slower than one.
    """
    items = list(items)
    if len(items) < 2:
        return map(function, items)
    with _blas().limit(limits=1, user_api="blas"):
        return list(_threads().map(function, items))


def num_cores() -> int:
    """Number of the processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _matrix(values, rows, starts, num_inputs):
    import scipy.sparse

    return scipy.sparse.csr_array((values, rows, starts), shape=(starts.size - 1, num_inputs))


def _runs(borders, size):
    """The runs between borders, or a single one where the work is too little to share."""
    if size < _SHARED_FROM:
        borders = borders[[0, -1]]
    return list(itertools.pairwise(borders))


def _share(work, outputs, runs):
    """Do `work(first, last, outputs)` for all runs, at the same time."""
    *others, own = runs
    running = [_threads().submit(work, first, last, outputs) for first, last in others]
    work(*own, outputs)
    for part in running:
        part.result()


@functools.cache
def _threads():
    return ThreadPoolExecutor(num_cores(), thread_name_prefix="sparse_products")


@functools.cache
def _blas():
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
