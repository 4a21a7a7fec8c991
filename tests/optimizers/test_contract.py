"""What every optimizer of the package must do; a new one joins by a row in `CASES`."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from tfconvbias.optimizers import BetaLasso, Proximal
from tfconvbias.regularizers import KernelNumber


@dataclass(frozen=True)
class Case:
    """An optimizer under the contract.

    `make` takes `learning_rate` and Keras' optimizer arguments and returns an optimizer that
    penalizes kernels, strongly enough for zeros after a few steps, and treats all other variables
    as `keras.optimizers.SGD(**sgd)` does.
    """

    name: str
    make: Callable[..., keras.optimizers.Optimizer]
    sgd: dict


def beta_lasso(beta=20.0, **settings):
    def make(learning_rate=0.1, **kwargs):
        return BetaLasso(learning_rate, l1=2e-3, beta=beta, **settings, **kwargs)

    return make


def proximal(alpha=0.5, **settings):
    """Sets whole columns to zero; all but moving averages are arguments of the inner optimizer."""

    def make(learning_rate=0.1, **kwargs):
        averages = {name: kwargs.pop(name) for name in list(kwargs) if "ema" in name}
        inner = keras.optimizers.SGD(learning_rate, **settings, **kwargs)
        return Proximal(inner, KernelNumber(0.0), alpha, penalized="kernel", **averages)

    return make


NESTEROV = {"momentum": 0.9, "nesterov": True}
CASES = [
    Case("beta_lasso_hard", beta_lasso(), {}),
    Case("beta_lasso_soft", beta_lasso(beta=2.0, threshold="soft"), {}),
    Case("beta_lasso_momentum", beta_lasso(momentum=0.9), {"momentum": 0.9}),
    Case("beta_lasso_nesterov", beta_lasso(**NESTEROV), NESTEROV),
    Case("proximal", proximal(), {}),
    Case("proximal_nesterov", proximal(alpha=1.0, **NESTEROV), NESTEROV),
]
NESTEROV_CASES = [case for case in CASES if case.sgd == NESTEROV]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

KERNEL, BIAS = 0, 1
SHAPES = {"kernel": (6, 5), "bias": (5,)}


def make_variables():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(0.1 * rng.normal(size=shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]


def make_gradients(steps, seed=1):
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=shape).astype("float32") for shape in SHAPES.values()]
        for _ in range(steps)
    ]


def apply(optimizer, variables, gradients):
    if not optimizer.built:
        optimizer.build(variables)
    for step in gradients:
        step = [keras.ops.convert_to_tensor(g) for g in step]
        if keras.config.backend() == "jax":
            # As Keras' trainer does; loss scaling works in no other way there.
            state = [v.value for v in optimizer.variables]
            values, state = optimizer.stateless_apply(state, step, [v.value for v in variables])
            for variable, value in zip(
                [*variables, *optimizer.variables], [*values, *state], strict=True
            ):
                variable.assign(value)
        else:
            optimizer.apply(step, variables)
    return [keras.ops.convert_to_numpy(v) for v in variables]


def trained(optimizer, gradients):
    return apply(optimizer, make_variables(), gradients)


def assert_close(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-7)


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def make_data(rows=64):
    rng = np.random.default_rng(2)
    return rng.normal(size=(rows, 12)).astype("float32"), rng.integers(0, 3, rows)


def make_model(optimizer, jit_compile=None, units=16):
    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(units, use_bias=False, name="fc1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(),
            layers.Dense(3, dtype="float32", name="fc2"),
        ],
        name="model",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if jit_compile is None:
        jit_compile = keras.config.backend() == "jax"
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model


def fit(model, epochs, initial_epoch=0):
    x, y = make_data()
    return model.fit(
        x, y, batch_size=16, epochs=epochs, initial_epoch=initial_epoch, shuffle=False, verbose=0
    )


@every_case
def test_exact_zeros_in_kernels_only(case):
    model = make_model(case.make())
    fit(model, 6)
    zeros = {v.path: float(np.mean(np.array(v) == 0)) for v in model.trainable_variables}
    assert 0.02 < zeros["model/fc1/kernel"] < 1
    assert zeros["model/bn1/gamma"] == zeros["model/bn1/beta"] == zeros["model/fc2/bias"] == 0


@every_case
def test_unpenalized_variables_follow_sgd(case):
    gradients = make_gradients(4)
    actual = trained(case.make(), gradients)[BIAS]
    expected = trained(keras.optimizers.SGD(0.1, **case.sgd), gradients)[BIAS]
    if keras.config.backend() == "torch":
        # Keras' SGD for PyTorch multiplies and adds in one fused operation.
        assert_close([actual], [expected])
    else:
        assert_same([actual], [expected])


@every_case
def test_config_round_trip(case):
    optimizer = case.make(learning_rate=0.05, weight_decay=1e-3, clipnorm=2.0)
    config = keras.saving.serialize_keras_object(optimizer)
    json.dumps(config)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()
    gradients = make_gradients(3)
    assert_same(trained(copy, gradients), trained(optimizer, gradients))


@pytest.mark.parametrize(
    "case, option",
    [
        *((case, {}) for case in CASES),
        *((case, {"use_ema": True, "gradient_accumulation_steps": 3}) for case in NESTEROV_CASES),
    ],
    ids=[
        *(case.name for case in CASES),
        *(f"{case.name}_ema_accumulation" for case in NESTEROV_CASES),
    ],
)
def test_resumed_equals_uninterrupted(case, option, tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 16)
    whole = make_model(case.make(learning_rate=schedule, **option))
    losses = fit(whole, 4).history["loss"]

    first = make_model(case.make(learning_rate=schedule, **option))
    # Not through `fit`, which ends by writing the averages of `use_ema` into the weights.
    x, y = make_data()
    for start in list(range(0, 64, 16)) * 2:
        first.train_on_batch(x[start : start + 16], y[start : start + 16])
    first.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert fit(resumed, 4, initial_epoch=2).history["loss"] == losses[2:]
    assert_same(resumed.get_weights(), whole.get_weights())
    for one, other in zip(resumed.optimizer.variables, whole.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other), err_msg=one.path)


@every_case
def test_gradient_accumulation_acts_on_the_real_update_only(case):
    gradients = make_gradients(4)
    optimizer, variables = case.make(gradient_accumulation_steps=2), make_variables()
    start = [np.array(v) for v in variables]
    assert_same(apply(optimizer, variables, gradients[:1]), start)
    after_two = apply(optimizer, variables, gradients[1:2])
    assert np.any(after_two[KERNEL] != start[KERNEL])
    assert_same(apply(optimizer, variables, gradients[2:3]), after_two)
    actual = apply(optimizer, variables, gradients[3:])

    means = [
        [(a + b) / 2 for a, b in zip(one, two, strict=True)]
        for one, two in zip(gradients[::2], gradients[1::2], strict=True)
    ]
    assert_close(actual, trained(case.make(), means))


@every_case
@pytest.mark.parametrize(
    "option, clip",
    [
        ({"clipvalue": 0.3}, lambda step: [np.clip(g, -0.3, 0.3) for g in step]),
        ({"clipnorm": 0.5}, lambda step: [g * 0.5 / np.linalg.norm(g) for g in step]),
        (
            {"global_clipnorm": 0.5},
            lambda step: [g * 0.5 / np.sqrt(sum(np.sum(np.square(h)) for h in step)) for g in step],
        ),
    ],
)
def test_clipping_comes_before_the_update(case, option, clip):
    gradients = make_gradients(3)
    clipped = [[g.astype("float32") for g in clip(step)] for step in gradients]
    assert_close(trained(case.make(**option), gradients), trained(case.make(), clipped))


@every_case
def test_weight_decay_comes_before_the_update(case):
    (gradients,) = make_gradients(1)
    actual = trained(case.make(learning_rate=0.1, weight_decay=0.5), [gradients])
    variables = make_variables()
    for variable in variables:
        variable.assign(variable * (1 - 0.1 * 0.5))
    assert_close(actual, apply(case.make(learning_rate=0.1), variables, [gradients]))


@every_case
def test_ema_averages_the_thresholded_weights(case):
    gradients = make_gradients(3)
    variables = make_variables()
    optimizer = case.make(use_ema=True, ema_momentum=0.5)
    average = None
    for step in gradients:
        now = apply(optimizer, variables, [step])
        if average is None:
            average = now
        else:
            average = [0.5 * a + 0.5 * n for a, n in zip(average, now, strict=True)]
    assert_close(now, trained(case.make(), gradients))
    optimizer.finalize_variable_values(variables)
    assert_close([np.array(v) for v in variables], average)


@every_case
def test_averages_overwrite_the_weights_at_the_given_frequency(case):
    gradients = make_gradients(4)
    option = {"use_ema": True, "ema_momentum": 0.5}
    optimizer, variables = case.make(**option, ema_overwrite_frequency=2), make_variables()
    other, expected = case.make(**option), make_variables()
    for number, step in enumerate(gradients):
        apply(optimizer, variables, [step])
        apply(other, expected, [step])
        if number % 2:
            other.finalize_variable_values(expected)
        assert_close([np.array(v) for v in variables], [np.array(v) for v in expected])


@every_case
def test_learning_rate_schedule(case):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.1, 0.05, 0.01])
    gradients = make_gradients(3)
    actual = trained(case.make(learning_rate=schedule), gradients)
    optimizer, variables = case.make(), make_variables()
    for rate, step in zip([0.1, 0.05, 0.01], gradients, strict=True):
        optimizer.learning_rate = rate
        expected = apply(optimizer, variables, [step])
    assert_same(actual, expected)


@every_case
def test_loss_scaling(case):
    gradients = make_gradients(3)
    optimizer = keras.optimizers.LossScaleOptimizer(case.make(), initial_scale=1024.0)
    variables = make_variables()
    scaled = [[g * np.float32(1024) for g in step] for step in gradients]
    actual = apply(optimizer, variables, scaled)
    assert_close(actual, trained(case.make(), gradients))
    overflow = [np.full_like(g, np.inf) for g in gradients[0]]
    assert_same(apply(optimizer, variables, [overflow]), actual)


@every_case
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_variables_in_float32(case, policy):
    if policy == "mixed_float16" and keras.config.backend() == "torch":
        pytest.skip("the products of this model are not implemented in float16 on a CPU")
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model(case.make())
        before = np.array(model.get_layer("fc1").kernel)
        history = fit(model, 3).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("fc1").compute_dtype == policy.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert np.all(np.isfinite(history["loss"]))
    assert np.any(np.array(model.get_layer("fc1").kernel) != before)


@pytest.mark.tensorflow
@every_case
def test_compiled_step_equals_uncompiled(case):
    # Wide enough for fc1 to be updated by the compiled kernel inside the uncompiled step as well.
    models = [make_model(case.make(), jit_compile=jit, units=8192) for jit in (False, True)]
    weights = []
    for model in models:
        x, y = make_data(16)
        for _ in range(3):
            model.train_on_batch(x, y)
        weights.append(model.get_weights())
    plain, compiled = (np.concatenate([w.ravel() for w in one]) for one in weights)
    # A weight at the threshold may fall to either side when the last bit of its gradient differs.
    differs = ~np.isclose(plain, compiled, rtol=1e-4, atol=1e-5)
    assert differs.mean() < 1e-3


@pytest.mark.tensorflow
@every_case
def test_sparse_gradient_equals_dense(case):
    import tensorflow as tf

    rows, columns = 7, 3
    rng = np.random.default_rng(0)
    # A row that is hit twice, rows that are not touched; penalized and not.
    slices = tf.IndexedSlices(
        tf.constant(rng.normal(size=(4, columns)).astype("float32")),
        tf.constant([5, 0, 5, 2]),
        tf.constant([rows, columns]),
    )
    for name in ("kernel", "embeddings"):
        results = []
        for gradient in (slices, tf.convert_to_tensor(slices)):
            values = np.random.default_rng(1).normal(size=(rows, columns)).astype("float32") / 10
            variables = [
                keras.Variable(values, name=name),
                keras.Variable(np.ones((2, 2), "float32"), name="kernel"),
            ]
            optimizer = case.make()
            for _ in range(3):
                optimizer.apply([gradient, tf.ones((2, 2))], variables)
            results.append(np.array(variables[0]))
        np.testing.assert_allclose(results[0], results[1], rtol=1e-6, atol=1e-7)


REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, sys.argv[1])
import test_contract as contract

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
for case in contract.CASES[:1] + contract.NESTEROV_CASES:
    weights = []
    for scope in (strategy.scope(), tf.device("CPU:0")):
        with scope:
            model = contract.make_plain_model(case.make())
            contract.fit(model, 2)
            weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    differs = ~np.isclose(*weights, rtol=1e-4, atol=1e-5)
    assert differs.mean() < 1e-3, (case.name, differs.mean())
    assert np.any(weights[0] == 0), case.name
print("replicas agree")
"""


def make_plain_model(optimizer):
    keras.utils.set_random_seed(7)
    layers = keras.layers
    # 12 x 6000 weights are enough for each replica's compiled update. No normalization: its
    # statistics would be each replica's own.
    model = keras.Sequential([keras.Input((12,)), layers.Dense(6000), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    return model


@pytest.mark.tensorflow
def test_replicas_equal_one_device():
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS, here], capture_output=True, text=True, timeout=300
    )
    assert "replicas agree" in done.stdout, done.stderr[-3000:]
