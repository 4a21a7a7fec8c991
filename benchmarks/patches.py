"""Geometry of 100,000 patches over 512 directions: target ≤ 30 s on 2 cores.

python benchmarks/patches.py [--points N]

Side by side in one run: the streaming histograms, and ranks by sorting each direction's
projections of all points, which is exact and holds them all.
"""

import argparse
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tfconvbias.analysis import point_geometry

TARGET = 30.0


def mean_depth_by_sorting(points, num_directions=512, seed=0):
    """The same directions, exact ranks."""
    directions = np.random.default_rng(seed).standard_normal((num_directions, points.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    depth = np.full(len(points), 0.5)
    for direction in directions.astype("float32"):
        values = points @ direction
        ordered = np.sort(values)
        at_most = np.searchsorted(ordered, values, side="right")
        at_least = len(values) - np.searchsorted(ordered, values, side="left")
        np.minimum(depth, np.minimum(at_most, at_least) / len(values), out=depth)
    return float(depth.mean())


def main():
    """Time both on points with the falling spectrum of natural patches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    count = parser.parse_args().points
    rng = np.random.default_rng(0)
    points = rng.standard_normal((count, 48), "float32") / np.arange(1, 49, dtype="float32")
    began = time.perf_counter()
    found = point_geometry(points)
    streaming = time.perf_counter() - began
    began = time.perf_counter()
    exact = mean_depth_by_sorting(points)
    sorting = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"streaming: {streaming:.1f} s, mean depth {found.mean_depth:.5f}")
    print(f"sorting:   {sorting:.1f} s, mean depth {exact:.5f}")
    print(f"peak memory of the process {peak:.0f} MiB; target ≤ {TARGET:g} s for 100,000 points")
    if streaming * 100_000 / count > TARGET:
        raise SystemExit("The geometry took longer than the target.")


if __name__ == "__main__":
    main()
