"""Finds the large gradients of a dense layer by the integers next to its activations.

The runs of activations `x_i` and `d_j` are scaled to the norm `S` and rounded to 16-bit integers.
Each rounding is off by at most one half, hence each rounded run of B numbers by at most
`r = √B / 2`, and by the Cauchy-Schwarz inequality

    |S² g_ij / (‖x_i‖ ‖d_j‖) - X_i · D_j| <= 2 r (S + r)

for the integer runs `X_i` and `D_j`, whose product is exact. With `S = 32000` and 128 examples the
right side is 0.04 % of `S²`, so that nearly all weights are settled by integers, which a processor
multiplies at twice the rate of floats and without writing the products to memory. The gradients of
the few others are then computed. Inputs and units come in order of their norms, so that a pair that
Cauchy and Schwarz settle alone is not even multiplied.

Needs Numba.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfconvbias.optimizers import integer_loops
from tfconvbias.optimizers.integer_loops import TILE_INPUTS, TILE_UNITS

SCALE = 32000.0
PACKED_BYTES = 2
# More examples would let roundings add up to more than the integers hold.
MOST_EXAMPLES = 2**16


class Loops(NamedTuple):
    """The loops of `integer_loops`, compiled."""

    statistics: Callable
    pack_inputs: Callable
    pack_units: Callable
    screen: Callable


@functools.cache
def compiled_loops() -> Loops | None:
    """The compiled loops, or None where Numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    # Without Python's lock, for several threads. Sums may be reordered, so that they run over
    # vectors; the other liberties of `fastmath` would let a NaN vanish.
    compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
    integer_loops.compile_integer_product()
    return Loops(*(compiled(getattr(integer_loops, name)) for name in Loops._fields))


class Runs(NamedTuple):
    """Some of the inputs, or units, of a layer.

    Attributes:
        activations: Array `(inputs, batch)` or `(units, batch)`.
        chosen: Indices of those that are meant.
        centers: What the integers leave out of each of them.
        norms: Their norms without it: finite, and above 0.
    """

    activations: np.ndarray
    chosen: np.ndarray
    centers: np.ndarray
    norms: np.ndarray

    def ordered(self):
        """The same runs, those of the largest norm first."""
        order = np.argsort(-self.norms)
        return Runs(self.activations, *(part[order] for part in self[1:]))

    def scales(self):
        """What to multiply each run by, to have the norm `SCALE`."""
        return SCALE / self.norms.astype("float64")


def statistics(loops: Loops, runs, map_parts, num_parts):
    """Mean, norm around the mean, and norm of each run of activations `(runs, batch)`."""
    found = np.empty((3, len(runs)), runs.dtype)

    def part(k):
        borders = _part(len(runs), k, num_parts)
        loops.statistics(runs, borders.start, borders.stop, *found)

    list(map_parts(part, range(num_parts)))
    return found


def screen(loops: Loops, inputs: Runs, units: Runs, limit, least, map_parts, num_parts):
    """The weights of some inputs and units whose gradient reaches a limit.

    Args:
        loops: The compiled loops.
        inputs: The inputs.
        units: The units, whose centers are 0.
        limit: The magnitude that a gradient has to reach.
        least: What the product of the centered runs has at least where a gradient reaches `limit`;
            above 0.
        map_parts: `map`, or a function like it that works on several cores.
        num_parts: Number of parts to share the work in.

    Returns:
        A tuple `(rows, units, gradients)`, in no order.
    """
    inputs, units = inputs.ordered(), units.ordered()
    scales, unit_scales = inputs.scales(), units.scales()
    batch = inputs.activations.shape[1]
    num_words, num_tiles = -(-batch // 2), -(-units.chosen.size // TILE_UNITS)
    num_packed = -(-inputs.chosen.size // TILE_INPUTS) * TILE_INPUTS
    packed_inputs = np.zeros((num_packed, 2 * num_words), "int16")
    packed_units = np.zeros((num_tiles, num_words, TILE_UNITS, 2), "int16")

    def pack(k):
        part = _part(inputs.chosen.size, k, num_parts)
        loops.pack_inputs(
            inputs.activations,
            inputs.chosen[part],
            inputs.centers[part],
            scales[part],
            packed_inputs[part],
        )
        part = _part(num_tiles, k, num_parts)
        own = slice(part.start * TILE_UNITS, part.stop * TILE_UNITS)
        loops.pack_units(units.activations, units.chosen[own], unit_scales[own], packed_units[part])

    list(map_parts(pack, range(num_parts)))
    # In the arithmetic of floats, a rounding to integers may be off by a little more than one half,
    # and a scaled norm by a little more than the scale.
    radius, norm = 0.51 * np.sqrt(batch), 1.01 * SCALE
    errors = 2 * radius * (norm + radius), (norm + radius) ** 2

    def find(k):
        return loops.screen(
            inputs.activations,
            units.activations,
            inputs.chosen,
            units.chosen,
            packed_inputs.view("int32"),
            packed_units.view("int32")[..., 0],
            least * scales,
            unit_scales,
            errors,
            limit,
            (k, num_parts),
        )

    found = list(map_parts(find, range(num_parts)))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def _part(size, k, num_parts):
    """The k-th of equal parts."""
    return slice(k * size // num_parts, (k + 1) * size // num_parts)
