"""The trace of a symmetric matrix that is known by its products with vectors."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Array = np.ndarray
TraceMethod = Literal["hutchinson", "hutch++"]


@dataclasses.dataclass(frozen=True)
class TraceEstimate:
    """A trace and how well it is known.

    Attributes:
        value: The estimate, which is unbiased.
        standard_error: Its standard error, estimated from the spread of the probes.
        num_products: Products with vectors taken.
    """

    value: float
    standard_error: float
    num_products: int


def hutchinson(
    multiply: Callable[[Array], Array], size: int, num_products: int, rng: np.random.Generator
) -> TraceEstimate:
    r"""Hutchinson's estimate: the mean of $g^\top A g$ over vectors g of random signs."""
    values = np.empty(num_products)
    for index in range(num_products):
        probe = rng.choice((-1.0, 1.0), size)
        values[index] = probe @ multiply(probe)
    return TraceEstimate(float(values.mean()), _standard_error(values), num_products)


def hutch_plus_plus(
    multiply: Callable[[Array], Array], size: int, num_products: int, rng: np.random.Generator
) -> TraceEstimate:
    r"""Hutch++: the trace on a space that holds most of A, and Hutchinson's estimate beside it.

    $$\mathrm{tr}\,A = \mathrm{tr}(Q^\top A Q) + \mathrm{tr}(P A P), \qquad P = I - QQ^\top$$

    with Q an orthonormal basis of A S for a third of the products' vectors S of random signs.
    Where few eigenvalues carry most of the trace, the second term is small, and so is its error.
    2 `num_products` / 3 vectors are held.
    """
    third = num_products // 3
    sketch = np.stack([multiply(rng.choice((-1.0, 1.0), size)) for _ in range(min(third, size))])
    basis = _row_basis(sketch)
    exact = sum(float(row @ multiply(row)) for row in basis)
    left = num_products - len(sketch) - len(basis)
    if len(basis) == size:
        return TraceEstimate(exact, 0.0, num_products - left)
    values = np.empty(left)
    for index in range(left):
        probe = rng.choice((-1.0, 1.0), size)
        probe -= (basis @ probe) @ basis
        values[index] = probe @ multiply(probe)
    return TraceEstimate(exact + float(values.mean()), _standard_error(values), num_products)


def _row_basis(rows):
    """Orthonormal rows that span the same space."""
    _, sizes, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[sizes > sizes.max(initial=0.0) * 1e-7]


def _standard_error(values):
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))
