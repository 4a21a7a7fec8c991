"""Convolutions with larger kernels: the function, and what their weights are taken for."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import (
    EmbeddedConv,
    deviation,
    embed,
    embedded_size,
    evaluate_parts,
    interpolate,
    masked,
    project,
)

# Inputs, layer, taps asked for and taps to be had; `None`: whatever meets an input.
CASES = {
    "1d causal": ((9, 2), L.Conv1D(3, 3, strides=2, padding="causal"), None, (17,)),
    "1d dilated": ((9, 2), L.Conv1D(3, 3, dilation_rate=2, use_bias=False), 5, (5,)),
    "1d even": ((8, 2), L.Conv1D(2, 4, padding="same"), None, (15,)),
    "2d": ((5, 6, 3), L.Conv2D(4, 3, activation="relu"), None, (7, 9)),
    "2d same": ((7, 6, 3), L.Conv2D(4, (2, 3), strides=(2, 1), padding="same"), (6, 5), (6, 5)),
    "2d more than there are": ((4, 5, 2), L.Conv2D(4, 3, padding="same"), 99, (7, 9)),
    "2d fewer than it has": ((4, 4, 2), L.Conv2D(4, 3), 1, (3, 3)),
    "2d dilated": ((7, 8, 2), L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same"), 6, (6, 6)),
    "2d groups": ((5, 5, 4), L.Conv2D(6, 3, groups=2, padding="same"), 5, (5, 5)),
    "3d": ((3, 4, 3, 2), L.Conv3D(3, (2, 3, 2), padding="same"), None, (5, 7, 5)),
    "depthwise": ((5, 5, 3), L.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), 7, (7, 7)),
    "separable": ((5, 5, 3), L.SeparableConv2D(4, 3, depth_multiplier=2), 5, (5, 5)),
}


@contextlib.contextmanager
def _float64():
    """Everything in float64; JAX has to be told that it exists."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    with contextlib.ExitStack() as stack:
        if keras.config.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64())
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        try:
            yield
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)


def _randomize(model):
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return model


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def _wide_layers(model):
    return [layer for layer in model.layers if isinstance(layer, EmbeddedConv)]


@pytest.mark.parametrize("name", CASES)
def test_one_layer(name):
    input_shape, layer, kernel_size, expected = CASES[name]
    with _float64():
        config = {**layer.get_config(), "dtype": "float64"}
        model = _randomize(
            keras.Sequential([keras.Input(input_shape), type(layer).from_config(config)])
        )
        wide = embed(model, "wide", kernel_size=kernel_size)
        x = np.random.default_rng(1).normal(size=(3, *input_shape))
        target = _numpy(model(x))
        np.testing.assert_allclose(_numpy(wide(x)), target, atol=1e-12)
        assert not any("Conv1D" in type(one).__name__ for one in wide.layers)
        assert _wide_layers(wide)[0].kernel_size == expected
        size = embedded_size(model, "wide", kernel_size=kernel_size)
        assert size.num_parameters == wide.count_params()
        back = project(wide)
        np.testing.assert_allclose(_numpy(back(x)), target, atol=1e-12)
        assert not _wide_layers(back)


@pytest.mark.parametrize("strides", [1, 3])
def test_the_largest_kernel_has_each_output_read_each_input(strides):
    model = keras.Sequential(
        [keras.Input((7, 1)), L.Conv1D(1, 3, strides, padding="same", name="c", use_bias=False)]
    )
    wide = embed(model, "wide")
    layer = wide.get_layer("c")
    size = layer.kernel_size[0]
    for tap in range(size):
        kernel = np.zeros(size)
        kernel[tap] = 1.0
        layer.kernel.assign(kernel.reshape(size, 1, 1))
        # No tap is there in vain.
        assert np.any(_numpy(wide(np.ones((1, 7, 1), "float32"))))
    layer.kernel.assign(np.ones((size, 1, 1)))
    responses = _numpy(wide(np.eye(7, dtype="float32")[..., None]))
    assert responses.min() == responses.max() == 1.0


def _cnn():
    inputs = keras.Input((6, 6, 2))
    x = L.ZeroPadding2D(1)(inputs)
    x = L.Conv2D(3, 3, strides=2, activation="relu", name="a")(x)
    x = L.DepthwiseConv2D(3, padding="same", name="b")(x)
    x = L.Dense(3, name="head")(L.Flatten()(x))
    return _randomize(keras.Model(inputs, x))


def test_parts_of_a_trained_model(tmp_path):
    cnn = _cnn()
    wide = embed(cnn, "wide", kernel_size=5)
    # The padding layer went into the convolution.
    assert not any(isinstance(layer, L.ZeroPadding2D) for layer in wide.layers)
    assert deviation(wide).off_local == deviation(wide).broken_sharing == 0.0
    x = np.random.default_rng(2).normal(size=(5, 6, 6, 2)).astype("float32")
    y = np.array([0, 1, 2, 0, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wide.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    wide.fit(x, y, verbose=0)
    squares = [0.0, 0.0]
    for name, (rows, start) in {"a": (5, 1), "b": (5, 1)}.items():
        kernel = wide.get_layer(name).get_weights()[0]
        assert kernel.shape[:2] == (rows, rows)
        inner = kernel[start : start + 3, start : start + 3]
        squares[0] += (kernel**2).sum() - (inner**2).sum()
        squares[1] += (kernel**2).sum()
    found = deviation(wide)
    assert found.off_local == pytest.approx(np.sqrt(squares[0] / squares[1]), rel=1e-4)
    assert found.norm == pytest.approx(np.sqrt(squares[1]), rel=1e-5)
    assert found.off_local > 0 and found.broken_sharing == 0.0

    back = project(wide)
    np.testing.assert_array_equal(
        back.get_layer("a").get_weights()[0], wide.get_layer("a").get_weights()[0][1:4, 1:4]
    )
    assert isinstance(back.get_layer("b"), L.DepthwiseConv2D)
    with masked(wide, "local"):
        expected = _numpy(wide(x))
    for projected in (back, project(wide, "local")):
        np.testing.assert_allclose(_numpy(projected(x)), expected, atol=1e-5)
    assert set(evaluate_parts(wide, x, y)) == {"full", "local", "off_local"}

    path = interpolate(cnn, wide, {"train": (x, y)}, num_points=3)
    ends = [
        -np.log(np.exp(z)[range(5), y] / np.exp(z).sum(axis=1)).mean()
        for z in (_numpy(cnn(x)), _numpy(wide(x)))
    ]
    np.testing.assert_allclose(path.loss["train"][[0, -1]], ends, rtol=1e-4)

    wide.save(tmp_path / "wide.keras")
    again = keras.saving.load_model(tmp_path / "wide.keras")
    np.testing.assert_array_equal(_numpy(again(x)), _numpy(wide(x)))
    assert again.get_layer("a").geometry == wide.get_layer("a").geometry


def test_channels_first_equals_channels_last():
    options = {"strides": 2, "padding": "same", "name": "c"}
    models = [
        keras.Sequential([keras.Input(shape), L.Conv2D(3, 3, data_format=form, **options)])
        for shape, form in (((5, 4, 2), "channels_last"), ((2, 5, 4), "channels_first"))
    ]
    models[1].set_weights(_randomize(models[0]).get_weights())
    wide = [embed(model, "wide").get_layer("c") for model in models]
    np.testing.assert_array_equal(*(layer.get_weights()[0] for layer in wide))
    assert wide[0].wide_geometry.padding == wide[1].wide_geometry.padding
    assert wide[1].compute_output_shape((None, 2, 5, 4)) == (None, 3, 3, 2)


def test_errors():
    model = keras.Sequential([keras.Input((4, 4, 2)), L.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="`kernel_size` is for target='wide' only"):
        embed(model, kernel_size=5)
    for size in ((3, 3, 3), 0, 2.5):
        with pytest.raises(ValueError, match="kernel_size"):
            embed(model, "wide", kernel_size=size)
    up = keras.Sequential([keras.Input((4, 2)), L.Conv1DTranspose(2, 3, strides=2, name="up")])
    with pytest.raises(
        ValueError,
        match="'up' is a transposed convolution with a stride above 1",
    ):
        embed(up, "wide")
    layer = embed(model, "wide").layers[1]
    with pytest.raises(ValueError, match=r"volumes of shape \(4, 4, 2\)"):
        type(layer).from_config(layer.get_config()).build((None, 5, 4, 2))
