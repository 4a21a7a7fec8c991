import tracemalloc

import numpy as np
import pytest

from tfconvbias.analysis import point_geometry


def _exact(points, num_directions, seed=0):
    """Depths by counting, over the same directions."""
    directions = np.random.default_rng(seed).standard_normal((num_directions, points.shape[1]))
    depths = np.full(len(points), 0.5)
    for direction in directions:
        values = points @ direction
        for i, value in enumerate(values):
            depths[i] = min(depths[i], np.mean(values >= value), np.mean(values <= value))
    return depths


def test_depths_equal_those_by_counting():
    points = np.random.default_rng(1).standard_normal((150, 3)).astype("float32")
    found = point_geometry(points, num_directions=20, num_bins=200_000)
    expected = _exact(points, 20)
    np.testing.assert_allclose(found.mean_depth, expected.mean(), rtol=1e-3)
    counts = [(expected >= t - 1e-9).mean() for t in found.thresholds]
    np.testing.assert_allclose(found.curve, counts, atol=0.01)


def test_coarse_bins_bound_the_depth_from_above():
    points = np.random.default_rng(1).standard_normal((150, 3)).astype("float32")
    exact = _exact(points, 20).mean()
    coarse = point_geometry(points, num_directions=20, num_bins=50)
    assert exact < coarse.mean_depth <= exact + coarse.resolution


def test_the_mean_is_the_integral_of_the_curve():
    points = np.random.default_rng(2).standard_normal((3000, 2))
    found = point_geometry(points, num_directions=64, num_thresholds=5001)
    integral = np.trapezoid(found.curve, found.thresholds)
    np.testing.assert_allclose(found.mean_depth, integral, atol=2e-4)


def test_points_on_a_circle_are_shallow_and_a_disc_is_deep():
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    radii = np.sqrt(np.random.default_rng(0).uniform(size=(2000, 1)))
    assert point_geometry(circle, num_directions=256).mean_depth < 0.01
    assert point_geometry(circle * radii, num_directions=256).mean_depth > 0.1


def test_spectrum_elbow_and_effective_rank():
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    scales = np.array([4.0, 3.0, 1.0, 0.5])
    points = (rng.standard_normal((4000, 4)) * scales) @ rotation + 100.0
    points = points.astype("float32").astype("float64")
    found = point_geometry(points, num_directions=8)
    expected = np.linalg.eigvalsh(np.cov(points.T, bias=True))[::-1]
    np.testing.assert_allclose(found.spectrum, expected, rtol=1e-3)
    assert found.elbow == 2
    assert point_geometry(points, variance_share=1.0, num_directions=8).elbow == 4
    rank = expected.sum() ** 2 / np.sum(expected**2)
    np.testing.assert_allclose(found.effective_rank, rank, rtol=1e-3)
    assert (found.num_points, found.dimension) == (4000, 4)


def test_a_stream_gives_what_an_array_gives():
    points = np.random.default_rng(4).standard_normal((1000, 5)).astype("float32")
    whole = point_geometry(points, num_directions=32)
    parts = point_geometry([points[:300], points[300:]], num_directions=32)
    np.testing.assert_allclose(parts.mean_depth, whole.mean_depth, rtol=1e-3)
    np.testing.assert_allclose(parts.spectrum, whole.spectrum, rtol=1e-4)


def test_memory_does_not_grow_with_the_number_of_points():
    class Stream:
        def __init__(self, batches):
            self.batches = batches

        def __iter__(self):
            rng = np.random.default_rng(0)
            for _ in range(self.batches):
                yield rng.standard_normal((2000, 8), dtype="float32")

    peaks = []
    for batches in (2, 40):
        tracemalloc.start()
        found = point_geometry(Stream(batches), num_directions=16, num_bins=256)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.num_points == 2000 * batches
    assert peaks[1] < 1.2 * peaks[0]


def test_errors_name_what_is_wrong():
    points = np.zeros((3, 2))
    with pytest.raises(ValueError, match="read three times"):
        point_geometry(iter([points]))
    with pytest.raises(ValueError, match="no points"):
        point_geometry([])
    with pytest.raises(ValueError, match="variance_share=0"):
        point_geometry(points, variance_share=0)
    with pytest.raises(ValueError, match="finite"):
        point_geometry(np.full((3, 2), np.nan))
