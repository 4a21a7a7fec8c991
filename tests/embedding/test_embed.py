import contextlib
import importlib
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import (
    EmbeddedDense,
    embed,
    embedded_size,
    orbit_sums,
    project,
)
from tfconvbias.graph import conv_geometry
from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

LOCAL = (LocallyConnected1D, LocallyConnected2D, LocallyConnected3D)


def _randomize(model, seed=0):
    """Random values in every variable: zero biases and unit BatchNorm would hide mistakes."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            value = 0.3 * rng.normal(size=variable.shape)
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


def _sequential(input_shape, *layers):
    return _randomize(keras.Sequential([keras.Input(input_shape), *layers]))


@contextlib.contextmanager
def _precision(dtype):
    """Everything in `dtype`; JAX has to be told that float64 exists."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    with contextlib.ExitStack() as stack:
        if keras.config.backend() == "jax" and dtype == "float64":
            import jax

            stack.enter_context(jax.enable_x64())
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        try:
            yield
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def _no_more_than(num_bytes):
    """Fail where Python and NumPy allocate more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < num_bytes
    finally:
        tracemalloc.stop()


def _outputs(model, seed=1):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(3, *t.shape[1:])).astype(t.dtype) for t in model.inputs]
    y = model(x if len(x) > 1 else x[0], training=False)
    return [keras.ops.convert_to_numpy(part) for part in keras.tree.flatten(y)]


def _bound(dtype):
    # Keras multiplies float64 matrices in float32 on PyTorch, in plain Dense layers too.
    is_exact = dtype == "float64" and keras.config.backend() != "torch"
    return 1e-12 if is_exact else 1e-5


def _assert_equal(first, second, dtype="float32"):
    bound = _bound(dtype)
    for a, b in zip(_outputs(first), _outputs(second), strict=True):
        assert a.shape == b.shape
        assert np.max(np.abs(a - b) / np.maximum(1, np.abs(a))) <= bound


CASES = {
    "conv1d causal": ((9, 2), L.Conv1D(3, 3, strides=2, padding="causal")),
    "conv1d dilated": ((9, 2), L.Conv1D(3, 3, dilation_rate=2, padding="causal", use_bias=False)),
    "conv2d": ((5, 6, 3), L.Conv2D(4, 3)),
    "conv2d same strides": ((7, 6, 3), L.Conv2D(4, (2, 3), strides=(2, 1), padding="same")),
    "conv2d even": ((6, 6, 2), L.Conv2D(4, 4, strides=2, padding="same")),
    "conv2d dilated": ((7, 8, 2), L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same")),
    "conv2d groups": ((5, 5, 4), L.Conv2D(6, 3, groups=2, padding="same")),
    "conv2d softmax": ((4, 4, 2), L.Conv2D(3, 3, activation="softmax")),
    "conv3d": ((3, 4, 3, 2), L.Conv3D(3, (2, 3, 2), strides=(1, 2, 1), padding="same")),
    "depthwise": ((5, 5, 3), L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")),
    "depthwise1d": ((6, 3), L.DepthwiseConv1D(3, depth_multiplier=2, activation="relu")),
    "separable": ((5, 5, 3), L.SeparableConv2D(4, 3, depth_multiplier=2, activation="relu")),
    "separable1d": ((7, 3), L.SeparableConv1D(4, 3, padding="same")),
}
DENSE_CASES = {
    "transposed1d": ((4, 3), L.Conv1DTranspose(2, 3, strides=2, padding="same")),
    "transposed": ((4, 3, 2), L.Conv2DTranspose(3, 3, strides=2, padding="same")),
    "transposed valid": ((4, 3, 2), L.Conv2DTranspose(3, (2, 3), strides=(3, 1))),
    "local": ((5, 4, 2), LocallyConnected2D(3, 3, padding="same", strides=(1, 2))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*CASES, *DENSE_CASES])
def test_one_layer(name, dtype):
    input_shape, layer = {**CASES, **DENSE_CASES}[name]
    with _precision(dtype):
        config = {**layer.get_config(), "dtype": dtype}
        model = _sequential(input_shape, type(layer).from_config(config))
        # Every variant to the last digits; in float32 one is enough.
        for padding in ("folded", "explicit") if dtype == "float64" else ("folded",):
            dense = embed(model, padding=padding)
            _assert_equal(model, dense, dtype)
            assert any(isinstance(layer, EmbeddedDense) for layer in dense.layers)
            assert not any("Conv" in type(layer).__name__ for layer in dense.layers)
            size = embedded_size(model, padding=padding)
            assert size.num_parameters == dense.count_params()
            assert size.num_bytes == size.num_parameters * (8 if dtype == "float64" else 4)
        if name in CASES and dtype == "float64":
            local = embed(model, "local")
            _assert_equal(model, local, dtype)
            assert any(isinstance(layer, LOCAL) for layer in local.layers)
            assert embedded_size(model, "local").num_parameters == local.count_params()


def test_channels_first_equals_channels_last():
    # Not every backend runs channels-first convolutions on a CPU: the embedded model does.
    options = {"padding": "same", "strides": 2}
    last = _sequential((5, 4, 2), L.Conv2D(3, 3, data_format="channels_last", **options))
    first = keras.Sequential(
        [keras.Input((2, 5, 4)), L.Conv2D(3, 3, data_format="channels_first", **options)]
    )
    first.set_weights(last.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 2)).astype("float32")
    expected = keras.ops.convert_to_numpy(last(x))
    for target in ("dense", "local"):
        got = embed(first, target)(np.moveaxis(x, -1, 1))
        got = np.moveaxis(keras.ops.convert_to_numpy(got), 1, -1)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def _branches():
    inputs = keras.Input((6, 6, 3), name="images")
    shared = L.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    x = L.Rescaling(2.0, offset=-1.0)(inputs)
    first = shared(x)
    second = shared(first)
    padded = L.ZeroPadding2D(((1, 0), (2, 1)))(second)
    third = L.Conv2D(3, 3, padding="same", name="third")(padded)
    fourth = L.MaxPooling2D(2)(padded)
    third = L.BatchNormalization()(third)
    summed = L.Add()([first, second]) + 1.0
    joined = L.Concatenate()([summed, shared(L.Dropout(0.5)(summed))])
    small = shared(L.MaxPooling2D(2)(second))
    out = L.Dense(2, name="head")(L.Flatten()(joined))
    return _randomize(keras.Model(inputs, {"out": out, "rest": [third, fourth, small]}))


@pytest.mark.parametrize("padding", ["folded", "explicit"])
@pytest.mark.parametrize("target", ["dense", "local"])
def test_graph(target, padding):
    model = _branches()
    embedded = embed(model, target, padding)
    _assert_equal(model, embedded)
    assert embedded.count_params() == embedded_size(model, target, padding).num_parameters
    # Called on two shapes: one layer for each, shared among the calls on the first.
    assert {"shared", "shared_2", "third"} <= {layer.name for layer in embedded.layers}
    assert sum(layer.name.startswith("shared") for layer in embedded.layers) == (
        2 * (4 + (padding == "explicit")) if target == "dense" else 4
    )


def test_zero_padding_is_folded():
    model = _sequential(
        (5, 5, 2), L.ZeroPadding2D(1), L.ZeroPadding2D(((1, 0), (0, 0))), L.Conv2D(3, 3, name="c")
    )
    folded, explicit = embed(model), embed(model, padding="explicit")
    assert folded.get_layer("c").kernel.shape == (5 * 5 * 2, 6 * 5 * 3)
    assert explicit.get_layer("c").kernel.shape == (8 * 7 * 2, 6 * 5 * 3)
    assert explicit.get_layer("c").geometry.margin == ((2, 1), (1, 1))
    assert not any(isinstance(layer, L.ZeroPadding2D) for layer in folded.layers)
    _assert_equal(model, folded)
    _assert_equal(model, explicit)


def test_nested_and_shared_models():
    block = keras.Sequential(
        [keras.Input((4, 4, 2)), L.Conv2D(2, 3, padding="same", name="inner"), L.ReLU()]
    )
    inputs = keras.Input((4, 4, 2))
    model = _randomize(keras.Model(inputs, block(block(inputs))))
    embedded = embed(model)
    _assert_equal(model, embedded)
    assert embedded.count_params() == 32 * 32 + 32


def test_names_that_the_model_has_already():
    """What is added takes other names; the layers of the model keep theirs."""
    taken = ("c_flatten", "c_reshape", "c_2", "c_padding", "c_activation")
    shared = L.Conv2D(2, 3, padding="same", activation="relu", name="c")
    inputs = keras.Input((6, 6, 2))
    x = shared(inputs)
    small = shared(L.MaxPooling2D(2, name=taken[0])(x))
    for name in taken[1:]:
        x = L.Conv2D(2, 1, name=name)(x)
    model = _randomize(keras.Model(inputs, [x, small]))
    for target, padding in (("dense", "folded"), ("dense", "explicit"), ("local", "folded")):
        embedded = embed(model, target, padding)
        _assert_equal(model, embedded)
        kind = EmbeddedDense if target == "dense" else LocallyConnected2D
        assert all(isinstance(embedded.get_layer(name), kind) for name in taken[1:])
        assert isinstance(embedded.get_layer(taken[0]), L.MaxPooling2D)
        _assert_equal(model, project(embedded))


def test_a_block_that_is_called_twice_with_normalizations_folded():
    def block(name):
        inputs = keras.Input((4, 4, 2))
        x = L.Conv2D(2, 3, padding="same", name="inner")(inputs)
        x = L.BatchNormalization(name="bn")(x)
        return keras.Model(inputs, L.ReLU(name="relu")(x), name=name)

    twice, once = block("twice"), block("once")
    inputs = keras.Input((4, 4, 2))
    x = once(twice(twice(inputs)))
    x = L.BatchNormalization(name="last")(L.Conv2D(3, 1, name="head")(x))
    model = _randomize(keras.Model(inputs, x))
    embedded = embed(model, fold_normalization=True)
    _assert_equal(model, embedded)
    # One layer cannot take up its normalization for one of its calls only.
    assert sum(isinstance(layer, L.BatchNormalization) for layer in embedded.layers) == 1


@pytest.mark.parametrize("target", ["dense", "local"])
def test_an_activation_that_is_a_layer_is_copied(target):
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), L.Conv2D(3, 3, padding="same", activation=L.PReLU(), name="c")]
    )
    # Keras makes the 48 slopes at the first call with numbers: they count before, too.
    expected = 4 * 4 * 3 + (32 * 48 + 48 if target == "dense" else 16 * (18 * 3 + 3))
    assert embedded_size(model, target).num_parameters == expected
    _outputs(model)
    _randomize(model)
    embedded = embed(model, target)
    _assert_equal(model, embedded)
    assert embedded.count_params() == expected
    assert embedded_size(model, target).num_parameters == expected
    before = [w.copy() for w in model.get_weights()]
    assert len(before) == 3 and np.abs(before[2]).min() > 0
    for variable in embedded.variables:
        variable.assign(np.zeros(variable.shape))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("size", "strides", "padding"), [((2, 3), 2, "valid"), (3, 1, "same"), ((2, 3), 2, "same")]
)
def test_average_pooling_where_it_is_named(size, strides, padding):
    model = _sequential(
        (5, 4, 3),
        L.ZeroPadding2D(1),
        L.AveragePooling2D(size, strides=strides, padding=padding, name="pool"),
        L.Conv2D(2, 2, name="conv"),
    )
    assert isinstance(embed(model).get_layer("pool"), L.AveragePooling2D)
    if keras.config.backend() == "torch" and padding == "same" and strides == 2:
        with pytest.raises(ValueError, match="repeats the border"):
            embed(model, layers=["pool"])
        return
    for target in ("dense", "local"):
        embedded = embed(model, target, layers=["pool"])
        _assert_equal(model, embedded)
        assert not isinstance(embedded.get_layer("pool"), L.AveragePooling2D)
        assert isinstance(embedded.get_layer("conv"), L.Conv2D)


def test_chosen_layers_and_unknown_ones():
    class Mystery(L.Layer):
        def call(self, inputs):
            return inputs + 1.0

    model = _sequential(
        (4, 4, 2), L.Conv2D(2, 3, name="first"), Mystery(name="odd"), L.Conv2D(2, 1, name="second")
    )
    with pytest.raises(NotImplementedError, match="layer 'odd' of class Mystery"):
        embed(model)
    embedded = embed(model, layers=["second"])
    _assert_equal(model, embedded)
    assert isinstance(embedded.get_layer("first"), L.Conv2D)
    assert isinstance(embedded.get_layer("second"), EmbeddedDense)
    with pytest.raises(ValueError, match=r"unknown: \['third'\]"):
        embed(model, layers=["first", "third"])
    with pytest.raises(ValueError, match="`layers` must be a sequence"):
        embed(model, layers="first")


def test_a_convolution_that_is_no_layer_is_refused():
    inputs = keras.Input((5, 5, 1))
    outputs = keras.ops.conv(L.Conv2D(1, 2, name="c")(inputs), np.ones((2, 2, 1, 1), "float32"))
    model = keras.Model(inputs, outputs)
    with pytest.raises(NotImplementedError, match=r"operation 'conv.*class Conv "):
        embed(model)
    _assert_equal(model, embed(model, layers=["c"]))


def test_adapted_normalization_comes_along():
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(20, 4, 4, 2)).astype("float32")
    normalization = L.Normalization()
    normalization.adapt(x)
    inner = keras.Sequential([keras.Input((4, 4, 2)), normalization])
    model = keras.Sequential([keras.Input((4, 4, 2)), inner, L.Conv2D(2, 3)])
    embedded = embed(model)
    _assert_equal(model, embedded)
    back = keras.ops.convert_to_numpy(embedded.layers[1](x))
    assert np.abs(back.mean(axis=(0, 1, 2))).max() < 1e-4


def test_errors():
    model = _sequential((4, 4, 2), L.Conv2D(2, 3))
    with pytest.raises(ValueError, match="target"):
        embed(model, "sparse")
    with pytest.raises(ValueError, match="padding"):
        embed(model, padding="none")
    with pytest.raises(ValueError, match="transposed"):
        embed(_sequential((4, 2), L.Conv1DTranspose(2, 3, strides=2, name="up")), "local")
    with pytest.raises(ValueError, match="kernel_constraint"):
        embed(_sequential((4, 4, 2), L.Conv2D(2, 3, kernel_constraint="non_neg")))
    with pytest.raises(ValueError, match="fully defined"):
        embed(_sequential((None, 4, 2), L.Conv2D(2, 3)))
    with pytest.raises(ValueError, match="functional model"):
        embed(keras.Sequential([L.Conv2D(2, 3)]))


def test_a_model_too_large_is_refused():
    model = _sequential((32, 32, 3), L.ZeroPadding2D(2), L.Conv2D(64, 4, strides=2, name="big"))
    with pytest.raises(MemoryError, match=r"216\.8 MiB.*'big' with 56,838,208.*target='local'"):
        embed(model, max_bytes=10**8)
    huge = _sequential((512, 512, 3), L.Conv2D(64, 3, padding="same"))
    with pytest.raises(MemoryError, match="TiB"):
        embed(huge)
    # Neither the matrix nor the map of its entries, 8 bytes for each of these taps.
    with _no_more_than(10**6):
        geometry = conv_geometry((2048, 2048, 3), (5, 5, 3, 8), padding="same")
        assert geometry.matrix_shape == (2048 * 2048 * 3, 2048 * 2048 * 8)


@pytest.mark.tensorflow
def test_what_the_making_takes_counts_too(monkeypatch):
    # A matrix of 18² entries in 9 of 9 blocks: 49 of 81 taps lie inside.
    model = _sequential((3, 3, 2), L.Conv2D(2, 3, padding="same", use_bias=False))
    size = embedded_size(model)
    assert size.num_bytes == 4 * 18 * 18
    # Two values of 4 bytes for each local entry, two indices of 4 for each two filters.
    assert size.peak_bytes == size.num_bytes + 49 * 4 * (8 + 8 // 2)
    grouped = _sequential((3, 3, 2), L.DepthwiseConv2D(3, padding="same", use_bias=False))
    assert embedded_size(grouped).peak_bytes == 4 * 18 * 18 + 49 * 2 * (8 + 8)
    local = embedded_size(model, "local")
    assert local.peak_bytes == local.num_bytes == 4 * 9 * 9 * 4
    module = importlib.import_module("tfconvbias.embedding.embed")
    monkeypatch.setattr(module, "available_bytes", lambda: size.peak_bytes)
    with pytest.raises(MemoryError, match=r"at most 3\.562 KiB may be taken"):
        embed(model)
    monkeypatch.setattr(module, "available_bytes", lambda: 2 * size.peak_bytes)
    embed(model)


@pytest.mark.parametrize("target", ["dense", "local"])
def test_trains_saves_and_reloads(target, tmp_path):
    model = _sequential(
        (6, 6, 2), L.Conv2D(3, 3, padding="same"), L.BatchNormalization(), L.Flatten(), L.Dense(2)
    )
    model.compile("sgd", "mse")
    embedded = embed(model, target)
    assert not embedded.compiled
    embedded.compile(keras.optimizers.SGD(1e-3), "mse")
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    losses = embedded.fit(x, np.zeros((8, 2)), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    embedded.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    _assert_equal(embedded, again)
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in embedded.layers]
    if target == "dense":
        name = next(layer.name for layer in again.layers if isinstance(layer, EmbeddedDense))
        assert again.get_layer(name).geometry == embedded.get_layer(name).geometry


def test_settings_come_along():
    layer = L.Conv2D(
        2,
        3,
        kernel_regularizer="l2",
        bias_regularizer="l1",
        activity_regularizer="l2",
        kernel_initializer="he_normal",
        trainable=False,
        name="conv",
    )
    model = _sequential((4, 4, 1), layer, L.Dense(1))
    dense = embed(model).get_layer("conv")
    assert not dense.trainable
    assert isinstance(dense.kernel_regularizer, keras.regularizers.L2)
    assert isinstance(dense.bias_regularizer, keras.regularizers.L1)
    assert isinstance(dense.kernel_initializer, keras.initializers.HeNormal)
    assert embed(model).get_layer("conv_reshape").activity_regularizer is not None


def test_the_original_model_is_left_alone():
    model = _sequential((4, 4, 1), L.Conv2D(2, 3), L.Dense(1))
    before = [w.copy() for w in model.get_weights()]
    config = model.get_config()
    embedded = embed(model)
    for variable in embedded.variables:
        variable.assign(np.zeros(variable.shape))
    assert model.get_config() == config
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fold_normalization():
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(3, 3, use_bias=False, name="a")(inputs)
    x = L.BatchNormalization(name="bn_a")(x)
    kept = L.Conv2D(3, 1, name="b")(x)
    y = L.BatchNormalization(name="bn_b")(kept)
    y = L.DepthwiseConv2D(2, name="c")(L.ReLU()(y + kept))
    y = L.BatchNormalization(scale=False, name="bn_c")(y)
    y = L.Conv2DTranspose(2, 2, name="d")(y)
    y = L.BatchNormalization(center=False, name="bn_d")(y)
    y = LocallyConnected2D(2, 2, use_bias=False, name="e")(y)
    y = L.BatchNormalization(name="bn_e")(y)
    y = L.Conv2D(2, 1, activation="relu", name="f")(y)
    y = L.BatchNormalization(name="bn_f")(y)
    model = _randomize(keras.Model(inputs, y))
    embedded = embed(model, fold_normalization=True)
    _assert_equal(model, embedded)
    left = [layer.name for layer in embedded.layers if isinstance(layer, L.BatchNormalization)]
    assert left == ["bn_b", "bn_f"]


def _gradient_step(model, x, y, rate):
    """Weights before minus after one plain SGD step, over the rate."""
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)

    def name(weight):
        return "/".join(weight.path.split("/")[-2:])

    before = {name(w): keras.ops.convert_to_numpy(w) for w in model.trainable_weights}
    model.train_on_batch(x, y)
    return {
        name(w): (before[name(w)] - keras.ops.convert_to_numpy(w)) / rate
        for w in model.trainable_weights
    }


def test_gradient_summed_over_orbits_is_the_convolutions():
    with _precision("float64"):
        model = _sequential(
            (6, 5, 2),
            L.Conv2D(3, 3, strides=(2, 1), padding="same", name="conv"),
            L.Activation("tanh"),
            L.Flatten(),
            L.Dense(2, name="head"),
        )
        embedded = embed(model)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(4, 6, 5, 2)), rng.normal(size=(4, 2))
        expected = _gradient_step(model, x, y, 0.5)
        got = _gradient_step(embedded, x, y, 0.5)
    geometry = embedded.get_layer("conv").geometry
    sums = orbit_sums(got["conv/kernel"], geometry)
    np.testing.assert_allclose(sums, expected["conv/kernel"], atol=_bound("float64"))
    biases = got["conv/bias"].reshape(-1, 3).sum(axis=0)
    np.testing.assert_allclose(biases, expected["conv/bias"], atol=_bound("float64"))
    np.testing.assert_allclose(got["head/kernel"], expected["head/kernel"], atol=_bound("float64"))
