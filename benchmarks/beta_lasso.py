"""Time of one BetaLasso step against one step of keras.optimizers.SGD, on 20 M float32 weights.

    python benchmarks/beta_lasso.py [--backends tensorflow jax torch] [--repeats 30]
        [--momentum 0.9]

Both optimizers update the same kernels with the same gradients, turn by turn in one process, so
that a slow moment of the machine meets both. Each installed backend runs in a process of its own.
"jit" compiles the whole step (TensorFlow: `jit_compile=True`; JAX: `jax.jit` of `stateless_apply`
with donated buffers; PyTorch runs op by op). The table gives medians, and the median over turns of
the ratio to SGD.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time

BACKENDS = ("tensorflow", "jax", "torch")
# The fully connected layers of a wide three-layer network: 20 M weights, large and small together.
SHAPES = [(3072, 5120), (5120, 800), (800, 160), (160, 10)]


def make_step(optimizer, variables, gradients, use_jit):
    """A function without arguments that runs one update and waits for it."""
    import keras

    backend = keras.config.backend()
    optimizer.build(variables)
    if backend == "tensorflow":
        import tensorflow as tf

        # The gradients are arguments: as constants they could be folded into the graph.
        @tf.function(jit_compile=use_jit)
        def step(gradients):
            optimizer.apply(gradients, variables)

        return lambda: step(gradients)
    if backend == "jax" and use_jit:
        import jax

        update = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
        state = [[v.value for v in optimizer.variables], [v.value for v in variables]]

        def run():
            state[1], state[0] = update(state[0], gradients, state[1])
            jax.block_until_ready(state)

        return run

    def run_eagerly():
        optimizer.apply(gradients, variables)
        if backend == "jax":
            import jax

            jax.block_until_ready([v.value for v in variables])

    if backend == "torch":
        import torch

        return torch.no_grad()(run_eagerly)
    return run_eagerly


def measure(repeats, momentum):
    """Prints the rows of the running backend."""
    import keras
    import numpy as np

    from tfconvbias.optimizers import BetaLasso

    backend = keras.config.backend()
    rng = np.random.default_rng(0)
    gradients = [keras.ops.convert_to_tensor(rng.normal(size=s).astype("float32")) for s in SHAPES]
    contenders = {
        "SGD": lambda: keras.optimizers.SGD(1e-3, momentum=momentum),
        "BetaLasso hard": lambda: BetaLasso(1e-3, 1e-3, 20.0, momentum=momentum),
        "BetaLasso soft": lambda: BetaLasso(1e-3, 1e-3, 20.0, "soft", momentum=momentum),
    }
    for use_jit in {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}[backend]:
        steps = {}
        for name, make in contenders.items():
            variables = [
                keras.Variable(0.1 * rng.normal(size=s).astype("float32"), name="kernel")
                for s in SHAPES
            ]
            steps[name] = make_step(make(), variables, gradients, use_jit)
        first = {}
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            first[name] = time.perf_counter() - start
            step()
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(repeats):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
        for name, taken in times.items():
            ratio = statistics.median(t / s for t, s in zip(taken, times["SGD"], strict=True))
            print(
                f"{backend:<11}{'yes' if use_jit else 'no':<5}{name:<16}"
                f"{1e3 * statistics.median(taken):>9.2f}{ratio:>9.2f}{first[name]:>12.2f}",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        measure(arguments.repeats, arguments.momentum)
        return
    size = sum(rows * columns for rows, columns in SHAPES) / 1e6
    print(f"{size:.1f} M float32 weights, {os.cpu_count()} cores, momentum {arguments.momentum}")
    print(
        f"{'backend':<11}{'jit':<5}{'optimizer':<16}{'ms/step':>9}{'ratio':>9}{'first step s':>14}"
    )
    for backend in arguments.backends:
        if importlib.util.find_spec(backend) is None:
            print(f"{backend:<11}not installed")
            continue
        command = [sys.executable, __file__, "--in-process", "--repeats", str(arguments.repeats)]
        subprocess.run(
            [*command, "--momentum", str(arguments.momentum)],
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=True,
        )


if __name__ == "__main__":
    main()
