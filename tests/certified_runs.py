"""Small networks trained by β-LASSO with and without `CertifiedSparsity`."""

import keras
import numpy as np
from keras import layers, ops

from tfconvbias.callbacks import CertifiedSparsity
from tfconvbias.optimizers import BetaLasso

BACKEND = keras.config.backend()
STEPS, BATCH = 24, 16
# On JAX, Keras runs a step that is not compiled one operation after the other.
COMPILED = BACKEND == "jax"


def examples(dtype="float32", shape=(20,)):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(STEPS * BATCH, *shape)), rng.integers(0, 3, STEPS * BATCH)
    x.reshape(len(x), -1)[np.arange(len(x)), 5 * y] += 2
    return x.astype(dtype), y


def mlp(dtype="float32"):
    """Noise, dropout and normalization between dense layers: random draws must agree too."""
    keras.utils.set_random_seed(0)
    options = {"dtype": dtype}
    return keras.Sequential(
        [
            keras.Input((20,), dtype=dtype),
            layers.GaussianNoise(0.1, seed=3, **options),
            layers.Dense(40, use_bias=False, name="fc1", **options),
            layers.BatchNormalization(**options),
            layers.ReLU(**options),
            layers.Dropout(0.1, **options),
            layers.Dense(15, activation="tanh", name="fc2", **options),
            layers.Dense(3, name="fc3", **options),
        ]
    )


def twice_called(dtype="float32"):
    """A layer called twice, with inputs of three axes, within a model within the model."""
    keras.utils.set_random_seed(0)
    inner_input = keras.Input((5, 8), dtype=dtype)
    shared = layers.Dense(8, activation="relu", name="fc1", dtype=dtype)
    inner = keras.Model(inner_input, shared(shared(inner_input)), name="inner")
    inputs = keras.Input((5, 8), dtype=dtype)
    flat = layers.Flatten(dtype=dtype)(inner(inputs))
    return keras.Model(inputs, layers.Dense(3, name="fc3", dtype=dtype)(flat))


def lasso(epochs, **changes):
    rate = keras.optimizers.schedules.CosineDecay(0.1, epochs * STEPS)
    return BetaLasso(**{"learning_rate": rate, "l1": 2e-3, "beta": 10.0, **changes})


class Kernels(keras.callbacks.Callback):
    """All weights after every epoch; before `CertifiedSparsity` in the list, as a trap."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append([ops.convert_to_numpy(weight) for weight in self.model.weights])


def train(build, sparsity, dtype="float32", epochs=4, callbacks=(), data=None, **changes):
    model = build(dtype)
    model.compile(
        lasso(epochs, **changes),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=COMPILED,
    )
    x, y = examples(dtype, model.input_shape[1:]) if data is None else data
    kernels = Kernels()
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        validation_data=(x[:64], y[:64]),
        callbacks=[kernels, *callbacks, *([sparsity] if sparsity else [])],
    )
    return model, kernels.seen, history.history


def always():
    return CertifiedSparsity(choose="always", verbose=0)
