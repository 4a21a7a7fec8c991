"""Embedding VanillaCNN, and its locally connected forward pass, against the plain ways.

    python benchmarks/embedding.py [--rounds 5] [--batch 64]

Each candidate runs in a process of its own, so that its first call is a first call and its peak
memory is its own: bytes over what the process held before, and over the size of the result (Linux
only). Imports don't count, nor does the first touch of the machine's memory, which virtual machines
make slow. The yardsticks, in NumPy:

- `paper's loop`: each filter at one output position after the other, its kernel copied by slices
  into a channels-first matrix with rows for the padding, and that into a dense layer that was drawn
  at random first. What the paper's code does.
- `loop`: the same walk straight into a channels-last matrix with folded padding.
- `broadcast`: a locally connected layer as patches times kernel, broadcast and summed.

Ours is checked against them before it is timed. Targets: the folded kernels at 5 times the speed of
the paper's loop, first call; the model within 1.3 times its memory at the peak; the forward pass at
4 times the speed and a quarter of the memory of broadcasting; 0.67 times the parameters of the
explicitly padded model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

from tfconvbias.embedding import conv_to_dense, embed, embedded_size
from tfconvbias.layers import LocallyConnected2D
from tfconvbias.models import VanillaCNN

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


def paper_matrix(kernel, layer):
    """Units × inputs of the layer that the paper's code makes."""
    length, channels, size, strides, padding = layer
    length += 2 * padding
    out = (length - size) // strides + 1
    kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    matrix = np.zeros((FILTERS, out, out, channels, length, length), kernel.dtype)
    for filter_ in range(FILTERS):
        for row in range(out):
            for column in range(out):
                top, left = row * strides, column * strides
                matrix[filter_, row, column, :, top : top + size, left : left + size] = kernel[
                    filter_
                ]
    matrix = matrix.reshape(FILTERS * out * out, channels * length * length)
    dense = np.random.default_rng(0).random(matrix.shape, "float32")
    dense[...] = matrix
    return dense


def our_matrix(kernel, layer):
    length, channels, _, strides, padding = layer
    pads = ((padding, padding), (padding, padding))
    return conv_to_dense(kernel, (length, length, channels), strides=strides, padding=pads)


def matrices(build):
    return [build(kernel, layer) for kernel, layer in zip(kernels(), LAYERS, strict=True)]


def embedded_model(padding="folded"):
    cnn = VanillaCNN()
    return lambda: embed(cnn, padding=padding)


def forward(batch, is_broadcast):
    """The locally connected VanillaCNN's forward pass, its local layers ours or broadcast."""

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
    "kernels, paper's loop": lambda batch: lambda: matrices(paper_matrix),
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
    ops.convert_to_numpy(ops.ones(1))
    work = CANDIDATES[name](batch)
    np.ones(1 << 28)  # 2 GiB, touched and given back
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
    check()
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
    paper, model = found["kernels, paper's loop"], found["model, embed folded"]
    broadcast, local = found["forward, broadcast"], found["forward, LocallyConnected2D"]
    folded, explicit = (
        embedded_size(VanillaCNN(), padding=padding).num_parameters
        for padding in ("folded", "explicit")
    )
    print(f"\nconv_to_dense, first call: {loop['first'] / ours['first']:.1f} × the loop's speed")
    print(f"embed, with the whole model: {paper['first'] / model['first']:.1f} × the paper's loop")
    results = (
        ("kernels, first call, over the paper's loop", paper["first"] / ours["first"], ">=", 5),
        ("embed, peak memory over the result", model["peak"] / model["result"], "<=", 1.3),
        ("forward, speed over broadcasting", broadcast["later"] / local["later"], ">=", 4),
        ("forward, memory over broadcasting", local["peak"] / broadcast["peak"], "<=", 0.25),
        (f"parameters, {folded:,} over {explicit:,}", folded / explicit, "<=", 0.67),
    )
    missed = []
    for label, value, sign, target in results:
        holds = value >= target if sign == ">=" else value <= target
        print(f"{label}: {value:.3g} (target {sign} {target}, {'holds' if holds else 'missed'})")
        missed += [label] * (not holds)
    if missed:
        raise SystemExit(f"Missed: {'; '.join(missed)}.")


def check():
    """All ways make the same matrices."""
    arrays = (matrices(build) for build in (loop_matrix, our_matrix, paper_matrix))
    for layer, loop, ours, paper in zip(LAYERS, *arrays, strict=True):
        np.testing.assert_array_equal(loop, ours)
        length, channels, size, strides, padding = layer
        inner = slice(padding, padding + length)
        out = (length + 2 * padding - size) // strides + 1
        paper = paper.reshape(FILTERS, out, out, channels, *[length + 2 * padding] * 2)
        paper = paper[..., inner, inner].transpose(4, 5, 3, 1, 2, 0)
        np.testing.assert_array_equal(paper.reshape(ours.shape), ours)


if __name__ == "__main__":
    main()
