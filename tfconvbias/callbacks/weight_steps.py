"""Steps of β-LASSO on stored weights, and new weights among them: compiled by Numba where it is.

A kernel is stored as `layers.sparse_products` describes it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfconvbias.callbacks import certified_loops
from tfconvbias.compiled import compiled
from tfconvbias.layers.sparse_products import (
    map_on_cores,
    unit_runs,
    units_of,
    weight_gradient,
)
from tfconvbias.optimizers import StepSizes


class Loops(NamedTuple):
    """The loops of `certified_loops`, compiled."""

    step_weights: Callable
    merge_weights: Callable


@functools.cache
def compiled_loops() -> Loops | None:
    """The compiled loops, or None where Numba is not installed."""
    return compiled(certified_loops, Loops)


class Stored(NamedTuple):
    """The stored weights of a kernel `(inputs, units)`.

    Attributes:
        values: Array `(nonzeros,)`.
        rows: Integer array `(nonzeros,)`: the input that each weight reads, ascending in a unit.
        starts: Integer array `(units + 1,)`: where each unit's weights begin.
    """

    values: np.ndarray
    rows: np.ndarray
    starts: np.ndarray

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return sum(part.nbytes for part in self)


class Rule(NamedTuple):
    """What one step makes of a weight and its gradient: `BetaLasso` with momentum 0.

    Attributes:
        sizes: η, η λ and β λ.
        clip: Gradients are clipped to `[-clip, clip]`; infinite: they are not.
        is_soft: Whether weights shrink by β λ, and not only vanish below it.
    """

    sizes: StepSizes
    clip: float
    is_soft: bool

    def stepped(self, weights, gradients):
        """The weights after the step."""
        if np.isfinite(self.clip):
            gradients = np.clip(gradients, -self.clip, self.clip)
        rate, pull, cutoff = (np.asarray(size, weights.dtype) for size in self.sizes)
        moved = weights - (rate * gradients + pull * np.sign(weights))
        if self.is_soft:
            return np.sign(moved) * np.maximum(np.abs(moved) - cutoff, 0)
        moved[np.abs(moved) < cutoff] = 0
        return moved


class Stepped(NamedTuple):
    """What a step made of the stored weights.

    Attributes:
        stored: The weights.
        num_returned: How many of them came back from zero.
        num_zeros: How many are zero now.
        num_bytes: Memory that the weights and their gradients took.
    """

    stored: Stored
    num_returned: int
    num_zeros: int
    num_bytes: int


def step(stored: Stored, inputs, gradient, rule: Rule) -> Stepped:
    """Take one step with all stored weights.

    Args:
        stored: The weights, which may be changed.
        inputs: Array `(inputs, batch)`.
        gradient: Array `(units, batch)`: the gradient of the units' sums.
        rule: The step.
    """
    values, rows, starts = stored
    loops = compiled_loops()
    if loops is None:
        gradients = weight_gradient(inputs, gradient, rows, starts)
        moved = rule.stepped(values, gradients)
        return Stepped(
            Stored(moved, rows, starts),
            int(np.count_nonzero(moved[values == 0])),
            moved.size - int(np.count_nonzero(moved)),
            stored.num_bytes + gradients.nbytes,
        )
    sizes = tuple(values.dtype.type(size) for size in rule.sizes)
    work = functools.partial(
        loops.step_weights, inputs, gradient, rows, starts, sizes, values.dtype.type(rule.clip),
        rule.is_soft,
    )  # fmt: skip
    counts = map_on_cores(lambda run: work(*run, values), unit_runs(starts, inputs.shape[1]))
    num_returned, num_zeros = (sum(count) for count in zip(*counts, strict=True))
    return Stepped(stored, num_returned, num_zeros, stored.num_bytes)


def merge(stored: Stored, rows, units, weights) -> tuple[Stored, int]:
    """The stored weights and new ones, without zeros, and how many of the new are among them.

    A new weight whose place is in store is left out.

    Args:
        stored: The weights in store.
        rows: The input of each new weight.
        units: The unit of each new weight.
        weights: The new weights, sorted by unit and input.
    """
    loops = compiled_loops()
    if loops is None:
        return _merged_arrays(stored, rows, units, weights)
    size = stored.values.size + weights.size
    out = Stored(
        np.empty(size, stored.values.dtype),
        np.empty(size, stored.rows.dtype),
        np.empty_like(stored.starts),
    )
    num_new = loops.merge_weights(*stored, weights, rows, units, *out)
    size = out.starts[-1]
    return Stored(out.values[:size], out.rows[:size], out.starts), num_new


def _merged_arrays(stored: Stored, rows, units, weights):
    """The same in NumPy."""
    owners = units_of(stored.starts)
    num_inputs = 1 + max(np.max(part, initial=0) for part in (stored.rows, rows))
    places = owners.astype("int64") * num_inputs + stored.rows
    asked = units.astype("int64") * num_inputs + rows
    is_new = (weights != 0) & ~np.isin(asked, places)
    order = np.argsort(np.concatenate([places, asked[is_new]]), kind="stable")
    values, all_rows, owners = (
        np.concatenate([held, new[is_new]])[order]
        for held, new in ((stored.values, weights), (stored.rows, rows), (owners, units))
    )
    keep = np.flatnonzero(values)
    starts = np.searchsorted(owners[keep], np.arange(stored.starts.size)).astype("int64")
    return Stored(values[keep], all_rows[keep], starts), np.count_nonzero(is_new)
