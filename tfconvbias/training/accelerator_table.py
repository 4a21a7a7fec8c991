"""Accelerators on which runs are planned: peak rates and memory, from their makers' data sheets."""

import time
from typing import NamedTuple

from tfconvbias.arguments import checked
from tfconvbias.lazy import keras
from tfconvbias.memory import available_bytes
from tfconvbias.training.errors import ConfigError


class Accelerator(NamedTuple):
    """What a device could do at most.

    Attributes:
        half: Peak of products in bfloat16 (float16 where there is no bfloat16), in FLOP/s, dense.
        single: Peak of products of float32 variables, in FLOP/s. With TensorFloat-32 where the
            device has it, since TensorFlow and XLA use it there.
        bandwidth: Bytes per second between the device's memory and its processors.
        memory: Bytes of that memory.
    """

    half: float
    single: float
    bandwidth: float
    memory: float


def _row(half: float, single: float, gigabytes_per_second: float, gigabytes: float):
    return Accelerator(half * 1e12, single * 1e12, gigabytes_per_second * 1e9, gigabytes * 1e9)


# Dense rates: NVIDIA's sheets give twice as much for H100 and later, with structured sparsity.
ACCELERATORS = {
    # NVIDIA Tesla V100 data sheet (SXM2; float16, no TensorFloat-32).
    "v100": _row(125, 15.7, 900, 32),
    # NVIDIA T4 data sheet (float16, no TensorFloat-32).
    "t4": _row(65, 8.1, 300, 16),
    # NVIDIA A100 data sheet (SXM, 80 GB).
    "a100": _row(312, 156, 2039, 80),
    # NVIDIA L4 data sheet.
    "l4": _row(121, 60, 300, 24),
    # NVIDIA Ada GPU architecture white paper, appendix A (float32 accumulation).
    "rtx4090": _row(165.2, 82.6, 1008, 24),
    # NVIDIA H100 data sheet (SXM).
    "h100": _row(989, 494, 3350, 80),
    # NVIDIA H200 data sheet (SXM).
    "h200": _row(989, 494, 4800, 141),
}
"""Name → accelerator."""


@checked
def accelerator(name: str) -> Accelerator:
    """The accelerator of a name; `"here"` measures this machine in a few seconds.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name == "here":
        return _measured()
    if name not in ACCELERATORS:
        known = ", ".join(["here", *ACCELERATORS])
        raise ConfigError(f"plan must be one of {known}. Received: plan={name!r}")
    return ACCELERATORS[name]


def _measured(side: int = 1024) -> Accelerator:
    """What products and sums of large matrices reach on this machine, the best of several tries."""
    rates = {}
    for dtype in ("float32", "bfloat16"):
        matrix = keras.ops.ones((side, side), dtype=dtype)
        rates[dtype] = 2 * side**3 / _best_seconds(lambda m=matrix: keras.ops.matmul(m, m))
    vector = keras.ops.ones((2**24,), dtype="float32")
    moved = 2 * 4 * 2**24
    bandwidth = moved / _best_seconds(lambda: keras.ops.negative(vector))
    return Accelerator(
        rates["bfloat16"], rates["float32"], bandwidth, float(available_bytes() or 0)
    )


def _best_seconds(work, tries: int = 5) -> float:
    def once() -> float:
        begun = time.perf_counter()
        # Reading one number waits for the device.
        float(keras.ops.convert_to_numpy(work()).flat[0])
        return time.perf_counter() - begun

    once()
    return min(once() for _ in range(tries))
