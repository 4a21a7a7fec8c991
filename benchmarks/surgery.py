"""Does a compact model run faster by as much as its multiply-adds fall, and how long is surgery?

    python benchmarks/surgery.py [--batch-size 256] [--repeats 7] [--dead 0.5]

A share of the kernels of every convolution is zeroed at random (with what normalizes them; on a
residual stream the same ones in every writer). The zeroed and the compact model infer the same
batch turn by turn in one process. The aim: the time falls by at least 0.7 times the share by which
the multiply-adds fall, and `compact` takes less than 30 s on ResNet50.
"""

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tfconvbias.analysis import inference_times, time_ratio
from tfconvbias.models import StructuredBase
from tfconvbias.surgery import compact, make_plan
from tfconvbias.surgery.kernel_rule import KernelRule

AIM = 0.7


def zero_channels(model, dead, rng):
    """Zeroes a share of the channels of every stream, in all layers that write to it."""
    plan = make_plan(model)
    chosen: dict[Any, Any] = {}
    for rule in plan.rules:
        layer = rule.operation
        width = rule.constants()[0].width
        if isinstance(rule, KernelRule) and not isinstance(layer, keras.layers.Dense):
            # One choice per width: whatever is added to each other has the same one.
            mask = chosen.setdefault(width, rng.permutation(width) < round(dead * width))
            layer.set_weights(
                [
                    np.where(mask, 0, weight) if weight.shape[-1] == width else weight
                    for weight in layer.get_weights()
                ]
            )
        elif isinstance(layer, keras.layers.BatchNormalization) and width in chosen:
            *scales, variance = layer.get_weights()
            layer.set_weights([*(np.where(chosen[width], 0, w) for w in scales), variance])
    return model


def measure(name, model, shape, arguments, rng):
    zero_channels(model, arguments.dead, rng)
    start = time.perf_counter()
    smaller = compact(model)
    surgery = time.perf_counter() - start
    folded = compact(model, fold_normalization=True)
    plan = make_plan(model)
    full = sum(rule.multiply_adds() for rule in plan.kernel_rules())
    saving = 1 - plan.multiply_adds() / full
    images = rng.normal(size=(arguments.batch_size, *shape)).astype("float32")
    models = {"zeroed": model, "compact": smaller, "folded": folded}
    times = inference_times(models, images, arguments.repeats)
    ratio, folded_ratio = (
        time_ratio(times[label], times["zeroed"]) for label in ("compact", "folded")
    )
    reached = (1 - ratio) / saving
    before, after = (1e3 * statistics.median(times[label]) for label in ("zeroed", "compact"))
    print(
        f"{name:24s} multiply-adds -{saving:.1%}  "
        f"{before:8.1f} -> {after:8.1f} ms (-{1 - ratio:.1%})  "
        f"reached {reached:.2f} {'ok' if reached >= AIM else 'BELOW THE AIM'}  "
        f"with normalizations folded -{1 - folded_ratio:.1%}  compact() {surgery:.1f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dead", type=float, default=0.5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{keras.config.backend()}, batch {arguments.batch_size}, {arguments.repeats} turns")
    for base in ("cifar20", "cifar20_square"):
        for residual in (True, False):
            model = StructuredBase(base, residual=residual)
            measure(model.name, model, (32, 32, 3), arguments, rng)
    for name in ("ResNet50", "MobileNetV2"):
        model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)
        measure(f"{name} at 64x64", model, (64, 64, 3), arguments, rng)


if __name__ == "__main__":
    main()
