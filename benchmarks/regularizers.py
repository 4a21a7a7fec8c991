"""What the structured sparsity penalties cost in a training step of the CIFAR ResNet-20 under XLA.

    python benchmarks/regularizers.py [--batch-size 128] [--repeats 20]

Models that differ in the penalty only take their steps turn by turn in one process, so that a slow
moment of the machine meets all of them. The table gives the median step time and the median over
turns of the ratio to the step without a penalty; the aim is at most 1.15.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tfconvbias.models import StructuredBase
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import Complexity, KernelNumber, KernelSize, following_gammas

AIM = 1.15


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def variants():
    """Name, model, optimizer of every way to penalize; the first is without."""
    alpha = 1e-5
    yield "no penalty", StructuredBase(), sgd()
    yield "KernelNumber", StructuredBase(kernel_regularizer=KernelNumber(alpha)), sgd()
    yield "KernelSize", StructuredBase(kernel_regularizer=KernelSize(alpha)), sgd()
    yield (
        "KernelSize linf",
        StructuredBase(kernel_regularizer=KernelSize(alpha, norm="linf")),
        sgd(),
    )
    yield "Complexity", Complexity(StructuredBase(), 1e-12), sgd()
    yield "Complexity folded", Complexity(StructuredBase(), 1e-12, fold_normalization=True), sgd()
    yield "Proximal number", StructuredBase(), Proximal(sgd(), KernelNumber(0.0), alpha)
    yield "Proximal size", StructuredBase(), Proximal(sgd(), KernelSize(0.0), alpha)
    for name, penalty in (("number", KernelNumber(0.0)), ("size", KernelSize(0.0))):
        model = StructuredBase()
        gammas = following_gammas(model)
        yield f"Proximal {name}, γ", model, Proximal(sgd(), penalty, alpha, gammas=gammas)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(arguments.batch_size, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, arguments.batch_size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    models = {}
    for name, model, optimizer in variants():
        model.compile(optimizer, loss, jit_compile=keras.config.backend() != "torch")
        model.train_on_batch(images, labels)
        model.train_on_batch(images, labels)
        models[name] = model
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(arguments.repeats):
        for name, model in models.items():
            start = time.perf_counter()
            model.train_on_batch(images, labels)
            times[name].append(time.perf_counter() - start)
    base = times["no penalty"]
    print(f"{keras.config.backend()}, batch {arguments.batch_size}, {arguments.repeats} turns")
    for name, spent in times.items():
        ratio = statistics.median(own / other for own, other in zip(spent, base, strict=True))
        verdict = "" if name == "no penalty" else ("ok" if ratio <= AIM else "ABOVE THE AIM")
        print(f"{name:20s} {1e3 * statistics.median(spent):8.1f} ms  x{ratio:.3f}  {verdict}")


if __name__ == "__main__":
    main()
