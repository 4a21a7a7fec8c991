"""Time of FastAutoAugment in a compiled step, beside Keras' RandAugment.

    python benchmarks/fast_auto_augment.py [--policy FILE.json] [--batch-size 512] [--repeats 15]
        [--backends tensorflow jax torch]

Both augment the same uint8 images of 32×32×3, turn by turn in one process, so that a slow moment
of the machine meets both; each installed backend runs in a process of its own. Without --policy
there are 30 sub-policies that hold every operation as first and as second step, so nothing can be
left out. RandAugment draws one operation for the whole batch and does not compile under XLA on
TensorFlow, where "jit" compares with RandAugment without it. The table gives medians.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time

BACKENDS = ("tensorflow", "jax", "torch")


def step_of(layer, images, use_jit):
    """A function without arguments that augments the images and waits for the result."""
    import keras

    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(lambda x: layer(x, training=True), jit_compile=use_jit)
        return lambda: traced(images).numpy()
    if backend == "jax":
        import jax

        layer(images, training=True)
        state = layer.variables

        @jax.jit
        def pure(values, x):
            with keras.StatelessScope(list(zip(state, values, strict=True))) as scope:
                outputs = layer(x, training=True)
            return outputs, [scope.get_current_value(variable) for variable in state]

        values = [variable.value for variable in state]
        return lambda: jax.block_until_ready(pure(values, images))

    def run():
        import torch

        layer(images, training=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def measure(policy, batch_size, repeats):
    """Prints the rows of the running backend."""
    import keras
    import numpy as np

    from tfconvbias import data

    backend = keras.config.backend()
    if policy is None:
        names = list(data.OPERATIONS)
        pairs = zip(names, names[1:] + names[:1], strict=True)
        policy = [[[a, 0.7, 0.8], [b, 0.5, 0.3]] for a, b in pairs]
        policy += [part[::-1] for part in policy]
    images = np.random.default_rng(0).integers(0, 256, (batch_size, 32, 32, 3), dtype="uint8")
    tensor = keras.ops.convert_to_tensor(images)

    def ours(use_jit):
        layer = data.FastAutoAugment(policy, seed=0)
        layer.build(images.shape)
        return step_of(layer, tensor, use_jit)

    peer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, seed=0)
    steps = {"RandAugment": step_of(peer, tensor, False), "FastAutoAugment": ours(backend == "jax")}
    if backend == "tensorflow":
        steps["FastAutoAugment, jit"] = ours(True)
    compiling = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        compiling[name] = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        ratio = value / medians["RandAugment"]
        print(
            f"{backend:<11} {name:<22} {value:9.1f} ms  {ratio:6.2f}  {compiling[name]:6.1f} s",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", help="JSON file")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measure(arguments.policy, arguments.batch_size, arguments.repeats)
        return
    print(f"{'backend':<11} {'layer':<22} {'step':>12}  {'ratio':>6}  {'first':>8}")
    for backend in arguments.backends:
        if importlib.util.find_spec(backend) is None:
            print(f"{backend:<11} not installed")
            continue
        environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, *sys.argv, "--worker"], env=environment, check=True)


if __name__ == "__main__":
    main()
