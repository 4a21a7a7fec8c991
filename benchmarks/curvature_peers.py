"""Curvature against PyHessian and curvlinops: same model, same weights, one run.

pip install pyhessian curvlinops-for-pytorch
KERAS_BACKEND=torch python benchmarks/curvature_peers.py [--rounds N]

Both peers take a plain PyTorch module with the Keras model's weights, since curvlinops replaces a
module's parameters, which a Keras layer does not see. Times are medians of alternating rounds; a
ratio above 1 says that the peer takes longer. Target: at least 1 everywhere, and 3 for the
sharpness after each of several training steps.
"""

import argparse
import os
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "torch"

import curvlinops
import keras
import numpy as np
import pyhessian
import torch
from keras import layers
from scipy.sparse.linalg import eigsh

from tfconvbias.analysis import (
    LossDerivatives,
    hessian_trace,
    spectral_density,
    top_hessian_eigenvalues,
)

RESIDUAL = 1e-2  # ours and eigsh's; eigenvalues are then known to about 1e-4
CHANGE = 1e-3  # PyHessian's default: the last change of the eigenvalue
TRACE_PRODUCTS = 50
STEPS = 30
TRAINING_STEPS = 6


def network():
    """A small image classifier on 128 random images that it has begun to learn."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 128)
    x = rng.random((128, 16, 16, 3), "float32") + y[:, None, None, None].astype("float32") / 10
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return model, x, y


class Twin(torch.nn.Module):
    """The same function as the Keras model, on images with channels last."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 32, 3)
        self.last = torch.nn.Linear(32 * 5 * 5, 10)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(torch.relu(self.first(x.permute(0, 3, 1, 2))), 2)
        return self.last(torch.relu(self.second(x)).permute(0, 2, 3, 1).flatten(1))

    def load(self, model):
        """Copy the Keras model's weights: filters come last there, and first here."""
        with torch.no_grad():
            for own, theirs in zip(self.parameters(), model.get_weights(), strict=True):
                order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[theirs.ndim]
                own.copy_(torch.tensor(theirs.transpose(order).copy()))
        return self


def peers(model, x, y, num_batches):
    """PyHessian's and curvlinops' operators on the present weights."""
    twin = Twin()
    size = len(x) // num_batches
    tensors = [(torch.tensor(x), torch.tensor(y))]
    batches = [(a, b) for a, b in zip(*(t.split(size) for t in tensors[0]), strict=True)]
    criterion = torch.nn.CrossEntropyLoss()

    def py_hessian():
        data = {"data": batches[0]} if num_batches == 1 else {"dataloader": batches}
        twin.zero_grad()
        return pyhessian.hessian(twin.load(model), criterion, cuda=False, **data)

    def linear_operator():
        parameters = list(twin.load(model).parameters())
        return curvlinops.HessianLinearOperator(
            twin, criterion, parameters, batches, check_deterministic=False
        )

    return py_hessian, linear_operator


def sharpness_calls(model, x, y, derivatives, num_batches):
    """Name → a search for the top eigenvalue from a random vector."""
    py_hessian, linear_operator = peers(model, x, y, num_batches)

    def by_eigsh():
        operator = linear_operator().to_scipy()
        return eigsh(operator, k=1, which="LA", tol=RESIDUAL, return_eigenvectors=False)[0]

    return {
        "here": lambda: top_hessian_eigenvalues(derivatives, tolerance=RESIDUAL).values[0],
        "PyHessian": lambda: py_hessian().eigenvalues(tol=CHANGE)[0][0],
        "curvlinops": by_eigsh,
    }


def trace_calls(model, x, y, derivatives, num_batches):
    """Name → a trace from the same number of products."""
    py_hessian, linear_operator = peers(model, x, y, num_batches)
    return {
        "here": lambda: hessian_trace(derivatives, num_products=TRACE_PRODUCTS).value,
        "PyHessian": lambda: np.mean(py_hessian().trace(maxIter=TRACE_PRODUCTS, tol=0)),
        "curvlinops": lambda: float(curvlinops.hutchinson_trace(linear_operator(), TRACE_PRODUCTS)),
    }


def density_calls(model, x, y, derivatives, num_batches):
    """Name → a density by Lanczos quadrature; the value is its mean eigenvalue times the size.

    One random probe decides that value: compare times here, and values in the trace.
    PyHessian's calls a function that PyTorch has removed.
    """
    _, linear_operator = peers(model, x, y, num_batches)
    ends = (-5.0, 200.0)

    def by_curvlinops():
        points, density = curvlinops.lanczos_approximate_spectrum(
            linear_operator(), STEPS, boundaries=ends
        )
        return float(torch.trapezoid(points * density, points)) * derivatives.size

    def here():
        found = spectral_density(derivatives, num_steps=STEPS, num_probes=1)
        return found.mean(lambda values: values) * derivatives.size

    return {"here": here, "curvlinops": by_curvlinops}


class Timed(NamedTuple):
    """A value with the seconds that count for it."""

    value: float
    seconds: float


def repeated_calls(model, x, y, derivatives, num_batches):
    """Name → the sharpness after each of a few training steps; the value is the last one, timed."""
    start = model.get_weights()
    single = sharpness_calls(model, x, y, derivatives, num_batches)
    rows = [slice(16 * step, 16 * step + 16) for step in range(TRAINING_STEPS)]

    def repeated(measure):
        def call():
            model.set_weights(start)
            found, last = measure(None), None
            seconds = 0.0
            for part in rows:
                model.train_on_batch(x[part], y[part])
                began = time.perf_counter()
                found, last = measure(found), found
                seconds += time.perf_counter() - began
            del last
            return Timed(getattr(found, "values", [found])[0], seconds)

        return call

    def here(last):
        return top_hessian_eigenvalues(derivatives, tolerance=RESIDUAL, start=last)

    return {
        "here": repeated(here),
        **{
            name: repeated(lambda last, measure=measure: measure())
            for name, measure in single.items()
            if name != "here"
        },
    }


def compare(title, calls, rounds):
    """Print values and times of alternating rounds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    values = {}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            found = call()
            if not isinstance(found, Timed):
                found = Timed(found, time.perf_counter() - began)
            values[name] = found.value
            times[name].append(found.seconds)
    middle = {name: float(np.median(found)) for name, found in times.items()}
    for name in calls:
        ratio = "" if name == "here" else f", {middle[name] / middle['here']:.2f} times ours"
        print(f"{title}, {name}: value {values[name]:.4g}, {middle[name]:.3f} s{ratio}", flush=True)


def main():
    """Compare on one batch, and on two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)  # so that neighbours on the machine weigh on all alike
    for num_batches in (1, 2):
        keras.utils.set_random_seed(0)
        model, x, y = network()
        derivatives = LossDerivatives(model, x, y, batch_size=len(x) // num_batches)
        print(f"{derivatives.size} parameters, {len(x)} images in {num_batches} batch(es)")
        for title, build in (
            ("sharpness", sharpness_calls),
            ("trace", trace_calls),
            ("density", density_calls),
            (f"sharpness after each of {TRAINING_STEPS} steps", repeated_calls),
        ):
            compare(title, build(model, x, y, derivatives, num_batches), rounds)


if __name__ == "__main__":
    main()
