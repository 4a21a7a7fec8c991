import keras
import numpy as np
import pytest

from tfconvbias.analysis import description_length, generalization_bound
from tfconvbias.callbacks import GeneralizationBound


def _fit(callback, metrics):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=metrics)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    y = np.arange(12) % 3
    return model, model.fit(x, y, epochs=2, verbose=0, callbacks=[callback]).history


def test_logs_hold_lengths_and_bounds():
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model, history = _fit(GeneralizationBound(num_samples=12, delta=0.1), [accuracy])
    found = description_length(model)
    assert history["description/nonzeros"] == [15, 15]
    assert history["description/parameter_bits"] == [480, 480]
    assert history["description/bits"][-1] == found.bits
    error = 1 - history["accuracy"][-1]
    assert history["description/bound"][-1] == pytest.approx(found.bound(error, 12, 0.1))
    assert history["description/parameter_bound"][-1] == pytest.approx(
        generalization_bound(error, 480, 12, 0.1)
    )


def test_without_accuracy_there_is_no_bound():
    _, history = _fit(GeneralizationBound(num_samples=12), [])
    assert "description/bits" in history
    assert "description/bound" not in history
