"""Certified sparse training and inference of S-FC against the dense model, on weights it trained.

    python benchmarks/sparse_training.py [--data FOLDER] [--epochs 8] [--base-channels 8]
        [--l1 4e-4] [--beta 5] [--densities 0.05 0.01 0.003] [--augment none]
    KERAS_BACKEND=jax python benchmarks/sparse_training.py --model S_FC.keras --rate 0.05

S-FC is trained by β-LASSO on `--data` (an image folder as `tfconvbias.data.load` takes it; the
embedded motifs without one), dense, and its weights are kept after every epoch. The first layer's
weights of the epoch whose density is nearest to each of `--densities` are then measured, all in
this process, turn by turn; or those of a saved model (any backend's), at the learning rate given:

- the time of a training step, with and without `CertifiedSparsity`, at the weights and the learning
  rate of that epoch, with `--augment` and without augmentation, and the part of the units that the
  bound did not settle;
- the time of the first layer's products, gradients and update in such a step;
- the memory of the first layer's weights and gradients;
- on TensorFlow, inference of that layer at batch 1 and 256: `Dense`, `SparseDense`, SciPy, and
  PyTorch's CSR product where installed;
- the size of the layer's `.keras` file.

Times of steps are the lower quartiles of rounds in turn, beside them the processor time of a step,
summed over cores, of the best round, which other programs disturb less; other figures are medians.
Without Numba the sparse steps are slower; the header says which it is.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path

BATCH = 128
ROUNDS = 3
WARM_UP = 5


class Recorder:
    """Keeps the weights and the learning rate at the end of every epoch of a `fit`."""

    def __init__(self, keras, layer):
        self.snapshots = []
        self.callback = keras.callbacks.LambdaCallback(on_epoch_end=self.keep)
        self.layer = layer

    def keep(self, epoch, logs):
        import numpy as np

        model = self.callback.model
        density = np.count_nonzero(model.get_layer(self.layer).kernel) / np.size(
            model.get_layer(self.layer).kernel
        )
        rate = float(model.optimizer.learning_rate)
        self.snapshots.append((density, rate, model.get_weights()))
        print(
            f"epoch {epoch + 1}: density {density:.2%}, accuracy {logs['accuracy']:.4f}", flush=True
        )


def nearest(snapshots, wanted):
    """The snapshot whose density is nearest to the wanted one."""
    return min(snapshots, key=lambda taken: abs(taken[0] - wanted))


def median_ms(run, seconds=1.0):
    """Median time of a call, over about `seconds`."""
    run()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 200):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def step_seconds(model, x, y, callbacks):
    """Times of the training steps in one epoch of `fit`, and the mean processor time of a step."""
    import keras

    begins, times, busy = [0.0], [], []

    def begin(batch, logs):
        busy.append(time.process_time())
        begins[0] = time.perf_counter()

    def end(batch, logs):
        float(logs["loss"])  # waits for the step where steps are taken in the background
        times.append(time.perf_counter() - begins[0])

    timer = keras.callbacks.LambdaCallback(on_train_batch_begin=begin, on_train_batch_end=end)
    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[timer, *callbacks])
    # The first steps compile.
    return times[WARM_UP:], (busy[-1] - busy[WARM_UP]) / (len(busy) - 1 - WARM_UP)


def compare_steps(model, prepare, x, y):
    """Dense and certified steps in turn: times in ms, and the report of the last epoch."""
    from tfconvbias.callbacks import CertifiedSparsity

    times: dict[str, list[float]] = {"dense": [], "certified": []}
    busy: dict[str, list[float]] = {"dense": [], "certified": []}
    for _ in range(ROUNDS):
        for name, taken in times.items():
            prepare(model)
            sparsity = CertifiedSparsity("conv1", choose="always", verbose=0)
            callbacks = [] if name == "dense" else [sparsity]
            some, mean = step_seconds(model, x, y, callbacks)
            taken += some
            busy[name].append(mean)
    quartiles = {name: 1e3 * statistics.quantiles(taken)[0] for name, taken in times.items()}
    processor = {name: 1e3 * min(means) for name, means in busy.items()}
    return quartiles, processor, sparsity.report[0]


def inference(kernel):
    """Yields (name, batch, ms) of the layer's product."""
    import keras
    import numpy as np
    import scipy.sparse
    import tensorflow as tf

    from tfconvbias.layers import SparseDense

    dense = keras.layers.Dense(kernel.shape[1], use_bias=False)
    dense.build((None, kernel.shape[0]))
    dense.kernel.assign(kernel)
    functions = {
        "dense": tf.function(dense),
        "SparseDense": tf.function(SparseDense.from_kernel(kernel)),
    }
    transposed = scipy.sparse.csr_array(kernel.T)
    for batch in (1, 256):
        x = np.random.default_rng(0).normal(size=(batch, kernel.shape[0])).astype("float32")
        for name, function in functions.items():
            tensor = tf.constant(x)
            yield name, batch, median_ms(lambda f=function, t=tensor: f(t).numpy())
        yield "scipy", batch, median_ms(lambda x=x: transposed @ x.T)
        if importlib.util.find_spec("torch") is not None:
            import torch

            matrix = torch.from_numpy(np.ascontiguousarray(kernel.T)).to_sparse_csr()
            columns = torch.from_numpy(np.ascontiguousarray(x.T))
            yield "torch CSR", batch, median_ms(lambda m=matrix, c=columns: m @ c)


def file_sizes(kernel):
    """Bytes of a saved model of the layer, dense and sparse."""
    import keras

    from tfconvbias.layers import SparseDense

    dense = keras.layers.Dense(kernel.shape[1], use_bias=False)
    sizes = []
    for layer in (dense, SparseDense.from_kernel(kernel)):
        model = keras.Sequential([keras.Input((kernel.shape[0],)), layer])
        if layer is dense:
            dense.kernel.assign(kernel)
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "layer.keras")
            sizes.append((Path(folder) / "layer.keras").stat().st_size)
    return sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="motifs10")
    parser.add_argument("--model", help="a saved S-FC to measure, not trained; needs --rate")
    parser.add_argument("--rate", type=float, help="learning rate of the steps from --model")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--l1", type=float, default=4e-4, help="of layer 1; a quarter elsewhere")
    parser.add_argument("--beta", type=float, default=5.0)
    parser.add_argument("--densities", type=float, nargs="+", default=(0.05, 0.01, 0.003))
    parser.add_argument("--augment", default="flip_crop", help="in the measured steps")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.rate is None):
        parser.error("--model and --rate are given together")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    from tfconvbias import data, models
    from tfconvbias.callbacks.layer_costs import dense_seconds
    from tfconvbias.layers.sparse_products import compiled_products
    from tfconvbias.optimizers import BetaLasso

    keras.utils.set_random_seed(0)
    dataset = data.load(arguments.data)
    x, y = dataset.x_train, dataset.y_train

    def build(augment):
        return models.SConv(
            arguments.base_channels,
            connectivity="dense",
            input_shape=dataset.image_shape,
            classes=dataset.num_classes,
            preprocessing=data.preprocessing(dataset, augment=augment, seed=0),
        )

    def compile_model(model, rate):
        optimizer = BetaLasso(
            rate, arguments.l1 / 4, arguments.beta, l1_overrides={"conv1": arguments.l1}
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # XLA makes TensorFlow's dense step on a processor slower; JAX is nothing without it.
        jit_compile = keras.config.backend() == "jax"
        model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)

    steps = -(-len(x) // BATCH)
    print(
        f"{keras.config.backend()}, S-FC α = {arguments.base_channels}, batch {BATCH}, λ = "
        f"{arguments.l1:g} in layer 1, β = {arguments.beta:g}; {os.cpu_count()} cores, "
        f"{'with' if compiled_products() else 'without'} Numba"
    )
    model = build("flip_crop")
    if arguments.model:
        model.set_weights(keras.saving.load_model(arguments.model).get_weights())
        kernel = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
        density = np.count_nonzero(kernel) / kernel.size
        snapshots = {density: (density, arguments.rate, model.get_weights())}
    else:
        rate = keras.optimizers.schedules.CosineDecay(0.1, steps * arguments.epochs)
        compile_model(model, rate)
        recorder = Recorder(keras, "conv1")
        model.fit(x, y, BATCH, arguments.epochs, verbose=0, callbacks=[recorder.callback])
        snapshots = {wanted: nearest(recorder.snapshots, wanted) for wanted in arguments.densities}

    num_examples = BATCH * min(40, steps)
    measured = {name: build(name) for name in dict.fromkeys((arguments.augment, "none"))}
    for wanted, (density, rate, weights) in snapshots.items():
        print(f"\nlayer 1 at {density:.2%} (nearest to {wanted:.1%}), learning rate {rate:.4f}")

        def prepare(model, rate=rate, weights=weights):
            compile_model(model, rate)
            model.set_weights(weights)

        for name, other in measured.items():
            *times, done = compare_steps(other, prepare, x[:num_examples], y[:num_examples])
            for kind, taken in zip(("time", "processor time"), times, strict=True):
                print(
                    f"  step of the model, augmentation {name:<10} {kind:<14} "
                    f"dense {taken['dense']:.2f} ms, certified {taken['certified']:.2f} ms: "
                    f"{taken['dense'] / taken['certified']:.1f} times less"
                )
        shape, dtype = model.get_layer("conv1").kernel.shape, "float32"
        alone = 1e3 * dense_seconds(shape, dtype, BATCH, False)
        print(
            f"  layer 1 alone  dense {alone:.2f} ms, certified {done.sparse_ms:.2f} ms: "
            f"{alone / done.sparse_ms:.1f} times faster"
        )
        print(f"  units checked {done.checked:.2%}, zeros that came back {done.returned}")
        ratio = done.dense_bytes / done.sparse_bytes
        print(
            f"  weights and gradients {done.dense_bytes / 1e6:.2f} MB dense, "
            f"{done.sparse_bytes / 1e6:.2f} MB: {ratio:.1f} times less"
        )
        model.set_weights(weights)
        kernel = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
        if keras.config.backend() == "tensorflow":
            for name, batch, ms in inference(kernel):
                print(f"  inference of layer 1, batch {batch:<4} {name:<12} {ms:.3f} ms")
        dense, sparse = file_sizes(kernel)
        print(
            f"  file {dense / 1e6:.2f} MB dense, {sparse / 1e6:.3f} MB: {dense / sparse:.1f} times"
        )


if __name__ == "__main__":
    main()
