import keras
import numpy as np
import pytest

from tfconvbias.analysis import LossDerivatives
from tfconvbias.callbacks import Sharpness
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import KernelNumber

X = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")
Y = np.random.default_rng(1).standard_normal((6, 1)).astype("float32")


def _model(optimizer=None):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer or keras.optimizers.SGD(0.05), "mse")
    return model


def test_the_last_value_is_that_of_the_trained_model():
    model = _model()
    callback = Sharpness(X, Y, k=2, include_gradient_norm=True, batch_size=4, tolerance=1e-6)
    history = model.fit(X, Y, epochs=4, batch_size=6, verbose=0, callbacks=[callback]).history
    derivatives = LossDerivatives(model, X, Y, "mse")
    hessian = np.stack([derivatives.product(row) for row in np.eye(derivatives.size)])
    expected = np.linalg.eigvalsh(hessian)[::-1]
    np.testing.assert_allclose(history["sharpness"][-1], expected[0], rtol=1e-3)
    np.testing.assert_allclose(history["sharpness_2"][-1], expected[1], rtol=1e-3)
    np.testing.assert_allclose(
        history["gradient_norm"][-1], np.linalg.norm(derivatives.gradient()), rtol=1e-4
    )
    assert len(set(history["sharpness"])) == 4


def test_epochs_between_measurements_hold_nan():
    history = _model().fit(X, Y, epochs=5, verbose=0, callbacks=[Sharpness(X, Y, every=2)]).history
    assert np.isnan(history["sharpness"]).tolist() == [True, False, True, False, False]
    assert np.isnan(history["edge"]).tolist() == [True, False, True, False, False]


def test_the_edge_follows_the_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2, 0.4])
    history = _model(keras.optimizers.SGD(schedule)).fit(
        X, Y, epochs=3, batch_size=6, verbose=0, callbacks=[Sharpness(X, Y)]
    )
    np.testing.assert_allclose(history.history["edge"], [20.0, 10.0, 5.0], rtol=1e-6)


@pytest.mark.parametrize("decay", [None, 2.0])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.5, True)])
def test_the_edge_is_where_a_quadratic_starts_to_diverge(momentum, nesterov, decay):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.SGD(0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    model.compile(optimizer, "mse")
    x, y = np.ones((1, 1), "float32"), np.zeros((200, 1), "float32")
    history = model.fit(x, y[:1], verbose=0, callbacks=[Sharpness(x, y[:1])]).history
    np.testing.assert_allclose(history["sharpness"], [2.0], rtol=1e-5)
    for factor, grows in ((0.97, False), (1.03, True)):
        # An input of √(factor · edge / 2) makes the curvature factor · edge.
        x = np.full((200, 1), np.sqrt(factor * history["edge"][0] / 2), "float32")
        model.layers[0].kernel.assign([[1.0]])
        model.fit(x, y, batch_size=1, verbose=0)
        assert (abs(float(np.squeeze(model.get_weights()[0]))) > 1) == grows


@pytest.mark.parametrize(
    "wrap",
    [
        keras.optimizers.LossScaleOptimizer,
        lambda inner: Proximal(inner, KernelNumber(0.0), 1e-3, penalized="kernel"),
    ],
)
def test_the_edge_of_sgd_inside_another_optimizer(wrap):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.2])
    optimizer = wrap(keras.optimizers.SGD(schedule, momentum=0.5))
    history = _model(optimizer).fit(
        X, Y, epochs=2, batch_size=6, verbose=0, callbacks=[Sharpness(X, Y)]
    )
    np.testing.assert_allclose(history.history["edge"], [30.0, 15.0], rtol=1e-6)
    with pytest.raises(ValueError, match="include_edge=False"):
        _model(wrap(keras.optimizers.Adam())).fit(X, Y, verbose=0, callbacks=[Sharpness(X, Y)])


def test_a_diverged_model_gives_nan():
    model = _model()
    model.layers[0].kernel.assign(np.full((4, 8), np.nan))
    history = model.fit(X, Y, verbose=0, callbacks=[Sharpness(X, Y)]).history
    assert np.isnan(history["sharpness"][0])


def test_only_sgd_has_an_edge():
    adam = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="include_edge=False"):
        _model(adam).fit(X, Y, verbose=0, callbacks=[Sharpness(X, Y)])
    history = _model(keras.optimizers.Adam()).fit(
        X, Y, verbose=0, callbacks=[Sharpness(X, Y, include_edge=False)]
    )
    assert "edge" not in history.history
    assert np.isfinite(history.history["sharpness"][0])


@pytest.mark.parametrize(
    "arguments", [{"every": 0}, {"every_steps": 0}, {"k": 0}, {"tolerance": np.nan}]
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Sharpness(X, Y, **arguments)


class _Weights(keras.callbacks.Callback):
    """The weights after each training step, and before the first."""

    def on_train_begin(self, logs=None):
        self.found = [self.model.get_weights()]

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(self.model.get_weights())


def test_steps_of_an_epoch_are_measured_on_the_weights_of_their_time():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.1, 0.2])
    model = _model(keras.optimizers.SGD(schedule))
    x, y = np.tile(X, (4, 1)), np.tile(Y, (4, 1))
    callback, weights = Sharpness(X, Y, every_steps=3, tolerance=1e-5), _Weights()
    history = model.fit(
        x, y, batch_size=6, epochs=2, shuffle=False, verbose=0, callbacks=[weights, callback]
    ).history
    found = callback.measurements
    # Four steps an epoch; the ends of both epochs are measured as well.
    assert found["step"] == [0, 3, 4, 6, 8]
    np.testing.assert_allclose(found["edge"], [20, 20, 10, 10, 10], rtol=1e-6)
    assert history["sharpness"] == [found["sharpness"][2], found["sharpness"][4]]
    derivatives = LossDerivatives(model, X, Y)
    for step, sharpness in zip(found["step"], found["sharpness"], strict=True):
        model.set_weights(weights.found[step])
        hessian = np.stack([derivatives.product(row) for row in np.eye(derivatives.size)])
        assert sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)
    assert len(set(found["sharpness"])) == 5


@pytest.mark.tensorflow
def test_a_data_set_and_executions_of_several_steps():
    import tensorflow as tf

    model = _model()
    model.compile(keras.optimizers.SGD(0.05), "mse", steps_per_execution=2)
    data_set = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    callback = Sharpness(data_set, every_steps=3)
    model.fit(np.tile(X, (5, 1)), np.tile(Y, (5, 1)), batch_size=6, verbose=0, callbacks=[callback])
    assert callback.measurements["step"] == [0, 4, 5]
    expected = LossDerivatives(model, X, Y)
    hessian = np.stack([expected.product(row) for row in np.eye(expected.size)])
    found = callback.measurements["sharpness"][-1]
    assert found == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)


def test_a_search_from_the_last_vectors_is_short(monkeypatch):
    counts = []
    split = LossDerivatives.split

    def counted(self, vector):  # once for each product
        counts[-1] += 1
        return split(self, vector)

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counts.append(0)

    monkeypatch.setattr(LossDerivatives, "split", counted)
    counts.append(0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6)).astype("float32"), rng.standard_normal((40, 1))
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(30, activation="tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.02), "mse")
    model.fit(x, y, epochs=8, batch_size=10, verbose=0, callbacks=[Sharpness(x, y), Count()])
    assert max(counts[1:-1]) <= 8
    assert np.mean(counts[1:-1]) < 6
