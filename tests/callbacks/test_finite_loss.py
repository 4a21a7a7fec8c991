"""A loss that is no number stops the run."""

import keras
import numpy as np

from tfconvbias import callbacks


def test_stops_after_the_epoch_and_names_it():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(1e15))
    guard = callbacks.StopOnNonFiniteLoss()
    x = np.ones((8, 1))
    history = model.fit(x, 3 * x, batch_size=1, epochs=9, verbose=0, callbacks=[guard])
    assert guard.diverged == len(history.epoch) < 9


def test_lets_a_finite_run_finish():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    guard = callbacks.StopOnNonFiniteLoss()
    history = model.fit(np.ones((8, 1)), np.ones((8, 1)), epochs=3, verbose=0, callbacks=[guard])
    assert guard.diverged is None
    assert len(history.epoch) == 3
