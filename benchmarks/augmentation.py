"""Cost of each augmentation and normalisation layer in a compiled training step.

    python benchmarks/augmentation.py [--batch-size 512] [--repeats 20] [--skip-rand-augment]

Each layer runs alone on uint8 images of 32×32×3 in training mode, and so do whole stacks of
`preprocessing`, turn by turn in one process, so that a slow moment of the machine meets all. On
TensorFlow with `jit_compile` on and off, on JAX under `jax.jit`; choose by KERAS_BACKEND. The table
gives medians in milliseconds and the ratio to a training step (forward, backward, SGD) of S-CONV
with 16 base channels on the same batch. Keras' RandAugment can't be compiled by XLA.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tfconvbias import data, models

STATISTICS = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def compiled(function, state, jit_compile):
    """Compile `function(images)` that draws from the seeds in `state`; the result waits."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(function, jit_compile=jit_compile)
        return lambda images: np.asarray(traced(images))[0, 0, 0, 0]
    if backend == "jax":
        import jax

        @jax.jit
        def pure(values, images):
            with keras.StatelessScope(list(zip(state, values, strict=True))) as scope:
                outputs = function(images)
            return outputs, [scope.get_current_value(variable) for variable in state]

        values = [variable.value for variable in state]
        return lambda images: jax.block_until_ready(pure(values, images))
    return function


def layers(with_rand_augment):
    """Every layer and stack by name, with whether XLA compiles it."""
    found = {
        "Normalize": (data.Normalize(*STATISTICS), True),
        "PadCrop(4)": (data.PadCrop(4), True),
        "PadCrop(4, flip)": (data.PadCrop(4, flip=True), True),
        "PadCrop(0, flip)": (data.PadCrop(0, flip=True), True),
        "Cutout(16)": (data.Cutout(16), True),
        "flip_crop": (data.preprocessing(STATISTICS, "flip_crop"), True),
        "flip_crop_cutout": (data.preprocessing(STATISTICS, "flip_crop_cutout"), True),
    }
    if with_rand_augment:
        found["randaugment"] = (data.preprocessing(STATISTICS, "randaugment"), False)
    return found


def training_step(images, jit_compile):
    """One step of S-CONV(16) on normalised images, as the yardstick."""
    model = models.SConv(16, connectivity="conv", input_shape=(32, 32, 3), classes=10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=jit_compile)
    x = images.astype("float32") / 255
    y = np.zeros(len(images), "int32")
    return lambda: model.train_on_batch(x, y)


def measure(jit_compile, images, repeats, with_rand_augment):
    """Time every layer, turn by turn, and print a table."""
    tensor = keras.ops.convert_to_tensor(images)
    steps = {"training step of S-CONV(16)": training_step(images, jit_compile)}
    for name, (layer, supports_jit) in layers(with_rand_augment).items():
        if jit_compile and not supports_jit:
            continue
        layer.build(images.shape)
        run = compiled(lambda x, layer=layer: layer(x, training=True), layer.variables, jit_compile)
        steps[name] = lambda run=run: run(tensor)
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    yardstick = next(iter(medians.values()))
    for name, value in medians.items():
        print(f"  {name:<28} {value:8.2f} ms  {100 * value / yardstick:6.1f} %")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--skip-rand-augment", action="store_true", help="it takes a while")
    arguments = parser.parse_args()
    backend = keras.config.backend()
    images = np.random.default_rng(0).integers(
        0, 256, (arguments.batch_size, 32, 32, 3), dtype=np.uint8
    )
    for jit_compile in {"tensorflow": (True, False), "jax": (True,)}.get(backend, (False,)):
        print(f"{backend}, batch {arguments.batch_size}, jit_compile={jit_compile}")
        # Op by op, JAX would take minutes for RandAugment.
        with_rand_augment = backend == "tensorflow" and not arguments.skip_rand_augment
        measure(jit_compile, images, arguments.repeats, with_rand_augment)


if __name__ == "__main__":
    main()
