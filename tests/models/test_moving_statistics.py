"""Statistics at the end of short trainings."""

import keras
import numpy as np
import pytest

from tfconvbias import models


def normalized(inner=False):
    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    if inner:
        layers = [keras.Sequential([keras.Input((3,)), *layers])]
    return keras.Sequential([keras.Input((3,)), *layers])


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("steps", [20, 60])
def test_a_short_training_ends_with_the_statistics_of_its_batches(steps, inner):
    x = np.random.default_rng(0).normal([3, -2, 0], [1, 4, 2], (40, 3)).astype("float32")
    model = normalized(inner)
    models.match_statistics_momentum(model, steps)
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((40, 1)), batch_size=40, epochs=steps, verbose=0)
    norm = (model.layers[0] if inner else model).layers[0]
    mean, variance = map(keras.ops.convert_to_numpy, (norm.moving_mean, norm.moving_variance))
    # With 0.99 a share of .99**60 = .55 of the start, 0 and 1, would be left.
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-3)
    np.testing.assert_allclose(variance, x.var(0), rtol=1e-3)


def test_long_trainings_and_smaller_momenta_stay_as_they_are():
    model = normalized()
    models.match_statistics_momentum(model, 1000)
    assert model.layers[0].momentum == 0.99
    model.layers[0].momentum = 0.5
    models.match_statistics_momentum(model, 100)
    assert model.layers[0].momentum == 0.5
    models.match_statistics_momentum(model, 5)
    assert model.layers[0].momentum == 0


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps=0"):
        models.match_statistics_momentum(normalized(), 0)
