"""Frozen zeros against steps worked out in NumPy."""

import math

import keras
import numpy as np
import pytest

from tfconvbias.callbacks import FreezeSupport
from tfconvbias.optimizers import BetaLasso

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype("float32")
Y = RNG.normal(size=(12, 4)).astype("float32")
KERNEL = np.where(RNG.random((6, 4)) < 0.5, 0, RNG.normal(size=(6, 4))).astype("float32")


def _model(optimizer, **options):
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, use_bias=False, name="fc", **options)]
    )
    model.layers[0].kernel.assign(KERNEL)
    model.compile(optimizer, "mse")
    return model


def _kernel(model):
    return keras.ops.convert_to_numpy(model.layers[0].kernel)


def _gradient(kernel):
    """Of the mean squared error over examples and outputs."""
    return 2 * X.T @ (X @ kernel - Y) / Y.size


def _fit(model, callback, epochs=3, **options):
    return model.fit(
        X, Y, batch_size=12, epochs=epochs, verbose=0, callbacks=[callback], **options
    ).history


def test_steps_of_gradient_descent_on_the_weights_that_are_left():
    model = _model(keras.optimizers.SGD(0.1))
    callback = FreezeSupport(X, Y, limit=0.2)
    history = _fit(model, callback)
    expected, missed = KERNEL, []
    for _ in range(3):
        expected = np.where(KERNEL == 0, 0, expected - 0.1 * _gradient(expected))
        missed.append(np.count_nonzero((KERNEL == 0) & (np.abs(_gradient(expected)) >= 0.2)))
    np.testing.assert_allclose(_kernel(model), expected, rtol=1e-4, atol=1e-6)
    assert history["missed"] == missed
    assert 0 < missed[0] < np.count_nonzero(KERNEL == 0)
    assert [audit.epoch for audit in callback.audits] == [0, 1, 2]
    assert all(audit.frozen == np.count_nonzero(KERNEL == 0) for audit in callback.audits)
    assert callback.audits[0].path.endswith("fc/kernel")


def test_an_optimizer_with_a_memory():
    model = _model(keras.optimizers.Adam(0.05))
    _fit(model, FreezeSupport(X, Y, limit=1.0))
    np.testing.assert_array_equal(_kernel(model) != 0, KERNEL != 0)
    assert np.all(_kernel(model)[KERNEL != 0] != KERNEL[KERNEL != 0])


def test_a_step_compiled_before_obeys_and_one_after_is_free():
    model = _model(keras.optimizers.SGD(0.1))
    model.fit(X, Y, batch_size=12, epochs=1, verbose=0)
    model.layers[0].kernel.assign(KERNEL)
    _fit(model, FreezeSupport(X, Y, limit=1.0), epochs=1)
    np.testing.assert_array_equal(_kernel(model) != 0, KERNEL != 0)
    assert model.layers[0].kernel.constraint is None
    model.fit(X, Y, batch_size=12, epochs=1, verbose=0)
    assert np.all(_kernel(model) != 0)


def test_an_infinite_limit_freezes_and_misses_nothing():
    model = _model(keras.optimizers.SGD(0.1))
    callback = FreezeSupport(X, Y, limit=math.inf)
    history = _fit(model, callback)
    assert set(history["missed"]) == {0}
    assert callback.audits[0].frozen > 0


def test_the_limit_of_beta_lasso():
    """The missed weights are those that a step without freezing brings back."""
    rate, l1, beta = 0.1, 2e-3, 10.0
    model = _model(BetaLasso(rate, l1, beta))
    callback = FreezeSupport(X, Y)
    _fit(model, callback, epochs=1)
    frozen = _kernel(model)
    assert callback.audits[0].limit == pytest.approx(beta * l1 / rate)
    model.fit(X, Y, batch_size=12, verbose=0)
    returned = np.count_nonzero((KERNEL == 0) & (_kernel(model) != 0))
    assert callback.audits[0].missed == returned > 0
    assert returned < np.count_nonzero(frozen == 0)


def test_a_constraint_of_its_own_stays():
    model = _model(keras.optimizers.SGD(0.1), kernel_constraint="non_neg")
    own = model.layers[0].kernel.constraint
    _fit(model, FreezeSupport(X, Y, limit=1.0), epochs=1)
    expected = np.where(KERNEL == 0, 0, np.maximum(KERNEL - 0.1 * _gradient(KERNEL), 0))
    np.testing.assert_allclose(_kernel(model), expected, rtol=1e-4, atol=1e-6)
    assert model.layers[0].kernel.constraint is own


def test_only_layers_asked_for_every_second_epoch():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, use_bias=False, name="fc1"),
            keras.layers.Dense(4, use_bias=False, name="fc2"),
        ]
    )
    for layer, shape in zip(model.layers, ((6, 4), (4, 4)), strict=True):
        layer.kernel.assign(np.eye(*shape, dtype="float32"))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    callback = FreezeSupport(X, Y, "fc2", limit=1.0, every=2, batch_size=5)
    history = _fit(model, callback, epochs=3)
    first, second = (keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers)
    assert np.all(first != 0)
    np.testing.assert_array_equal(second != 0, np.eye(4) != 0)
    assert np.isnan(history["missed"]).tolist() == [True, False, False]
    assert [audit.epoch for audit in callback.audits] == [1, 2]


def test_refused_arguments():
    with pytest.raises(ValueError, match="Received: limit=0"):
        FreezeSupport(X, Y, limit=0)
    with pytest.raises(ValueError, match="Received: every=0"):
        FreezeSupport(X, Y, limit=1.0, every=0)
    model = _model(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="Received: limit=None with SGD"):
        _fit(model, FreezeSupport(X, Y))
    with pytest.raises(ValueError, match="Received: layers='conv'"):
        _fit(model, FreezeSupport(X, Y, "conv", limit=1.0))
