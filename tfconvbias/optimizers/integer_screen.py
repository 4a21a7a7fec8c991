"""Finds the large gradients of a dense layer by the integers next to its activations.

The runs of activations `x_i` and `d_j` are scaled to the norms `S` and `T` and rounded to
integers. If no rounded run of inputs is off by more than `r`, and none of units by more than `q`,
in Euclidean norm, then by the Cauchy-Schwarz inequality

    |S T g_ij / (‖x_i‖ ‖d_j‖) - X_i · D_j| <= r T + q S + r q

for the integer runs `X_i` and `D_j`, whose product is exact. With 16-bit integers, 128 examples
and `S = T = 32000` the right side is some 0.02 % of `S T`, so that nearly all weights are settled
by integers, which a processor multiplies at twice the rate of floats and without writing the
products to memory. With 8-bit integers it is some 4 %, which still settles 99.9 % of the weights of
a layer; where the processor multiplies them at twice the rate again, they are taken unless the
limit is so low that 4 % blur it. The gradients of the few other weights are then computed. Inputs
and units come in order of their norms, so that a pair that Cauchy and Schwarz settle alone is not
even multiplied.

Needs Numba.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfconvbias.compiled import compiled
from tfconvbias.optimizers import integer_loops, integer_vectors
from tfconvbias.optimizers.integer_loops import TILE_INPUTS, TILE_UNITS

# More examples would let products add up to more than the integers hold.
MOST_EXAMPLES = 2**16
# The error of 8-bit integers by the smallest cosine that may reach the limit: above this they leave
# too many gradients to be computed.
_MOST_ERROR = 0.5


class Packing(NamedTuple):
    """How activations become integers, several of which share one 32-bit word.

    Attributes:
        word: Type of a word, by which `integer_loops.integer_product` knows the packing.
        of_inputs: Type of the integers of inputs.
        of_units: Type of the integers of units.
        offset: What is added to those of inputs.
    """

    word: str
    of_inputs: str
    of_units: str
    offset: int

    @property
    def in_word(self) -> int:
        """Number of integers in a word."""
        return 4 // np.dtype(self.of_units).itemsize


HALVES = Packing("int32", "int16", "int16", 0)
BYTES = Packing("uint32", "uint8", "int8", 128)
_NORM_OF_HALVES = 32000.0
_PEAK_OF_BYTES = 126.9


class Loops(NamedTuple):
    """The loops of `integer_loops`, compiled."""

    statistics: Callable
    peaks: Callable
    pack_inputs: Callable
    pack_units: Callable
    screen: Callable


@functools.cache
def compiled_loops() -> Loops | None:
    """The compiled loops, or None where Numba is not installed."""
    loops = compiled(integer_loops, Loops)
    if loops is not None:
        integer_vectors.compile_integer_product()
    return loops


@functools.cache
def multiplies_bytes() -> bool:
    """Whether 8-bit integers are multiplied faster than 16-bit integers."""
    return integer_vectors.multiplies_bytes()


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

    def norm_of_bytes(self, loops):
        """The largest norm that all runs can be scaled to for 8-bit integers to hold them."""
        found = np.empty_like(self.norms)
        loops.peaks(self.activations, self.chosen, self.centers, found)
        return _PEAK_OF_BYTES / float(np.max(found / self.norms, initial=1e-3))


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
        A tuple `(rows, units, gradients, num_bytes)`: the weights, in no order, and the memory that
        the integers took.
    """
    if not inputs.chosen.size:
        empty = np.empty(0, "int64")
        return empty, empty, np.empty(0, inputs.activations.dtype), 0
    inputs, units = inputs.ordered(), units.ordered()
    packing, norm, unit_norm = _packing(loops, inputs, units, least)
    scales, unit_scales = norm / inputs.norms.astype("float64"), unit_norm / units.norms
    batch = inputs.activations.shape[1]
    num_words, num_tiles = -(-batch // packing.in_word), -(-units.chosen.size // TILE_UNITS)
    num_packed = -(-inputs.chosen.size // TILE_INPUTS) * TILE_INPUTS
    packed_inputs = np.zeros((num_packed, num_words * packing.in_word), packing.of_inputs)
    packed_units = np.zeros((num_tiles, num_words, TILE_UNITS, packing.in_word), packing.of_units)
    starts = np.zeros((num_tiles, TILE_UNITS), "int32")

    def pack(k):
        part = _part(inputs.chosen.size, k, num_parts)
        lost = loops.pack_inputs(
            inputs.activations,
            inputs.chosen[part],
            inputs.centers[part],
            scales[part],
            packing.offset,
            packed_inputs[part],
        )
        part = _part(num_tiles, k, num_parts)
        own = slice(part.start * TILE_UNITS, part.stop * TILE_UNITS)
        return lost, loops.pack_units(
            units.activations,
            units.chosen[own],
            unit_scales[own],
            packing.offset,
            packed_units[part],
            starts[part],
        )

    # In the arithmetic of floats, a scaled norm may be a little more than the scale, and what is
    # lost a little more than was found.
    radius, unit_radius = (
        max(lost) + 1e-3 * np.sqrt(batch)
        for lost in zip(*map_parts(pack, range(num_parts)), strict=True)
    )
    norm, unit_norm = 1.01 * norm, 1.01 * unit_norm
    errors = (
        radius * unit_norm + unit_radius * norm + radius * unit_radius,
        (norm + radius) * (unit_norm + unit_radius),
    )

    def find(k):
        return loops.screen(
            inputs.activations,
            units.activations,
            inputs.chosen,
            units.chosen,
            packed_inputs.view(packing.word),
            packed_units.view(packing.word)[..., 0],
            starts,
            least * scales,
            unit_scales,
            errors,
            limit,
            (k, num_parts),
        )

    found = list(map_parts(find, range(num_parts)))
    rows, chosen, gradients = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows, chosen, gradients, packed_inputs.nbytes + packed_units.nbytes


def _packing(loops, inputs: Runs, units: Runs, least):
    """The integers to use, and the norms to which inputs and units are scaled."""
    if multiplies_bytes():
        norm, unit_norm = inputs.norm_of_bytes(loops), units.norm_of_bytes(loops)
        # Rounding takes 1/12 off each square on the average.
        error = np.sqrt(inputs.activations.shape[1] / 12) * (1 / norm + 1 / unit_norm)
        cosine = least / (float(inputs.norms[0]) * float(units.norms[0]))
        if error <= _MOST_ERROR * cosine:
            return BYTES, norm, unit_norm
    return HALVES, _NORM_OF_HALVES, _NORM_OF_HALVES


def _part(size, k, num_parts):
    """The k-th of equal parts."""
    return slice(k * size // num_parts, (k + 1) * size // num_parts)
