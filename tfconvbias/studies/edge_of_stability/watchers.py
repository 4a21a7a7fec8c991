"""Callbacks that measure during full-batch descent."""

import keras
import numpy as np

from tfconvbias import callbacks, data


class Start(keras.callbacks.Callback):
    """What the watchers measure before the first step; behind them in the list of callbacks."""

    def __init__(self, watchers):
        super().__init__()
        self.watchers = watchers
        self.found: dict[str, float] = {}

    def on_train_begin(self, logs=None):
        for watcher in self.watchers:
            self.found.update(watcher.measure(self.found))


class TestAccuracy(callbacks.Measurement):
    """Accuracy on a test set, with the moving statistics of BatchNormalization."""

    names = ("test_accuracy",)

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def measure(self, logs):
        logits = self.model.predict(self.x, batch_size=data.EVALUATION_BATCH_SIZE, verbose=0)
        return {"test_accuracy": float(np.mean(logits.argmax(axis=1) == self.y))}
