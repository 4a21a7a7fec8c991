"""Embedding VanillaCNN, and its locally connected forward pass, against the plain ways.

    python benchmarks/embedding.py [--rounds 5] [--batch 64]

Each candidate runs in a process of its own, so that its first call is a first call and its peak
memory is its own: bytes over what the process held before, and over the size of the result (Linux
only). The yardsticks:

- `loop`: one output position after the other, its kernel copied into the matrix by slices, as the
  paper's code builds it, in NumPy, channels last and with folded padding.
- `broadcast`: a locally connected layer as patches times kernel, broadcast and summed.

Ours is checked against them before it is timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Spatial size, channels, kernel size, strides, padding of VanillaCNN's convolutions; 64 filters.
LAYERS = ((32, 3, 4, 2, 2), (8, 64, 5, 1, 2), (3, 64, 3, 1, 1))
FILTERS = 64


def kernels():
    rng = np.random.default_rng(0)
    return [
        rng.normal(size=(size, size, channels, FILTERS)).astype("float32")
        for _, channels, size, _, _ in LAYERS
    ]


def loop_matrix(kernel, layer):
    """The dense matrix, one output position after the other."""
    length, channels, size, strides, padding = layer
    out = (length + 2 * padding - size) // strides + 1
    matrix = np.zeros((length, length, channels, out, out, FILTERS), kernel.dtype)
    for row in range(out):
        for column in range(out):
            for filter_ in range(FILTERS):
                top, left = row * strides - padding, column * strides - padding
                above, before = max(top, 0), max(left, 0)
                below, after = min(top + size, length), min(left + size, length)
                matrix[above:below, before:after, :, row, column, filter_] = kernel[
                    above - top : below - top, before - left : after - left, :, filter_
                ]
    return matrix.reshape(length * length * channels, out * out * FILTERS)


def our_matrix(kernel, layer):
    from tfconvbias.embedding import conv_to_dense

    length, channels, _, strides, padding = layer
    pads = ((padding, padding), (padding, padding))
    return conv_to_dense(kernel, (length, length, channels), strides=strides, padding=pads)


def matrices(build):
    return [build(kernel, layer) for kernel, layer in zip(kernels(), LAYERS, strict=True)]


def embedded_model(padding="folded"):
    from tfconvbias.embedding import embed
    from tfconvbias.models import VanillaCNN

    cnn = VanillaCNN()
    return lambda: embed(cnn, padding=padding)


def forward(batch, is_broadcast):
    """The locally connected VanillaCNN's forward pass, its local layers ours or broadcast."""
    import keras
    from keras import ops

    from tfconvbias.embedding import embed
    from tfconvbias.layers import LocallyConnected2D
    from tfconvbias.models import VanillaCNN

    class Broadcast(LocallyConnected2D):
        def call(self, inputs):
            patches = ops.image.extract_patches(inputs, self.kernel_size, self.strides)
            rows, columns, entries = patches.shape[1:]
            kernel = ops.reshape(self.kernel, (rows, columns, entries, self.filters))
            return ops.sum(patches[..., None] * kernel[None], axis=3) + self.bias

    keras.utils.set_random_seed(0)
    model = embed(VanillaCNN(), "local")
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(batch, 32, 32, 3)), "float32")
    ours = ops.convert_to_numpy(model(x[:2]))
    if is_broadcast:
        for layer in model.layers:
            if isinstance(layer, LocallyConnected2D):
                layer.__class__ = Broadcast
        np.testing.assert_allclose(ops.convert_to_numpy(model(x[:2])), ours, atol=1e-4)
    return lambda: ops.convert_to_numpy(model(x))


CANDIDATES = {
    "kernels, loop": lambda batch: lambda: matrices(loop_matrix),
    "kernels, conv_to_dense": lambda batch: lambda: matrices(our_matrix),
    "model, embed folded": lambda batch: embedded_model(),
    "model, embed explicit": lambda batch: embedded_model("explicit"),
    "forward, broadcast": lambda batch: forward(batch, True),
    "forward, LocallyConnected2D": lambda batch: forward(batch, False),
}


def memory(field):
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = (x for x in status.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def result_bytes(result):
    if isinstance(result, list):
        return sum(array.nbytes for array in result)
    if isinstance(result, np.ndarray):
        return result.nbytes
    return 4 * result.count_params()


def measure(name, rounds, batch):
    """In a process of its own: seconds of the first call and the median of later ones, memory."""
    import keras

    keras.ops.convert_to_numpy(keras.ops.ones(1))
    work = CANDIDATES[name](batch)
    # The high-water mark is reset, so that only this work's peak counts.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    began = time.perf_counter()
    result = work()
    seconds = [time.perf_counter() - began]
    peak = memory("VmHWM") - before
    size = result_bytes(result)
    del result
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    later = statistics.median(seconds[1:])
    return {"first": seconds[0], "later": later, "peak": peak, "result": size}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", choices=list(CANDIDATES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.rounds, options.batch)))
        return
    for first, second in zip(matrices(loop_matrix), matrices(our_matrix), strict=True):
        np.testing.assert_array_equal(first, second)
    found = {}
    for name in CANDIDATES:
        words = [sys.executable, __file__, "--only", name]
        words += ["--rounds", str(options.rounds), "--batch", str(options.batch)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    print("| candidate | first call, s | later, s | peak, MB | result, MB |")
    print("|---|---|---|---|---|")
    for name, row in found.items():
        megabytes = f"{row['peak'] / 1e6:.0f} | {row['result'] / 1e6:.0f}"
        print(f"| {name} | {row['first']:.2f} | {row['later']:.3f} | {megabytes} |")
    loop, ours = found["kernels, loop"], found["kernels, conv_to_dense"]
    model = found["model, embed folded"]
    broadcast, local = found["forward, broadcast"], found["forward, LocallyConnected2D"]
    print(f"\nconv_to_dense, first call: {loop['first'] / ours['first']:.1f} × the loop's speed")
    print(f"embed, peak memory: {model['peak'] / model['result']:.2f} × the result")
    print(
        f"forward at batch {options.batch}: {broadcast['later'] / local['later']:.1f} × the speed "
        f"and {local['peak'] / broadcast['peak']:.2f} × the memory of broadcasting"
    )


if __name__ == "__main__":
    main()
