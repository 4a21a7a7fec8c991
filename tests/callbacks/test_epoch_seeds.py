"""Random layers that depend on seed and epoch alone."""

import keras
import numpy as np

from tfconvbias import callbacks


def draws(initial_epoch, epochs, seed=5):
    """What dropout let through in each epoch, read off a model that passes ones."""

    class Keep(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.losses = []

        def on_epoch_end(self, epoch, logs=None):
            self.losses.append(logs["loss"])

    fixed = keras.layers.Dense(32, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dropout(0.5), fixed])
    keep = Keep()
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0))
    x = np.random.default_rng(0).normal(size=(24, 32)).astype("float32")
    model.fit(
        x,
        np.zeros_like(x),
        batch_size=8,
        shuffle=False,
        initial_epoch=initial_epoch,
        epochs=epochs,
        verbose=0,
        callbacks=[callbacks.EpochSeeds(seed), keep],
    )
    return keep.losses


def test_a_later_start_draws_what_the_whole_run_drew():
    whole = draws(0, 4)
    assert len(set(whole)) == 4
    assert draws(2, 4) == whole[2:]


def test_another_seed_draws_something_else():
    assert draws(0, 1) != draws(0, 1, seed=6)
