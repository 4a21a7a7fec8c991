"""Full-batch steps per second of the convolutional sphere network: target 10,000 in ≤ 40 s.

python benchmarks/edge_of_stability.py [--steps N]   (KERAS_BACKEND chooses the backend)

Side by side in one run: one Keras step per execution, and one hundred.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from tfconvbias.data import sphere_regression
from tfconvbias.models import HalfMeanSquaredError, TwoLayerReLU

TARGET = 40.0


def seconds(steps, steps_per_execution, points):
    """Time of `steps` full-batch steps, after a first epoch that compiles."""
    model = TwoLayerReLU(128, connectivity="conv", dimension=40, patch_size=4, seed=0)
    model.compile(
        keras.optimizers.SGD(0.4), HalfMeanSquaredError(), steps_per_execution=steps_per_execution
    )
    batches = tf.data.Dataset.from_tensors((points.x_train, points.y_train)).repeat()
    fit = {"steps_per_epoch": 100, "shuffle": False, "verbose": 0}
    model.fit(batches, **fit)
    began = time.perf_counter()
    model.fit(batches, epochs=steps // 100, **fit)
    return time.perf_counter() - began


def main():
    """Time both ways and hold the faster against the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    steps = parser.parse_args().steps
    points = sphere_regression(256)
    times = {n: seconds(steps, n, points) for n in (1, 100)}
    for n, taken in times.items():
        print(
            f"{keras.config.backend()}, {n} steps per execution: {steps} steps in {taken:.1f} s "
            f"({1e3 * taken / steps:.2f} ms per step)"
        )
    projected = times[100] * 10_000 / steps
    print(f"10,000 steps: {projected:.1f} s (target ≤ {TARGET:g} s on 2 cores)")
    if keras.config.backend() == "tensorflow" and projected > TARGET:
        raise SystemExit("The steps took longer than the target.")


if __name__ == "__main__":
    main()
