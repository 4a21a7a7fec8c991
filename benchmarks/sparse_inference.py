"""Inference of an S-FC that β-LASSO trained: dense, sparse and in blocks, SciPy and PyTorch.

    python benchmarks/sparse_inference.py [--data FOLDER] [--epochs 8] [--base-channels 8]
    python benchmarks/sparse_inference.py --models EARLIER.keras LATER.keras

S-FC is trained by β-LASSO on `--data` (an image folder as `tfconvbias.data.load` takes it; the
embedded motifs without one) and measured after the epochs in which the first layer's density is
nearest to 1 and 0.3 %; or saved models are taken. All in this process and in turns:

- the first layer's product at batch 1 and 256: Dense, `SparseDense`, `BlockDense`, SciPy, TFLite
  with a dense kernel and with its own sparse storage, and PyTorch's dense and CSR products where it
  is installed, beside a compiled call that does nothing;
- the whole model as `surgery.sparsify` makes it for that batch size against the dense one, the
  choices it made, the largest difference of the outputs and the size of the `.keras` file.

Every time is a median, with the best in brackets. Keras layers run as compiled functions, whose
call takes some tenths of a millisecond by itself; the calls of the others take far less.
"""

import argparse
import functools
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 128
DENSITIES = (0.01, 0.003)


def in_turns(functions, seconds=2.0):
    """(median, best) milliseconds of functions that take turns."""
    for function in functions.values():
        for _ in range(3):
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end and len(times[next(iter(times))]) < 300:
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: (statistics.median(found), min(found)) for name, found in times.items()}


def trained(arguments):
    """Yields the model after each epoch of a β-LASSO run: always the same one."""
    import keras

    from tfconvbias import data, models
    from tfconvbias.optimizers import BetaLasso

    keras.utils.set_random_seed(0)
    dataset = data.load(arguments.data)
    x, y = dataset.x_train, dataset.y_train
    model = models.SConv(
        arguments.base_channels,
        connectivity="dense",
        input_shape=dataset.image_shape,
        classes=dataset.num_classes,
        preprocessing=data.preprocessing(dataset, augment="flip_crop", seed=0),
    )
    rate = keras.optimizers.schedules.CosineDecay(0.1, -(-len(x) // BATCH) * arguments.epochs)
    model.compile(
        BetaLasso(rate, arguments.l1 / 4, arguments.beta, l1_overrides={"conv1": arguments.l1}),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    for epoch in range(arguments.epochs):
        model.fit(x, y, BATCH, epoch + 1, initial_epoch=epoch, verbose=0)
        yield model


def density(model):
    import keras
    import numpy as np

    kernel = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
    return np.count_nonzero(kernel) / kernel.size


def nearest(models):
    """The models whose first layers are nearest to the wanted densities."""
    import keras

    best: dict[float, tuple] = {}
    for model in models:
        found = density(model)
        print(f"first layer {found:.2%}", flush=True)
        for wanted in DENSITIES:
            if wanted not in best or abs(found - wanted) < abs(best[wanted][0] - wanted):
                copy = keras.models.clone_model(model)
                copy.set_weights(model.get_weights())
                best[wanted] = (found, copy)
    return [best[wanted][1] for wanted in DENSITIES]


def _array_of(function, tensor):
    return function(tensor).numpy()


def of_the_layer(model, batch):
    """Times of the first layer's product."""
    import keras
    import numpy as np
    import scipy.sparse
    import tensorflow as tf

    from tfconvbias.layers import BlockDense, SparseDense
    from tfconvbias.surgery.window_blocks import best_blocks

    kernel = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
    image_shape = tuple(model.input_shape[1:])
    x = np.random.default_rng(0).normal(size=(batch, kernel.shape[0])).astype("float32")
    dense = keras.layers.Dense(kernel.shape[1], use_bias=False)
    dense.build((None, kernel.shape[0]))
    dense.kernel.assign(kernel)
    compiled = {"nothing": lambda x: x + 1, "Dense": dense}
    compiled["SparseDense"] = SparseDense.from_kernel(kernel)
    for name, allow_rest in (("BlockDense", False), ("BlockDense + rest", True)):
        found = best_blocks(kernel, image_shape, allow_rest)
        if found is not None:
            compiled[name] = BlockDense.from_kernel(kernel, found.blocks, rows=found.rows)
    tensor = tf.constant(x)
    signature = [tf.TensorSpec((None, kernel.shape[0]), tf.float32)]
    functions: dict[str, Callable[[], Any]] = {}
    for name, layer in compiled.items():
        function = tf.function(layer, input_signature=signature)
        functions[name] = functools.partial(_array_of, function, tensor)
    functions.update(of_tflite(dense, x))
    matrix = scipy.sparse.csr_array(kernel.T)
    functions["SciPy CSR"] = lambda: matrix @ x.T
    if importlib.util.find_spec("torch") is not None:
        import torch

        weights, columns = torch.from_numpy(kernel.T.copy()), torch.from_numpy(x.T.copy())
        compressed = weights.to_sparse_csr()
        functions["PyTorch dense"] = lambda: weights @ columns
        functions["PyTorch CSR"] = lambda: compressed @ columns
    return in_turns(functions)


def of_tflite(dense, x):
    """TFLite's call of a dense layer, its kernel stored whole and as TFLite stores zeros."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input(x.shape[1:]), dense])
    functions: dict[str, Callable[[], Any]] = {}
    for name, options in (("dense", []), ("sparse", [tf.lite.Optimize.EXPERIMENTAL_SPARSITY])):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = options
        run = tf.lite.Interpreter(model_content=converter.convert(), num_threads=os.cpu_count())
        given = run.get_input_details()[0]["index"]
        run.resize_tensor_input(given, x.shape)
        run.allocate_tensors()
        run.set_tensor(given, x)
        functions[f"TFLite {name}"] = run.invoke
    return functions


def of_the_model(model, batch):
    """Prints what `sparsify` makes of the model, and how long both take."""
    import numpy as np
    import tensorflow as tf

    from tfconvbias import surgery

    small, report = surgery.sparsify(model, batch_size=batch)
    print(report)
    images = np.random.default_rng(0).integers(0, 256, (batch, *model.input_shape[1:]))
    tensor = tf.constant(images.astype(model.inputs[0].dtype))
    functions, outputs, sizes = {}, [], []
    for name, one in (("dense", model), ("sparsified", small)):
        function = tf.function(lambda x, one=one: one(x, training=False), reduce_retracing=True)
        functions[name] = functools.partial(_array_of, function, tensor)
        outputs.append(functions[name]())
        with tempfile.TemporaryDirectory() as folder:
            one.save(Path(folder) / "model.keras")
            sizes.append((Path(folder) / "model.keras").stat().st_size)
    for name, (median, best) in in_turns(functions).items():
        print(f"  whole model, batch {batch:<4}{name:<20}{median:9.3f} ms ({best:.3f})")
    print(f"  largest difference of the outputs {np.abs(outputs[0] - outputs[1]).max():.1e}")
    print(f"  file {sizes[0] / 1e6:.2f} → {sizes[1] / 1e6:.2f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="motifs10")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--l1", type=float, default=4e-4, help="of layer 1; a quarter elsewhere")
    parser.add_argument("--beta", type=float, default=5.0)
    parser.add_argument("--models", nargs="*", help="saved S-FC models to measure, not trained")
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from tfconvbias import analysis

    saved = (keras.saving.load_model(path) for path in arguments.models or ())
    for model in nearest(saved if arguments.models else trained(arguments)):
        print(f"\nfirst layer at {density(model):.2%}; {os.cpu_count()} cores")
        for one in analysis.layer_window_coverage(model, "conv1"):
            print(
                f"  {one.window}×{one.window} windows cover {one.share:.0%} of its weights, "
                f"{one.whole_units:.0%} of its units whole"
            )
        for batch in (1, 256):
            for name, (median, best) in of_the_layer(model, batch).items():
                print(f"  layer 1, batch {batch:<4}{name:<20}{median:9.3f} ms ({best:.3f})")
        for batch in (1, 256):
            of_the_model(model, batch)


if __name__ == "__main__":
    main()
