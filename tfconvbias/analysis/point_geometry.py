r"""Spectrum and half-space depth of a cloud of points, in bounded memory."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked

Array = np.ndarray

_CHUNK = 8192


@dataclasses.dataclass(frozen=True)
class PointGeometry:
    """What `point_geometry` found.

    Attributes:
        num_points: N.
        dimension: d.
        spectrum: `(d,)`, variances along the principal components, largest first.
        elbow: Number of components that hold the asked share of the variance.
        effective_rank: (Σλ)² / Σλ² of the spectrum.
        mean_depth: ∫₀^½ P(depth ≥ t) dt.
        thresholds: `(T,)`, the t from 0 to ½ of the curve.
        curve: `(T,)`, P(depth ≥ t).
        resolution: Largest share of the points in one bin: no depth is off by more, and binning
            only ever adds to it.
    """

    num_points: int
    dimension: int
    spectrum: Array
    elbow: int
    effective_rank: float
    mean_depth: float
    thresholds: Array
    curve: Array
    resolution: float


@checked
def point_geometry(
    points: Array | Iterable[Array],
    *,
    variance_share: float = 0.9,
    num_directions: PositiveInt = 512,
    num_bins: PositiveInt = 8192,
    num_thresholds: PositiveInt = 101,
    seed: NonNegativeInt = 0,
) -> PointGeometry:
    r"""How many directions a cloud of points fills, and how deep its points lie in it.

    Depth is approximated over random directions u, both signs of each:

    $$\mathrm{depth}(x) = \min_u \frac1N \#\{i : u \cdot x_i \ge u \cdot x\}$$

    This is an upper bound on the Tukey depth, and in high dimension a loose one: it largely tracks
    the effective rank of the cloud. Compare clouds of the same treatment, and look at points of
    unit norm beside the raw ones.

    Three passes go over the points: range and covariance, histograms of the projections, depths.
    Memory is `num_directions × num_bins × 8` bytes, d² × 8 bytes and a few chunks, for any N.

    Args:
        points: `(N, d)`, or an iterable of such batches that gives the same ones every time, as
            `ImagePoints` does.
        variance_share: Share of the variance at the elbow.
        num_directions: Number of random directions.
        num_bins: Bins of each projection's histogram between its smallest and largest value.
            Points in one bin count as tied, so that depths are bounded from above.
        num_thresholds: Points of the depth curve.
        seed: Seed of the directions.

    Raises:
        ValueError: If there are no points or some are not finite, an iterable cannot be iterated
            again, or a share lies outside (0, 1].

    Example:
    >>> cloud = np.random.default_rng(0).standard_normal((1000, 3)) * [10, 1, 1]
    >>> point_geometry(cloud, num_directions=64).elbow
    1

    Reference: patch geometry in arXiv 2603.04807; details are ours.
    """
    if not 0 < variance_share <= 1:
        raise ValueError(
            f"`variance_share` must lie in (0, 1]. Received: variance_share={variance_share}"
        )
    if isinstance(points, Iterator):
        raise ValueError(
            "`points` is read three times: give an array or an iterable that can be iterated "
            f"again. Received: points={points!r}"
        )
    first = next(_chunks(points), None)
    if first is None:
        raise ValueError("There are no points.")
    dimension = first.shape[1]
    directions = np.random.default_rng(seed).standard_normal((num_directions, dimension))
    directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype("float32")

    num_points, covariance, low, high = _moments(points, directions, first.mean(axis=0))
    if not np.isfinite(low + high).all():
        raise ValueError("`points` must be finite numbers.")
    spectrum = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None)
    scale = (num_bins / np.maximum(high - low, np.finfo("float32").tiny)).astype("float32")

    def cells(chunk):
        """The bin of each projection, direction by direction: one direction's bins fit a cache."""
        for row in (directions @ chunk.T - low) * scale:
            yield row.clip(0, num_bins - 1).astype(np.int64)

    counts = np.zeros((num_directions, num_bins), np.int64)
    for chunk in _chunks(points):
        for count, cell in zip(counts, cells(chunk), strict=True):
            count += np.bincount(cell, minlength=num_bins)
    if counts[0].sum() != num_points:
        raise ValueError(
            "`points` gave different numbers of points in two passes. "
            f"Received: {num_points}, then {counts[0].sum()}"
        )
    below = np.cumsum(counts, axis=1)
    tables = (np.minimum(below, num_points - below + counts) / num_points).astype("float32")

    thresholds = np.linspace(0, 0.5, num_thresholds)
    deeper = np.zeros(num_thresholds, np.int64)
    total = 0.0
    for chunk in _chunks(points):
        depth = np.full(len(chunk), 0.5, "float32")
        for table, cell in zip(tables, cells(chunk), strict=True):
            np.minimum(depth, table[cell], out=depth)
        depth.sort()
        deeper += len(depth) - np.searchsorted(depth, thresholds.astype("float32"))
        total += float(depth.sum(dtype="float64"))
    variance = spectrum.sum()
    return PointGeometry(
        num_points=num_points,
        dimension=dimension,
        spectrum=spectrum,
        elbow=_elbow(spectrum, variance_share),
        effective_rank=float(variance**2 / np.sum(spectrum**2)) if variance else 0.0,
        mean_depth=total / num_points,
        thresholds=thresholds,
        curve=deeper / num_points,
        resolution=float((counts.max() - 1) / num_points),
    )


def _moments(points, directions, shift):
    """Number, covariance and the range of the projections; the shift avoids cancellation."""
    num_points, dimension = 0, len(shift)
    total, products = np.zeros(dimension), np.zeros((dimension, dimension))
    low = np.full((len(directions), 1), np.inf, "float32")
    high = -low
    for chunk in _chunks(points):
        num_points += len(chunk)
        centred = chunk - shift
        total += centred.sum(axis=0, dtype="float64")
        products += centred.T @ centred
        projections = directions @ chunk.T
        np.minimum(low, projections.min(axis=1, keepdims=True), out=low)
        np.maximum(high, projections.max(axis=1, keepdims=True), out=high)
    mean = total / num_points
    return num_points, products / num_points - np.outer(mean, mean), low, high


def _chunks(points: Array | Iterable[Array]) -> Iterator[Array]:
    """Batches of at most `_CHUNK` points."""
    for batch in [points] if isinstance(points, np.ndarray) else points:
        for begin in range(0, len(batch), _CHUNK):
            yield np.asarray(batch[begin : begin + _CHUNK], dtype="float32")


def _elbow(spectrum: Array, share: float) -> int:
    """The number of components that hold a share of the variance."""
    cumulative = np.cumsum(spectrum)
    # The rounding of the sum must not ask for one component more than there are.
    reached = np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12))
    return int(min(reached + 1, len(spectrum)))
