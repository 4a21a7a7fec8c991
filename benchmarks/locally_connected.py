"""LocallyConnected2D against its peers: forward and backward, float32, on the CPU.

    python benchmarks/locally_connected.py [--rounds 20] [--threads 2] [--backends tensorflow jax]

Each backend runs in a process of its own; a process times its candidates in turns, so that all
ratios of a table come from one run, and takes medians. The yardstick of a table are the three
batched matrix products that the work contains (outputs, gradient of the kernel, gradient of the
inputs' patches), on arrays that lie ready. All candidates get equal inputs and a cotangent and
return the outputs and both gradients; ours, those of tf_keras of equal weights and PyTorch's are
compared as numbers first. `compile` is the first call: trace, compile, run. `memory` is the peak of
one more process that runs this candidate alone, at four times the batch so that the patches count
most: bytes over what the process held before, less the inputs, weights, outputs and their gradients
that any layer has, in units of the patch tensor. It holds the compiler's memory too (Linux only).

A candidate whose package is missing is reported as missing. Implementation 2 of tf_keras is skipped
where its dense kernel is above 256 MB.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

MEGABYTE = 1e6
LARGEST_DENSE_KERNEL = 256 * MEGABYTE
CLEAR_PEAK = Path("/proc/self/clear_refs")  # writing 5 lets the peak start anew


@dataclass(frozen=True)
class Case:
    """One shape of the benchmark, `same` padded."""

    name: str
    batch: int
    size: int
    channels: int
    kernel: int
    stride: int
    filters: int

    @property
    def out(self):
        return -(-self.size // self.stride)

    @property
    def positions(self):
        return self.out**2

    @property
    def entries(self):
        return self.kernel**2 * self.channels

    @property
    def padding(self):
        total = max((self.out - 1) * self.stride + self.kernel - self.size, 0)
        return total // 2, total - total // 2

    @property
    def patch_bytes(self):
        return 4 * self.batch * self.positions * self.entries

    @property
    def floor_bytes(self):
        """Inputs, kernel, and the outputs, with a gradient or cotangent for each."""
        inputs = self.batch * self.size**2 * self.channels
        kernel = self.positions * self.entries * self.filters
        outputs = self.batch * self.positions * self.filters
        return 4 * 2 * (inputs + kernel + outputs)

    def arrays(self):
        rng = np.random.default_rng(0)
        shapes = (
            (self.batch, self.size, self.size, self.channels),
            (self.out, self.out, self.kernel, self.kernel, self.channels, self.filters),
            (self.batch, self.out, self.out, self.filters),
        )
        inputs, kernel, cotangent = (rng.normal(size=s).astype("float32") for s in shapes)
        return inputs, kernel / math.sqrt(self.entries), cotangent

    def __str__(self):
        return (
            f"{self.name}: batch {self.batch}, {self.size}×{self.size}×{self.channels}, kernel "
            f"{self.kernel}×{self.kernel}, stride {self.stride}, {self.filters} filters"
        )


CASES = {
    "first": Case("first", 64, 32, 3, 9, 2, 32),
    "inner": Case("inner", 64, 16, 16, 3, 1, 16),
}


def our_layer(case, kernel):
    from tfconvbias.layers import LocallyConnected2D

    layer = LocallyConnected2D(
        case.filters,
        case.kernel,
        strides=case.stride,
        padding="same",
        use_bias=False,
        kernel_initializer="zeros",
    )
    layer.build((None, case.size, case.size, case.channels))
    layer.kernel.assign(kernel)
    return layer


def bare_arrays(case):
    rng = np.random.default_rng(1)
    shapes = (
        (case.positions, case.batch, case.entries),
        (case.positions, case.entries, case.filters),
        (case.positions, case.batch, case.filters),
    )
    return [rng.normal(size=s).astype("float32") for s in shapes]


def tensorflow_candidates(case):
    """Functions that set a candidate up and return its step; each yields arrays when called."""
    import tensorflow as tf

    inputs, kernel, cotangent = case.arrays()

    def step_of(layer, variable, jit, x=inputs, dy=cotangent):
        x, dy = tf.constant(x), tf.constant(dy)

        @tf.function(jit_compile=jit)
        def step():
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x)
            return outputs, *tape.gradient(outputs, [x, variable], dy)

        return lambda: [tf.convert_to_tensor(value).numpy() for value in step()]

    def ours(jit):
        layer = our_layer(case, kernel)
        return step_of(layer, layer.kernel.value, jit)

    def bare(jit):
        patches, weights, dy = map(tf.constant, bare_arrays(case))

        @tf.function(jit_compile=jit)
        def step():
            return (
                tf.matmul(patches, weights),
                tf.matmul(patches, dy, transpose_a=True),
                tf.matmul(dy, weights, transpose_b=True),
            )

        # Waiting for one number of each waits for all, without a copy of the large results.
        return lambda: [value[:1, :1, :1].numpy() for value in step()]

    def tf_keras_peer(implementation, jit):
        import tf_keras

        # Implementation 1 knows no `same`: it gets the padded inputs ready, outside the clock.
        pads = (case.padding, case.padding)
        is_first = implementation == 1
        layer = tf_keras.layers.LocallyConnected2D(
            case.filters,
            case.kernel,
            strides=case.stride,
            padding="valid" if is_first else "same",
            implementation=implementation,
            use_bias=False,
            kernel_initializer="zeros",
        )
        x = np.pad(inputs, ((0, 0), *pads, (0, 0))) if is_first else inputs
        layer.build(x.shape)
        if is_first:
            layer.kernel.assign(kernel.reshape(layer.kernel.shape))
        return step_of(layer, layer.kernel, jit, x)

    candidates = {
        "bare products": lambda: bare(False),
        "bare products, XLA": lambda: bare(True),
        "ours": lambda: ours(False),
        "ours, XLA": lambda: ours(True),
    }
    notes = {}
    if importlib.util.find_spec("tf_keras") is None:
        notes["tf_keras"] = "missing: pip install tf_keras"
        return candidates, notes
    dense = 4 * case.size**2 * case.channels * case.positions * case.filters
    for implementation in (1, 2, 3):
        if implementation == 2 and dense > LARGEST_DENSE_KERNEL:
            notes["tf_keras 2"] = f"skipped: its dense kernel has {dense / MEGABYTE:.0f} MB"
            continue
        candidates[f"tf_keras {implementation}"] = lambda i=implementation: tf_keras_peer(i, False)
        if implementation == 2:
            candidates["tf_keras 2, XLA"] = lambda: tf_keras_peer(2, True)
    # XLA unrolls implementation 1 into a product per position, and has no sparse product for 3.
    notes["tf_keras 1 and 3, XLA"] = "left out: minutes to compile, unsupported"
    return candidates, notes


def jax_candidates(case):
    import jax
    from jax import numpy as jnp

    inputs, kernel, cotangent = (jnp.asarray(a) for a in case.arrays())

    def step_of(function, weights):
        @jax.jit
        def step(x, w, dy):
            outputs, pullback = jax.vjp(function, x, w)
            return outputs, *pullback(dy)

        return lambda: jax.block_until_ready(step(inputs, weights, cotangent))

    def ours():
        layer = our_layer(case, np.asarray(kernel))
        return step_of(lambda x, w: layer.stateless_call([w], [], x)[0], layer.kernel.value)

    def bare():
        @jax.jit
        def step(patches, weights, dy):
            return (
                patches @ weights,
                jnp.swapaxes(patches, 1, 2) @ dy,
                dy @ jnp.swapaxes(weights, 1, 2),
            )

        arrays = [jnp.asarray(a) for a in bare_arrays(case)]
        return lambda: jax.block_until_ready(step(*arrays))

    def local():
        # Its kernel has the channel ahead of the taps.
        shape = (case.out, case.out, case.entries, case.filters)
        weights = jnp.transpose(kernel, (0, 1, 4, 2, 3, 5)).reshape(shape)

        def function(x, w):
            return jax.lax.conv_general_dilated_local(
                x,
                w,
                (case.stride, case.stride),
                "SAME",
                (case.kernel, case.kernel),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        return step_of(function, weights)

    candidates = {"bare products": bare, "ours": ours, "conv_general_dilated_local": local}
    return candidates, {}


def torch_candidates(case):
    import torch

    inputs, kernel, cotangent = case.arrays()

    def grad_step(function, x, w, dy):
        x, w = x.requires_grad_(), w.requires_grad_()

        def step():
            outputs = function(x, w)
            return outputs, *torch.autograd.grad(outputs, (x, w), dy)

        return step

    def ours():
        layer = our_layer(case, kernel)
        x, dy = torch.tensor(inputs), torch.tensor(cotangent)
        return grad_step(lambda x, _: layer(x), x, layer.kernel.value, dy)

    def bare():
        patches, weights, dy = map(torch.tensor, bare_arrays(case))
        return lambda: (patches @ weights, patches.mT @ dy, dy @ weights.mT)

    def unfold():
        # In the layouts that suit it: channels first, channel ahead of the taps, positions first.
        x = torch.tensor(inputs).permute(0, 3, 1, 2).contiguous()
        w = torch.tensor(kernel).permute(0, 1, 4, 2, 3, 5)
        w = w.reshape(case.positions, case.entries, case.filters).contiguous()
        dy = torch.tensor(cotangent).reshape(case.batch, case.positions, case.filters)
        dy = dy.permute(1, 0, 2).contiguous()

        def function(x, w):
            padded = torch.nn.functional.pad(x, case.padding * 2)
            patches = torch.nn.functional.unfold(padded, case.kernel, stride=case.stride)
            return torch.bmm(patches.permute(2, 0, 1), w)

        return grad_step(function, x, w, dy)

    return {"bare products": bare, "ours": ours, "unfold + bmm": unfold}, {}


CANDIDATES = {
    "tensorflow": tensorflow_candidates,
    "jax": jax_candidates,
    "torch": torch_candidates,
}


def agreement(case, backend, steps):
    """Largest difference between our results and those of every peer with equal weights."""

    def numbers(name):
        return [np.asarray(getattr(v, "detach", lambda v=v: v)()) for v in steps[name]()]

    before, _ = case.padding
    inside = slice(before, before + case.size)
    ours = numbers("ours")
    found = {}
    for name in steps:
        theirs = None
        if name == "ours, XLA":
            theirs = numbers(name)
        elif name == "tf_keras 1":
            outputs, dx, dw = numbers(name)
            theirs = [outputs, dx[:, inside, inside], dw.reshape(ours[2].shape)]
        elif name in ("conv_general_dilated_local", "unfold + bmm"):
            outputs, dx, dw = numbers(name)
            if backend == "torch":
                outputs = outputs.transpose(1, 0, 2).reshape(ours[0].shape)
                dx = dx.transpose(0, 2, 3, 1)
            taps = (case.kernel, case.kernel)
            dw = dw.reshape(case.out, case.out, case.channels, *taps, case.filters)
            theirs = [outputs, dx, dw.transpose(0, 1, 3, 4, 2, 5)]
        if theirs is not None:
            gaps = [np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)]
            if max(gaps) > 1e-2:
                raise AssertionError(f"{name} differs from ours by {gaps} on {case}")
            found[name] = float(max(gaps))
    return found


def limit_threads(backend, threads):
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)


def time_in_turns(steps, rounds, slow_rounds):
    """Medians in milliseconds. Candidates above a second take part in the first rounds only."""
    times = {name: [] for name in steps}
    for turn in range(rounds):
        for name, step in steps.items():
            if turn >= slow_rounds and statistics.median(times[name]) > 1:
                continue
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def run_case(backend, case, options):
    candidates, notes = CANDIDATES[backend](case)
    steps, compiles = {}, {}
    for name, set_up in candidates.items():
        steps[name] = set_up()
        start = time.perf_counter()
        steps[name]()
        compiles[name] = time.perf_counter() - start
        steps[name]()
    gaps = agreement(case, backend, steps)
    times = time_in_turns(steps, options.rounds, slow_rounds=3)
    memory = {
        name: subprocess_json(backend, options, case=case.name, memory=name)
        for name in candidates
        if not (options.skip_memory or name.startswith("bare") or not CLEAR_PEAK.exists())
    }
    rows = [
        {
            "name": name,
            "milliseconds": times[name],
            "compile": compiles[name],
            "memory": memory.get(name),
            "gap": gaps.get(name),
        }
        for name in candidates
    ]
    return {"rows": rows, "notes": notes}


def process_bytes(field):
    """A line of Linux' account of this process: `VmRSS` is now, `VmHWM` the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def run_memory(backend, case, name):
    """Bytes of the peak of three steps, over what the process holds before the first."""
    candidates, _ = CANDIDATES[backend](Case("warm-up", 2, 8, 1, 3, 1, 2))
    candidates[name]()()
    candidates, _ = CANDIDATES[backend](case)
    CLEAR_PEAK.write_text("5")
    before = process_bytes("VmRSS")
    step = candidates[name]()
    for _ in range(3):
        step()
    return process_bytes("VmHWM") - before


def subprocess_json(backend, options, **arguments):
    command = [sys.executable, __file__, "--worker", backend, "--rounds", str(options.rounds)]
    command += ["--threads", str(options.threads)]
    if options.skip_memory:
        command.append("--skip-memory")
    for key, value in arguments.items():
        command += [f"--{key}", value]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["TF_USE_LEGACY_KERAS"] = "0"
    if backend == "jax":
        environment["JAX_PLATFORMS"] = "cpu"
    environment["CUDA_VISIBLE_DEVICES"] = ""
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def print_table(backend, case, result):
    rows = {row["name"]: row for row in result["rows"]}
    bare = min(row["milliseconds"] for name, row in rows.items() if name.startswith("bare"))
    ours = min(row["milliseconds"] for name, row in rows.items() if name.startswith("ours"))
    print(f"\n{backend}; {case}; patches {case.patch_bytes / MEGABYTE:.1f} MB")
    print(f"{'':28s}{'ms':>9s}{'/ bare':>9s}{'/ ours':>9s}{'compile s':>11s}{'memory':>9s}")
    for name, row in rows.items():
        memory = "" if row["memory"] is None else f"{row['memory']:.2f}"
        print(
            f"{name:28s}{row['milliseconds']:9.2f}{row['milliseconds'] / bare:9.2f}"
            f"{row['milliseconds'] / ours:9.2f}{row['compile']:11.2f}{memory:>9s}"
        )
    for name, note in result["notes"].items():
        print(f"{name:28s}{note}")
    gaps = {row["name"]: f"{row['gap']:.1e}" for row in rows.values() if row["gap"] is not None}
    print(f"largest difference from ours: {gaps}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="timed turns")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--backends", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--case", choices=CASES, help="only this shape")
    parser.add_argument("--skip-memory", action="store_true", help="time only")
    parser.add_argument("--worker", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        limit_threads(options.worker, options.threads)
        case = CASES[options.case]
        if options.memory:
            larger = replace(case, batch=4 * case.batch)
            excess = run_memory(options.worker, larger, options.memory) - larger.floor_bytes
            print(json.dumps(excess / larger.patch_bytes))
        else:
            print(json.dumps(run_case(options.worker, case, options)))
        return
    if hasattr(os, "sched_setaffinity"):
        # JAX has no option for its threads: it takes one for each core that it is given.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    for backend in options.backends:
        if importlib.util.find_spec(backend) is None:
            print(f"\n{backend}: missing: pip install {backend}")
            continue
        for case in CASES.values():
            if options.case in (None, case.name):
                print_table(backend, case, subprocess_json(backend, options, case=case.name))


if __name__ == "__main__":
    main()
