"""Proof that zero weights of a dense layer stay zero under β-LASSO, without their gradients.

With inputs `x` (batch × inputs) and gradients `d` of the units' sums (batch × units), the gradient
of weight `(i, j)` is `g_ij = Σ_b x_bi d_bj`. A zero weight comes back only if η |g_ij| reaches the
cutoff β λ. With `c_i` the mean of `x_i` over the batch, the Cauchy-Schwarz inequality gives

    |g_ij| <= ‖x_i - c_i‖₂ ‖d_j‖₂ + |c_i| |Σ_b d_bj|

whose factors cost O(batch · (inputs + units)), against O(batch · inputs · units)
for all gradients. Inputs and units that this leaves open go through `integer_screen`, which settles
nearly all of their weights by products of small integers; the gradients of the rest are computed.
Without Numba, all gradients of the inputs and units that are left open are computed.

All arrays are NumPy's, and activations are transposed: `(inputs, batch)` and `(units, batch)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfconvbias.optimizers import integer_screen

# Gradients of zeros are computed in blocks of at most so many, so that a batch on which the bound
# says little costs time but no memory in proportion to the kernel.
BLOCK_SIZE = 2**19
# The part of the limit up to which a term may be taken off it instead of being looked at by weight.
_SMALL_SHIFT = 0.1


class ActivationBounds(NamedTuple):
    """What the bound needs of each run of activations: three numbers for each input or unit.

    Attributes:
        spread: ‖x_i - c_i‖₂, or ‖d_j‖₂ itself.
        shift: |c_i|, or |Σ_b d_bj|.
        norm: ‖x_i‖₂, or ‖d_j‖₂: the scale of rounding errors.
    """

    spread: np.ndarray
    shift: np.ndarray
    norm: np.ndarray


class Reaching(NamedTuple):
    """The weights whose gradient reaches a limit, zero or not, sorted by unit and input.

    Attributes:
        rows: Input of each weight.
        units: Unit of each weight.
        gradients: Gradient of each weight.
        num_checked: Number of units that the bound did not settle.
        num_bytes: Memory that it took to settle them.
    """

    rows: np.ndarray
    units: np.ndarray
    gradients: np.ndarray
    num_checked: int
    num_bytes: int


def bounds(inputs, gradient, map_parts: Callable = map, num_parts: int = 1):
    """The inputs' means, and the factors that the inputs and the units contribute to the bound."""
    loops = integer_screen.compiled_loops()
    found = []
    for runs in (inputs, gradient):
        if loops is not None:
            found.append(integer_screen.statistics(loops, runs, map_parts, num_parts))
        else:
            mean = runs.mean(axis=1)
            found.append((mean, _norm(runs - mean[:, None]), _norm(runs)))
    (mean, spread, norm), (unit_mean, _, unit_norm) = found
    return (
        mean,
        ActivationBounds(spread, np.abs(mean), norm),
        ActivationBounds(unit_norm, np.abs(unit_mean) * inputs.shape[1], unit_norm),
    )


def rounding_slack(batch: int, dtype) -> float:
    """How far, relative to ‖x_i‖₂ ‖d_j‖₂, rounding can raise a computed |g_ij| over its bound.

    A sum of `n` products, added in any order, is off by at most about `n ε/2` times the sum of
    their magnitudes, which Cauchy and Schwarz limit to the product of the norms. The same holds for
    the mean, the two norms and the sum in the bound, hence the factor; 16 more terms stand for the
    few single operations between them.
    """
    return 3 * (batch + 16) * float(np.finfo(dtype).eps)


def uncertain(asked: ActivationBounds, others: ActivationBounds, slack: float, limit: float):
    """Indices of the asked inputs (or units) with a weight whose bound reaches `limit`.

    The largest spread, shift and norm among the units (or inputs) on the other side stand for all
    of them, so that each index costs three products. A bound that is NaN counts as reaching it.
    """
    spread, shift, norm = (np.max(part, initial=0) for part in others)
    bound = (spread * asked.spread + shift * asked.shift) * (1 + slack) + slack * norm * asked.norm
    return np.flatnonzero(~(bound < limit))


def reaching_weights(inputs, gradient, limit: float, map_parts: Callable = map, num_parts: int = 1):
    """All weights that could come back, with their gradients.

    Args:
        inputs: Array `(inputs, batch)`.
        gradient: Array `(units, batch)`.
        limit: A weight is returned if its |g| is not below this.
        map_parts: `map`, or a function like it that works on several cores.
        num_parts: Number of parts to share the work in.

    """
    slack = rounding_slack(inputs.shape[1], inputs.dtype)
    means, of_inputs, of_units = bounds(inputs, gradient, map_parts, num_parts)
    # The limit itself was rounded when it was divided by the learning rate.
    lowered = limit * (1 - slack)
    units = uncertain(of_units, of_inputs, slack, lowered)
    if not units.size:
        empty = np.empty(0, "int32")
        return Reaching(empty, empty, np.empty(0, inputs.dtype), 0, 0)
    of_units = ActivationBounds(*(part[units] for part in of_units))
    rows = uncertain(of_inputs, of_units, slack, lowered)
    of_inputs = ActivationBounds(*(part[rows] for part in of_inputs))
    means = means[rows]
    shift, norm = (
        float(np.max(one, initial=0)) * float(np.max(other, initial=0))
        for one, other in zip(of_inputs[1:], of_units[1:], strict=True)
    )
    spread = of_inputs.spread
    if not shift <= _SMALL_SHIFT * limit:
        # The mean cannot be left out: the integers are those of the inputs themselves.
        means, shift, spread = np.zeros_like(means), 0.0, of_inputs.norm
    least = lowered - (shift + slack * norm) * (1 + slack)
    loops = integer_screen.compiled_loops()
    if (
        loops is not None
        # False where an activation is not finite.
        and least > 0
        and inputs.shape[1] <= integer_screen.MOST_EXAMPLES
    ):
        *found, num_bytes = integer_screen.screen(
            loops,
            integer_screen.Runs(inputs, rows, means, spread),
            integer_screen.Runs(gradient, units, np.zeros_like(of_units.norm), of_units.norm),
            lowered,
            least,
            map_parts,
            num_parts,
        )
    else:
        found = _reaching_in_blocks(inputs, gradient, rows, units, lowered, map_parts)
        num_bytes = min(rows.size * units.size, num_parts * BLOCK_SIZE) * inputs.itemsize
    order = np.lexsort(found[:2])
    rows_found, units_found, gradients = (part[order] for part in found)
    return Reaching(rows_found, units_found, gradients, int(units.size), num_bytes)


def _reaching_in_blocks(inputs, gradient, rows, units, lowered, map_parts):
    """The same weights, from all gradients of some inputs and units, in matrix products."""
    read = inputs if rows.size == inputs.shape[0] else inputs[rows]

    def reaching(some):
        block = gradient[some] @ read.T
        # Asked this way round, a NaN is among them, so that a diverged run shows.
        places = np.flatnonzero(~(np.abs(block) < lowered))
        unit, row = np.divmod(places, max(1, rows.size))
        return rows[row], some[unit], block.ravel()[places]

    num_at_once = max(1, BLOCK_SIZE // max(1, rows.size))
    blocks = [units[k : k + num_at_once] for k in range(0, units.size, num_at_once)]
    found = [*map_parts(reaching, blocks)]
    rows, units, gradients = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows.astype("int32"), units.astype("int32"), gradients


def _norm(runs):
    """Euclidean norm of each row, rounded up where its squares are too small for the dtype."""
    squares = np.einsum("ib,ib->i", runs, runs)
    return np.sqrt(squares + runs.shape[1] * np.finfo(runs.dtype).tiny)
