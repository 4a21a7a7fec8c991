"""The three layers together: they share one base and one contract."""

import doctest
import importlib
import inspect
import math

import keras
import numpy as np
import oracles
import pytest
from contracts import check_layer, to_numpy

from tfconvbias.connectivity import patch_indices
from tfconvbias.graph import facts_of
from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

LAYERS = {1: LocallyConnected1D, 2: LocallyConnected2D, 3: LocallyConnected3D}
CONVS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}

# Spatial shape and options; channels are always 4 and filters 6.
CASES = [
    ((9,), {"kernel_size": 3}),
    ((10,), {"kernel_size": 4, "strides": 3, "padding": "same"}),
    ((9,), {"kernel_size": 3, "strides": 2, "padding": "causal"}),
    ((9,), {"kernel_size": 2, "dilation_rate": 3, "padding": "causal", "groups": 2}),
    ((7, 6), {"kernel_size": (3, 2)}),
    ((7, 8), {"kernel_size": (3, 4), "strides": 2, "padding": "same"}),
    ((7, 6), {"kernel_size": (2, 3), "strides": (1, 3), "padding": "same", "groups": 2}),
    ((8, 7), {"kernel_size": (2, 3), "dilation_rate": (3, 2), "padding": "same"}),
    ((5, 4), {"kernel_size": 1, "groups": 2}),
    ((3, 3), {"kernel_size": 7, "padding": "same"}),
    ((4, 5, 3), {"kernel_size": (2, 3, 1), "strides": (1, 2, 1)}),
    ((4, 3, 5), {"kernel_size": 3, "padding": "same", "groups": 2}),
]
# JAX compiles random draws for each shape, which costs seconds; the weights are overwritten anyway.
NO_DRAWS = {"kernel_initializer": "zeros"}
FORMATS = ["channels_last", "channels_first"]


def _options(spatial, options):
    rank = len(spatial)
    full = {
        name: tuple(np.broadcast_to(options.get(name, 1), rank).tolist())
        for name in ("kernel_size", "strides", "dilation_rate")
    }
    return {**full, "padding": options.get("padding", "valid"), "groups": options.get("groups", 1)}


def _inputs(spatial, batch=2):
    return np.random.default_rng(3).normal(size=(batch, *spatial, 4)).astype("float32")


def _to_format(volume, data_format):
    return np.moveaxis(volume, -1, 1) if data_format == "channels_first" else volume


def _random_weights(layer):
    rng = np.random.default_rng(4)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()])
    return layer.get_weights()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("spatial", "options"), CASES, ids=str)
def test_equals_the_oracle(spatial, options, data_format):
    inputs = _inputs(spatial)
    layer = LAYERS[len(spatial)](6, **options, data_format=data_format, **NO_DRAWS)
    layer.build(_to_format(inputs, data_format).shape)
    kernel, bias = _random_weights(layer)
    rest = _options(spatial, options)
    del rest["kernel_size"]
    expected = oracles.local(inputs.astype("float64"), kernel, bias, **rest)
    outputs = to_numpy(layer(_to_format(inputs, data_format)))
    np.testing.assert_allclose(outputs, _to_format(expected, data_format), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("length", "kernel_size", "filters", "batch"), [(3, 3, 5, 5), (6, 2, 1, 5), (4, 1, 4, 4)]
)
@pytest.mark.parametrize("data_format", FORMATS)
def test_the_bias_is_not_taken_for_one_of_the_batch(
    length, kernel_size, filters, batch, data_format
):
    layer = LocallyConnected1D(filters, kernel_size, data_format=data_format, **NO_DRAWS)
    inputs = _inputs((length,), batch=batch)
    layer.build(_to_format(inputs, data_format).shape)
    kernel, bias = _random_weights(layer)
    expected = oracles.local(inputs, kernel, bias, (1,), "valid", (1,))
    # Called on arrays, so that the backend knows the batch's length.
    found = to_numpy(layer(_to_format(inputs, data_format)))
    np.testing.assert_allclose(found, _to_format(expected, data_format), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("spatial", "options"), CASES, ids=str)
def test_tied_kernel_equals_keras_conv(spatial, options, data_format):
    inputs = _inputs(spatial)
    # Convolutions on CPU need not support channels_first: Keras' runs on channels_last.
    conv = CONVS[len(spatial)](6, **options, activation="tanh", **NO_DRAWS)
    conv.build(inputs.shape)
    kernel, bias = _random_weights(conv)
    layer = LAYERS[len(spatial)](
        6, **options, activation="tanh", data_format=data_format, **NO_DRAWS
    )
    layer.build(_to_format(inputs, data_format).shape)
    layer.set_weights(
        [np.broadcast_to(kernel, layer.kernel.shape), np.broadcast_to(bias, layer.bias.shape)]
    )
    expected = _to_format(to_numpy(conv(inputs)), data_format)
    outputs = to_numpy(layer(_to_format(inputs, data_format)))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rank", "options", "input_shape", "output_shape"),
    [
        (1, {"kernel_size": 3, "padding": "causal"}, (3, 8, 2), (3, 8, 4)),
        (
            2,
            {"kernel_size": (3, 2), "strides": (2, 1), "padding": "same", "activation": "relu"},
            (3, 7, 5, 2),
            (3, 4, 5, 4),
        ),
        (
            2,
            {"kernel_size": 3, "data_format": "channels_first", "groups": 2},
            (3, 2, 5, 4),
            (3, 4, 3, 2),
        ),
        (3, {"kernel_size": 2, "use_bias": False}, (2, 4, 3, 3, 2), (2, 3, 2, 2, 4)),
    ],
)
def test_contract(rank, options, input_shape, output_shape, tmp_path):
    positions = math.prod(output_shape[1:]) // 4
    taps = math.prod(_options((0,) * rank, options)["kernel_size"])
    use_bias = options.get("use_bias", True)
    check_layer(
        LAYERS[rank],
        {"filters": 4, **options},
        input_shape,
        output_shape,
        num_weights=positions * 4 * (taps * 2 // options.get("groups", 1) + use_bias),
        num_trainable=1 + use_bias,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signature_is_that_of_conv(rank):
    ours = inspect.signature(LAYERS[rank].__init__).parameters
    theirs = inspect.signature(CONVS[rank].__init__).parameters
    ours = dict(ours)
    if rank < 3:
        assert ours.pop("implementation").default == 1  # of Keras 2, which had no third rank
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]
    assert [p.kind for p in ours.values()] == [p.kind for p in theirs.values()]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_docstring_names_all_arguments(rank):
    for name in inspect.signature(LAYERS[rank].__init__).parameters:
        assert name == "self" or f"        {name}: " in LAYERS[rank].__doc__.replace("**", "")


def test_config_keeps_every_argument():
    layer = LocallyConnected2D(
        6,
        (3, 2),
        strides=(2, 1),
        padding="SAME",
        data_format="channels_first",
        dilation_rate=1,
        groups=2,
        activation="relu",
        use_bias=True,
        kernel_initializer=keras.initializers.HeNormal(seed=3),
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L1(0.1),
        bias_regularizer="l2",
        activity_regularizer=keras.regularizers.L2(0.2),
        kernel_constraint=keras.constraints.MaxNorm(2.0, axis=[-4, -3, -2]),
        bias_constraint="non_neg",
        name="local",
    )
    config = layer.get_config()
    again = LocallyConnected2D.from_config(config)
    assert again.get_config() == config
    assert (again.padding, again.strides, again.dilation_rate) == ("same", (2, 1), (1, 1))
    assert again.kernel_initializer.seed == 3
    assert again.kernel_constraint.max_value == 2.0
    assert again.activity_regularizer.l2 == pytest.approx(0.2)


def test_compute_output_shape_passes_unknown_axes():
    layer = LocallyConnected2D(6, 3, strides=(1, 2), padding="same", data_format="channels_first")
    assert layer.compute_output_shape((None, 4, None, 7)) == (None, 6, None, 4)
    expected = CONVS[2](6, 3, strides=(1, 2), padding="same").compute_output_shape((2, None, 7, 4))
    layer = LocallyConnected2D(6, 3, strides=(1, 2), padding="same")
    assert layer.compute_output_shape((2, None, 7, 4)) == expected


def test_default_data_format_is_the_one_of_keras():
    keras.config.set_image_data_format("channels_first")
    try:
        assert LocallyConnected2D(1, 1).data_format == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert LocallyConnected2D(1, 1).data_format == "channels_last"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": (3, 0)}, r"`kernel_size`.*Received: kernel_size=\(3, 0\)"),
        ({"kernel_size": (3, 3, 3)}, r"Received: kernel_size=\(3, 3, 3\)"),
        ({"strides": (0, 1)}, r"Received: strides=\(0, 1\)"),
        ({"dilation_rate": -1}, r"Received: dilation_rate=-1"),
        ({"filters": 0}, r"Received: filters=0"),
        ({"filters": 2.5}, r"Received: filters=2.5"),
        ({"groups": 0}, r"Received: groups=0"),
        ({"groups": 4}, r"Received: groups=4, filters=6"),
        ({"padding": "full"}, r"`padding`.*Received: padding=full"),
        ({"padding": "causal"}, r"`padding`.*Received: padding=causal"),
        ({"data_format": "NHWC"}, r"`data_format`.*Received: data_format=NHWC"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected2D(**{"filters": 6, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        (
            {},
            (None, None, 8, 2),
            r"each output position.*Received: input_shape=\(None, None, 8, 2\)",
        ),
        ({}, (None, 8, 8, None), r"fully defined.*input_shape=\(None, 8, 8, None\)"),
        ({"groups": 2}, (None, 8, 8, 3), r"groups=2, input_shape=\(None, 8, 8, 3\)"),
        ({}, (None, 2, 8, 3), r"output would be empty.*spatial_shape=\(2, 8\)"),
        ({}, (None, 8, 3), r"must have 4 axes. Received: input_shape=\(None, 8, 3\)"),
    ],
)
def test_bad_inputs_are_named(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected2D(6, 3, **arguments).build(shape)


def _gradients(layer, inputs, cotangent):
    """Gradients of `Σ cotangent · layer(inputs)` for inputs and weights, on any backend."""
    backend = keras.config.backend()
    variables = [v.value for v in layer.trainable_variables]
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(inputs)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) * cotangent)
        return [g.numpy() for g in tape.gradient(loss, [x, *variables])]
    if backend == "jax":
        import jax

        def loss(x, weights):
            return (layer.stateless_call(weights, [], x)[0] * cotangent).sum()

        x_gradient, gradients = jax.grad(loss, argnums=(0, 1))(inputs, variables)
        return [np.asarray(g) for g in (x_gradient, *gradients)]
    import torch

    x = torch.tensor(inputs, requires_grad=True)
    loss = (layer(x) * torch.tensor(cotangent)).sum()
    return [g.numpy() for g in torch.autograd.grad(loss, [x, *variables])]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_equal_finite_differences(data_format, groups):
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(2, 4, 3, 2)).astype("float32")
    layer = LocallyConnected2D(
        2, (3, 2), strides=(2, 1), padding="same", groups=groups, data_format=data_format
    )
    layer.build(_to_format(inputs, data_format).shape)
    kernel, bias = (w.astype("float64") for w in _random_weights(layer))
    cotangent = rng.normal(size=(2, 2, 3, 2)).astype("float32")
    x = inputs.astype("float64")

    def loss(_):
        outputs = oracles.local(x, kernel, bias, (2, 1), "same", (1, 1), groups)
        return float((outputs * cotangent).sum())

    expected = [oracles.finite_differences(loss, array) for array in (x, kernel, bias)]
    expected[0] = _to_format(expected[0], data_format)
    found = _gradients(layer, _to_format(inputs, data_format), _to_format(cotangent, data_format))
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4)


def test_entries_that_see_only_padding_stay_at_their_values():
    inputs = _inputs((5, 6), batch=8)
    layer = LocallyConnected2D(3, 3, padding="same")
    model = keras.Sequential([keras.Input(inputs.shape[1:]), layer])
    before = layer.get_weights()[0]
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(inputs, np.ones((8, 5, 6, 3), "float32"), epochs=3, verbose=0)
    moved = (layer.get_weights()[0] != before).reshape(30, 9, -1)
    padded = patch_indices((5, 6), 3, padding="same") < 0
    assert padded.sum() == 9 * 30 - 16 * 13
    assert not moved[padded].any()
    assert moved[~padded].all()


VARIANCE_SCALING = [
    "glorot_uniform",
    "he_uniform",
    "lecun_normal",
    keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=1),
    keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=1),
]


@pytest.mark.parametrize(
    ("rank", "size", "initializer"),
    [(1, 100, "glorot_uniform"), (3, 5, "he_normal"), *((2, 10, i) for i in VARIANCE_SCALING)],
    ids=lambda value: str(value) if isinstance(value, str | int) else type(value).__name__,
)
def test_fans_are_those_of_the_receptive_field(rank, size, initializer):
    options = {"kernel_size": 3, "padding": "same", "kernel_initializer": initializer}
    layer = LAYERS[rank](12, **options)
    layer.build((None, *[size] * rank, 4))
    # The expected variance does not hang on the layer or Keras' own reading of shapes.
    initializer = keras.initializers.get(initializer)
    fan_in, fan_out = 3**rank * 4, 3**rank * 12
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    expected = initializer.scale / fan[initializer.mode]
    kernel = layer.get_weights()[0]
    # Four standard errors of the variance of normal values, the widest of the three.
    tolerance = 4 * math.sqrt(2 / kernel.size)
    assert np.var(kernel) == pytest.approx(expected, rel=tolerance)
    assert np.mean(kernel) == pytest.approx(0, abs=4 * math.sqrt(expected / kernel.size))
    first = kernel[(0,) * rank]
    assert not np.any(first == kernel[(1,) * rank])


def test_variance_of_the_outputs_equals_the_one_of_conv():
    inputs = np.random.default_rng(6).normal(size=(8, 10, 10, 8)).astype("float32")
    options = {"kernel_initializer": "he_normal", "use_bias": False}
    local = to_numpy(LocallyConnected2D(16, 3, **options)(inputs))
    conv = to_numpy(keras.layers.Conv2D(16, 3, **options)(inputs))
    assert np.var(local) == pytest.approx(2.0, rel=0.1)
    assert np.var(local) == pytest.approx(np.var(conv), rel=0.2)


def test_explicit_axes_are_taken_at_their_word():
    options = {"input_axes": [-3, -2], "output_axes": [-1]}
    try:
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform", 1, **options)
    except TypeError:
        pytest.skip("this Keras has no input_axes")
    layer = LocallyConnected2D(8, (1, 4), kernel_initializer=initializer)
    layer.build((None, 20, 20, 4))
    assert np.var(layer.get_weights()[0]) == pytest.approx(1 / 16, rel=0.05)


@pytest.mark.parametrize("filters", [5, 40])
def test_orthogonal_is_drawn_for_each_position(filters):
    initializer = keras.initializers.Orthogonal(gain=2.0, seed=1)
    layer = LocallyConnected2D(filters, 3, kernel_initializer=initializer)
    layer.build((None, 5, 4, 2))
    kernels = layer.get_weights()[0].reshape(6, 18, filters)
    for kernel in kernels:
        gram = kernel.T @ kernel if filters < 18 else kernel @ kernel.T
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-4)
    assert len({kernel.tobytes() for kernel in kernels}) == 6


def _ramp(shape, dtype=None):
    return keras.ops.reshape(keras.ops.arange(math.prod(shape), dtype=dtype), shape)


@pytest.mark.parametrize(
    ("initializer", "check"),
    [
        (_ramp, lambda k: np.array_equal(k.ravel(), np.arange(k.size))),
        ("ones", lambda k: np.all(k == 1)),
        (keras.initializers.Constant(0.3), lambda k: np.allclose(k, 0.3)),
        (
            {"class_name": "RandomNormal", "config": {"stddev": 0.5, "seed": 2}},
            lambda k: abs(k.std() - 0.5) < 0.02,
        ),
        (
            keras.initializers.RandomUniform(-2, 2, seed=keras.random.SeedGenerator(1)),
            lambda k: 1.9 < k.max() < 2,
        ),
    ],
    ids=["callable", "name", "object", "config", "seed_generator"],
)
def test_other_initializers_get_the_whole_shape(initializer, check):
    layer = LocallyConnected1D(8, 3, kernel_initializer=initializer, bias_initializer=initializer)
    layer.build((None, 40, 4))
    assert check(layer.get_weights()[0])


def test_regularizers_and_constraints_act():
    inputs = _inputs((5, 4))
    layer = LocallyConnected2D(
        3,
        2,
        kernel_initializer="ones",
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L1(0.5),
        bias_regularizer=keras.regularizers.L2(0.25),
        activity_regularizer=keras.regularizers.L1(1.0),
        kernel_constraint=keras.constraints.UnitNorm(axis=[-4, -3, -2]),
        bias_constraint="non_neg",
    )
    outputs = to_numpy(layer(inputs))
    kernel_loss, bias_loss = 0.5 * 12 * 16 * 3, 0.25 * 12 * 3
    activity_loss = np.abs(outputs).sum() / len(inputs)
    assert float(to_numpy(sum(layer.losses))) == pytest.approx(
        kernel_loss + bias_loss + activity_loss, rel=1e-4
    )
    model = keras.Sequential([keras.Input(inputs.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(inputs, -10 * np.ones(outputs.shape, "float32"), epochs=2, verbose=0)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose((kernel**2).sum(axis=(-4, -3, -2)), 1, rtol=1e-4)
    assert bias.min() == 0


@pytest.mark.parametrize("rank", [1, 2])
def test_implementations_of_keras_2_are_one(rank):
    inputs = _inputs((5, 4)[:rank])
    options = {"kernel_initializer": "ones", "padding": "same"}
    outputs = [
        to_numpy(LAYERS[rank](2, 3, implementation=number, **options)(inputs))
        for number in (1, 2, 3)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    with pytest.raises(ValueError, match=r"must be 1, 2 or 3.*Received: implementation=4"):
        LAYERS[rank](2, 3, implementation=4)


def test_a_configuration_of_keras_2_is_read():
    config = {
        "name": "old",
        "trainable": True,
        "dtype": "float32",
        "filters": 3,
        "kernel_size": [3, 2],
        "strides": [1, 2],
        "padding": "valid",
        "data_format": "channels_last",
        "activation": "relu",
        "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {}},
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.5}},
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
        "implementation": 3,
    }
    layer = LocallyConnected2D.from_config(config)
    assert (layer.kernel_size, layer.strides, layer.kernel_regularizer.l2) == ((3, 2), (1, 2), 0.5)
    assert "implementation" not in layer.get_config()


@pytest.mark.parametrize(
    "module",
    ["locally_connected_1d", "locally_connected_2d", "locally_connected_3d", "local_initializer"],
)
def test_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"tfconvbias.layers.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_table_of_layers_knows_the_rank_and_that_filters_can_go(rank):
    facts = facts_of(LAYERS[rank](2, 1))
    assert (facts.kind, facts.rank, facts.is_resizable) == ("local", rank, True)
