"""A Hessian-vector product against a gradient, in one run: target ≤ 4 gradients.

python benchmarks/curvature.py [--rounds N]          (KERAS_BACKEND chooses the backend)

`curvature_peers.py` compares whole measurements with other libraries.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from tfconvbias.analysis import LossDerivatives
from tfconvbias.models import HalfMeanSquaredError, TwoLayerReLU

TARGET = 4.0


def convolutional_network():
    """A small image classifier on 256 random images, batches of 128."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    rng = np.random.default_rng(0)
    x, y = rng.random((256, 32, 32, 3), "float32"), rng.integers(0, 10, 256)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return LossDerivatives(model, x, y, loss, batch_size=128)


def sphere_network():
    """The two-layer convolutional network of the edge-of-stability recipe."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((256, 40), "float32"), rng.standard_normal((256, 1), "float32")
    model = TwoLayerReLU(128, connectivity="conv", dimension=40, patch_size=4)
    return LossDerivatives(model, x, y, HalfMeanSquaredError())


def seconds(function):
    """Time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main():
    """Alternate gradients and products and compare their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    passed = True
    for build in (convolutional_network, sphere_network):
        derivatives = build()
        vector = np.random.default_rng(1).standard_normal(derivatives.size)
        calls = (derivatives.gradient, lambda d=derivatives, v=vector: d.product(v))
        for call in calls * 2:
            call()
        times = np.array([[seconds(call) for call in calls] for _ in range(rounds)])
        gradient, product = np.median(times, axis=0)
        ratio = float(np.median(times[:, 1] / times[:, 0]))
        passed &= ratio <= TARGET
        print(
            f"{keras.config.backend()}, {build.__name__}, {derivatives.size} parameters: "
            f"gradient {1e3 * gradient:.1f} ms, product {1e3 * product:.1f} ms, "
            f"ratio {ratio:.2f} (target ≤ {TARGET:g})"
        )
    if not passed:
        raise SystemExit("A product took longer than its target.")


if __name__ == "__main__":
    main()
