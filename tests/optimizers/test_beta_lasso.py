import inspect

import keras
import numpy as np
import pytest

from tfconvbias.optimizers import BetaLasso, PenalizedVariable


def updated(optimizer, weights, gradients, name="kernel"):
    """The weights after each step; gradients are given step by step."""
    variable = keras.Variable(np.array(weights, "float32"), dtype="float32", name=name)
    steps = []
    for gradient in gradients:
        gradient = keras.ops.convert_to_tensor(np.array(gradient, "float32"))
        optimizer.apply([gradient], [variable])
        steps.append(keras.ops.convert_to_numpy(variable).copy())
    return steps


# λ = 0.1 and η = 0.5, so that ηλ = 0.05; βλ = 0.2 where β = 2.
WEIGHTS = [1.0, -1.0, 0.0, 0.0, 0.3, 0.24, -0.3]
GRADIENT = [0.2, 0.2, 0.3, 0.5, 0.0, 0.0, -0.2]
STEPPED = [0.85, -1.05, -0.15, -0.25, 0.25, 0.19, -0.15]


@pytest.mark.parametrize(
    "beta, threshold, expected",
    [
        (0, "hard", STEPPED),
        (0, "soft", STEPPED),
        (2, "hard", [0.85, -1.05, 0, -0.25, 0.25, 0, 0]),
        (2, "soft", [0.65, -0.85, 0, -0.05, 0.05, 0, 0]),
        (20, "hard", [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_one_step_by_hand(beta, threshold, expected):
    (actual,) = updated(BetaLasso(0.5, 0.1, beta, threshold), WEIGHTS, [GRADIENT])
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(actual == 0, np.array(expected) == 0)


def test_momentum_by_hand():
    # v: -0.5, then 0.9 * -0.5 - 0.5 * 0.2 = -0.55; the penalty takes 0.05 each time.
    steps = updated(BetaLasso(0.5, 0.1, 0, momentum=0.9), [2.0], [[1.0], [0.2]])
    np.testing.assert_allclose(np.ravel(steps), [1.45, 0.85], rtol=1e-6)
    # 0.9 * -0.5 - 0.5 = -0.95, then 0.9 * -0.55 - 0.1 = -0.595.
    nesterov = BetaLasso(0.5, 0.1, 0, momentum=0.9, nesterov=True)
    steps = updated(nesterov, [2.0], [[1.0], [0.2]])
    np.testing.assert_allclose(np.ravel(steps), [1.0, 0.355], rtol=1e-6)


def oracle(weights, gradients, rate, l1, beta, threshold, momentum, nesterov):
    """The update in float64, one element at a time; also how close it came to the threshold."""
    weights, margin = weights.astype("float64"), np.full(weights.shape, np.inf)
    velocity = np.zeros_like(weights)
    for gradient in gradients.astype("float64"):
        for i, (old, slope) in enumerate(zip(weights, gradient, strict=True)):
            velocity[i] = momentum * velocity[i] - rate * slope
            move = momentum * velocity[i] - rate * slope if nesterov else velocity[i]
            sign = 0 if old == 0 else np.copysign(1, old)
            new = old + move - rate * l1 * sign
            margin[i] = min(margin[i], abs(abs(new) - beta * l1))
            if abs(new) < beta * l1:
                new = 0.0
            elif threshold == "soft":
                new = np.copysign(abs(new) - beta * l1, new)
            weights[i] = new
    return weights, margin


@pytest.mark.parametrize("threshold", ["hard", "soft"])
@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("beta", [0.0, 1.0, 50.0])
def test_equals_the_float64_oracle(beta, momentum, nesterov, threshold):
    rng = np.random.default_rng(3)
    weights = (rng.normal(size=400) * rng.integers(0, 2, 400)).astype("float32") / 5
    gradients = rng.normal(size=(8, 400)).astype("float32")
    settings = {"threshold": threshold, "momentum": momentum, "nesterov": nesterov}
    actual = updated(BetaLasso(0.1, 2e-3, beta, **settings), weights, gradients)[-1]
    expected, margin = oracle(weights, gradients, 0.1, 2e-3, beta, **settings)
    # Only where rounding could not have decided.
    clear = margin > 1e-6 if beta else np.ones(400, bool)
    assert clear.mean() > 0.95
    np.testing.assert_allclose(actual[clear], expected[clear], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(actual[clear] == 0, expected[clear] == 0)
    if beta == 50:
        assert 0.05 < np.mean(expected == 0) < 1


def test_a_weight_at_the_threshold_is_kept():
    # All numbers are exact in binary: |0.75 - 0.5 * 0.5| = 0.5 = βλ.
    (actual,) = updated(BetaLasso(0.5, 0.5, 1.0), [0.75, -0.75, 0.625], [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(actual, [0.5, -0.5, 0.0])


def test_zero_returns_only_by_a_large_gradient():
    # η = 0.5 and βλ = 0.25: |g| >= 0.5 is needed, and the penalty does not act on a zero.
    (actual,) = updated(BetaLasso(0.5, 0.125, 2.0), [0, 0, 0, 0], [[0.5, -0.5, 0.49, -0.49]])
    np.testing.assert_array_equal(actual, [-0.25, 0.25, 0, 0])


def test_zero_l1_is_sgd():
    rng = np.random.default_rng(0)
    weights, gradients = rng.normal(size=50), rng.normal(size=(4, 50))
    for settings in ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}):
        actual = updated(BetaLasso(0.1, 0.0, 50.0, **settings), weights, gradients)
        expected = updated(keras.optimizers.SGD(0.1, **settings), weights, gradients)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("threshold", ["hard", "soft"])
@pytest.mark.parametrize("beta", [0.0, 10.0])
def test_nan_is_not_mistaken_for_zero(threshold, beta):
    (actual,) = updated(BetaLasso(0.1, 0.1, beta, threshold), [1.0, 3.0], [[np.nan, 0.0]])
    np.testing.assert_array_equal(np.isnan(actual), [True, False])


def make_model():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="fc1"), layers.Dense(2, name="fc2")], name="net"
    )


def test_overrides_and_introspection():
    model = make_model()
    optimizer = BetaLasso(0.5, 0.25, 0, l1_overrides={"fc2/": 0.5})
    with pytest.raises(ValueError, match="once the optimizer is built"):
        _ = optimizer.penalized_variables
    optimizer.build(model.trainable_variables)
    assert optimizer.penalized_variables == [
        PenalizedVariable("net/fc1/kernel", 0.25),
        PenalizedVariable("net/fc2/kernel", 0.5),
    ]
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    values = {v.path: np.unique(keras.ops.convert_to_numpy(v)).tolist() for v in model.weights}
    assert values == {
        "net/fc1/kernel": [1 - 0.5 * 0.25],
        "net/fc2/kernel": [1 - 0.5 * 0.5],
        "net/fc1/bias": [1.0],
        "net/fc2/bias": [1.0],
    }
    optimizer.l1 = 0.125
    optimizer.l1_overrides = {"fc2/": 2}
    assert [p.l1 for p in optimizer.penalized_variables] == [0.125, 2.0]
    optimizer.l1_overrides["fc2/"].assign(1.0)
    optimizer.beta.assign(4.0)
    config = optimizer.get_config()
    assert (config["l1"], config["l1_overrides"], config["beta"]) == (0.125, {"fc2/": 1.0}, 4.0)
    with pytest.raises(ValueError, match=r"'fc3'. Known: 'fc2/'"):
        optimizer.l1_overrides = {"fc3": 1.0}


def fit_without_gradient(optimizer, callbacks=(), epochs=4, jit_compile=None):
    """Trains on a loss that does not depend on the weights: one step an epoch."""
    inputs = keras.Input((1,))
    kernel = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones", name="fc1")
    model = keras.Model(inputs, kernel(inputs))
    if jit_compile is None:
        jit_compile = keras.config.backend() == "jax"
    model.compile(optimizer, lambda y, prediction: prediction * 0, jit_compile=jit_compile)
    trace = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: trace.append(model.get_weights()[0][0, 0])
    )
    x = np.ones((4, 1), "float32")
    model.fit(x, x, batch_size=4, epochs=epochs, verbose=0, callbacks=[*callbacks, record])
    return trace


JIT = [False, True] if keras.config.backend() == "tensorflow" else [None]


@pytest.mark.parametrize("jit_compile", JIT)
def test_schedules_take_effect_mid_fit(jit_compile):
    steps = keras.optimizers.schedules.PiecewiseConstantDecay
    optimizer = BetaLasso(1.0, steps([0, 1], [0.0, 0.25, 0.125]), steps([2], [0.0, 4.0]))
    # λ: 0, 0.25, 0.125, 0.125; β: 0, 0, 0, 4, so that the last step's 0.5 meets βλ = 0.5.
    assert fit_without_gradient(optimizer, jit_compile=jit_compile) == [1.0, 0.75, 0.625, 0.5]
    optimizer = BetaLasso(1.0, 0.0, 4.125, l1_overrides={"fc1": steps([2], [0.0, 0.125])})
    assert fit_without_gradient(optimizer, jit_compile=jit_compile) == [1.0, 1.0, 1.0, 0.875]


@pytest.mark.parametrize("jit_compile", JIT)
def test_values_assigned_mid_fit_reach_the_compiled_step(jit_compile):
    optimizer = BetaLasso(1.0, 0.125, 0)

    def change(epoch, logs):
        if epoch == 1:
            optimizer.l1 = 0.25
        if epoch == 2:
            optimizer.l1.assign(0.125)
        if epoch == 3:
            optimizer.beta = 4.0

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=change)
    trace = fit_without_gradient(optimizer, [callback], jit_compile=jit_compile)
    assert trace == [0.875, 0.625, 0.5, 0.0]


def test_schedule_and_callable_survive_saving(tmp_path):
    model = make_model()
    decay = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.5)
    optimizer = BetaLasso(
        decay, decay, 2, l1_overrides={"fc2": decay}, penalized=first_layer_kernel_or_fc2
    )
    model.compile(optimizer, "mse")
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 2)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert loaded.get_config() == optimizer.get_config()
    assert loaded.penalized is first_layer_kernel_or_fc2
    # The path of a reloaded Sequential model's variable does not begin with the model's name.
    assert [p.path[-10:] for p in loaded.penalized_variables] == ["fc1/kernel", "fc2/kernel"]
    with pytest.raises(TypeError, match="`l1` can be set only from a number to a number"):
        loaded.l1 = 1e-3


@keras.saving.register_keras_serializable(package="tests")
def first_layer_kernel_or_fc2(variable):
    return variable.path.endswith(("fc1/kernel", "fc2/kernel"))


def test_assigned_values_are_checked():
    optimizer = BetaLasso(0.1, 1e-3, 2, l1_overrides={"fc1": 1e-4})
    for name, value in {"l1": -1, "beta": np.nan, "l1_overrides": {"fc1": np.inf}}.items():
        with pytest.raises(ValueError, match=f"`{name}.*` must be a finite number >= 0"):
            setattr(optimizer, name, value)
    with pytest.raises(TypeError, match="`l1` can be set only from a number"):
        optimizer.l1 = keras.optimizers.schedules.CosineDecay(1.0, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": -0.1}, "`learning_rate` must be .* Received: learning_rate=-0.1"),
        ({"learning_rate": float("nan")}, "Received: learning_rate=nan"),
        ({"l1": -1e-3}, r"`l1` must be a finite number >= 0 .* Received: l1=-0.001"),
        ({"l1": float("nan")}, "Received: l1=nan"),
        ({"l1": "1e-3"}, "Received: l1='1e-3'"),
        ({"l1": True}, "Received: l1=True"),
        ({"beta": float("inf")}, "Received: beta=inf"),
        ({"beta": -1}, "Received: beta=-1"),
        ({"threshold": "medium"}, "one of 'hard', 'soft'. Received: threshold='medium'"),
        ({"momentum": 1.5}, "at least 0 and at most 1. Received: momentum=1.5"),
        ({"momentum": -0.1}, "Received: momentum=-0.1"),
        ({"momentum": float("nan")}, "Received: momentum=nan"),
        ({"nesterov": True}, "needs `momentum > 0`. Received: nesterov=True, momentum=0.0"),
        ({"l1_overrides": {"fc1": -1}}, r"l1_overrides\['fc1'\]=-1"),
        ({"l1_overrides": {"fc(": 1}}, r"valid regular expression.*'fc\('"),
        ({"l1_overrides": {3: 1}}, r"must be a mapping from a string .* l1_overrides=\{3: 1\}"),
        ({"l1_overrides": [1]}, r"must be a mapping .* Received: l1_overrides=\[1\]"),
        ({"penalized": ""}, "Received: penalized=''"),
        ({"penalized": "["}, r"valid regular expression.*penalized='\['"),
        ({"penalized": 3}, "Received: penalized=3"),
    ],
)
def test_bad_values_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        BetaLasso(**{"learning_rate": 0.1, "l1": 1e-3, "beta": 1.0, **arguments})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"penalized": "conv1"}, "`penalized` matches none.*'conv1'.*'net/fc1/kernel'"),
        ({"l1_overrides": {"bias": 1}}, "The pattern 'bias'.*matches none.*'net/fc1/kernel'"),
        ({"l1_overrides": {"fc1": 1, "net": 2}}, "Two patterns.*'fc1' and 'net'"),
    ],
)
def test_patterns_are_checked_when_built(arguments, message):
    optimizer = BetaLasso(0.1, 1e-3, 1.0, **arguments)
    with pytest.raises(ValueError, match=message):
        optimizer.build(make_model().trainable_variables)


def test_half_precision_variables_are_rejected():
    variable = keras.Variable(np.ones(3), dtype="bfloat16", name="kernel")
    with pytest.raises(ValueError, match=r"float32 or float64.*'kernel' of dtype bfloat16"):
        BetaLasso(0.1, 1e-3, 1.0).build([variable])


def test_signature_follows_keras():
    ours = inspect.signature(BetaLasso.__init__).parameters
    for name, parameter in inspect.signature(keras.optimizers.SGD.__init__).parameters.items():
        assert name in ours
        if name not in ("learning_rate", "name"):
            assert ours[name].default == parameter.default
