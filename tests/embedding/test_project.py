import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import EmbeddedDense, deviation, embed, evaluate_parts, masked, project
from tfconvbias.embedding import reinitialize as reinitialize_model
from tfconvbias.embedding.project import local_geometry
from tfconvbias.layers import LocallyConnected2D


def _cnn():
    inputs = keras.Input((7, 6, 2))
    x = L.ZeroPadding2D(1)(inputs)
    x = L.Conv2D(4, 3, strides=2, activation="relu", name="a")(x)
    x = L.Conv2D(4, 3, padding="same", groups=2, use_bias=False, name="b")(x) + x
    x = L.DepthwiseConv2D(2, depth_multiplier=2, name="c")(x)
    x = L.BatchNormalization(name="bn")(x)
    x = L.Dense(3, name="head")(L.Flatten()(x))
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(np.abs(0.5 * rng.normal(size=variable.shape)))
    return model


def _perturb(model, scale=0.1):
    rng = np.random.default_rng(1)
    for layer in model.layers:
        for variable in layer.trainable_variables:
            noise = scale * rng.normal(size=variable.shape)
            variable.assign(keras.ops.convert_to_numpy(variable) + noise)
    return model


def _numpy(variable):
    return keras.ops.convert_to_numpy(variable)


@pytest.mark.parametrize(
    ("target", "padding"), [("dense", "folded"), ("dense", "explicit"), ("local", "folded")]
)
def test_projection_undoes_embedding(target, padding):
    cnn = _cnn()
    back = project(embed(cnn, target, padding))
    x = np.random.default_rng(2).normal(size=(3, 7, 6, 2)).astype("float32")
    np.testing.assert_allclose(_numpy(back(x)), _numpy(cnn(x)), rtol=1e-5, atol=1e-5)
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            _numpy(back.get_layer(name).kernel), _numpy(cnn.get_layer(name).kernel)
        )
    kinds = {type(layer) for layer in back.layers}
    assert kinds.isdisjoint({EmbeddedDense, L.Reshape, LocallyConnected2D})
    assert sum(isinstance(layer, L.Flatten) for layer in back.layers) == 1


def test_projection_onto_local_layers_keeps_local_entries():
    fcn = _perturb(embed(_cnn()))
    local = project(fcn, "local")
    x = np.random.default_rng(2).normal(size=(3, 7, 6, 2)).astype("float32")
    with masked(fcn, "local"):
        expected = _numpy(fcn(x))
    np.testing.assert_allclose(_numpy(local(x)), expected, rtol=1e-4, atol=1e-4)
    assert isinstance(local.get_layer("b"), LocallyConnected2D)
    # The two ways down to convolutions agree, and the nearest point of a subspace is its own.
    direct, over_local = project(fcn), project(local)
    for a, b in zip(direct.weights, over_local.weights, strict=True):
        np.testing.assert_allclose(_numpy(a), _numpy(b).reshape(a.shape), rtol=1e-5, atol=1e-6)
    again = project(embed(direct))
    for a, b in zip(direct.weights, again.weights, strict=True):
        np.testing.assert_array_equal(_numpy(a), _numpy(b))


def test_transposed_convolution_comes_back():
    cnn = keras.Sequential(
        [keras.Input((4, 2)), L.Conv1DTranspose(3, 3, strides=2, padding="same", name="up")]
    )
    fcn = embed(cnn)
    back = project(fcn)
    np.testing.assert_array_equal(
        _numpy(back.get_layer("up").kernel), _numpy(cnn.get_layer("up").kernel)
    )
    with pytest.raises(ValueError, match="transposed"):
        project(fcn, "local")


def test_project_errors():
    with pytest.raises(ValueError, match="onto"):
        project(_cnn(), "dense")
    with pytest.raises(ValueError, match="no layer that can be projected"):
        project(_cnn())


@pytest.mark.parametrize("target", ["dense", "local"])
def test_deviation(target):
    cnn = _cnn()
    model = embed(cnn, target)
    start = deviation(model, include_biases=True, include_head=True)
    assert start.off_local == 0.0 and start.broken_sharing == 0.0
    assert set(start.layers) == {"a", "b", "c"}
    _perturb(model)
    found = deviation(model)
    nearest = embed(project(model), target)
    parts = {"total": 0.0, "rest": 0.0}
    for name in found.layers:
        kernel, base = (_numpy(m.get_layer(name).kernel) for m in (model, nearest))
        if target == "local":
            # Taps on padding change nothing and don't count.
            live = local_geometry(model.get_layer(name)).support().patches >= 0
            kernel, base = (k.reshape(*live.shape, -1)[live] for k in (kernel, base))
        parts["total"] += np.sum(kernel.astype(np.float64) ** 2)
        parts["rest"] += np.sum((kernel.astype(np.float64) - base) ** 2)
    np.testing.assert_allclose(found.norm**2, parts["total"], rtol=1e-6)
    outside = (found.off_local**2 + found.broken_sharing**2) * found.norm**2
    np.testing.assert_allclose(outside, parts["rest"], rtol=1e-4)
    assert (found.off_local > 0) == (target == "dense") and found.broken_sharing > 0
    assert deviation(model, include_head=True).norm > found.norm
    assert deviation(model, include_biases=True).norm > found.norm


def test_deviation_counts_padded_rows_where_asked():
    cnn = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(2, 3, padding="same")])
    model = embed(cnn, padding="explicit")
    assert deviation(model, include_padding=True).norm > deviation(model).norm
    np.testing.assert_allclose(deviation(model).norm, deviation(embed(cnn)).norm, rtol=1e-6)
    with pytest.raises(ValueError, match="no embedded"):
        deviation(cnn)


def test_masking_splits_a_linear_layer_and_puts_it_back():
    cnn = keras.Sequential([keras.Input((5, 5, 2)), L.Conv2D(3, 3, use_bias=False)])
    model = _perturb(embed(cnn))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype("float32")
    before = model.get_weights()[0].copy()
    whole = _numpy(model(x))
    parts = []
    for keep in ("local", "off_local"):
        with masked(model, keep):
            parts.append(_numpy(model(x)))
    np.testing.assert_allclose(parts[0] + parts[1], whole, atol=1e-5)
    assert np.abs(parts[0]).max() > 0.1 and np.abs(parts[1]).max() > 0.1
    np.testing.assert_array_equal(model.get_weights()[0], before)
    with pytest.raises(RuntimeError, match="inside"), masked(model, "local"):
        raise RuntimeError("inside")
    np.testing.assert_array_equal(model.get_weights()[0], before)
    with pytest.raises(ValueError, match="keep"), masked(model, "none"):
        pass
    with pytest.raises(ValueError, match="no embedded"), masked(cnn, "local"):
        pass


def test_evaluate_parts():
    model = embed(_cnn())
    model.compile(loss="mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(4, 7, 6, 2)).astype("float32")
    results = evaluate_parts(model, x, np.zeros((4, 3)))
    assert results["local"]["mae"] == pytest.approx(results["full"]["mae"], rel=1e-6)
    assert results["off_local"]["mae"] != pytest.approx(results["full"]["mae"], rel=1e-3)


def test_reinitialize_draws_the_standard_network():
    cnn = keras.Sequential([keras.Input((8, 8, 2)), L.Conv2D(4, 3, padding="same"), L.ReLU()])
    fcn = embed(cnn)
    reinitialize_model(fcn, seed=3)
    kernel, bias = fcn.get_weights()
    limit = 1 / np.sqrt(128)
    assert np.abs(kernel).max() <= limit and np.abs(bias).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)
    # All entries alike: the local share of the norm is that of their number.
    off_local_share = 1 - 22 * 22 / 64**2
    assert deviation(fcn).off_local == pytest.approx(np.sqrt(off_local_share), abs=0.01)
    local = embed(cnn, "local")
    reinitialize_model(local, seed=3)
    np.testing.assert_allclose(local.get_weights()[0].std(), 1 / np.sqrt(54), rtol=0.02)
    again = embed(cnn)
    reinitialize_model(again, seed=3)
    np.testing.assert_array_equal(again.get_weights()[0], kernel)
    with pytest.raises(ValueError, match="fan-in of layer 'up'"):
        up = L.Conv1DTranspose(1, 2, name="up")
        reinitialize_model(keras.Sequential([keras.Input((3, 1)), up]))


def test_reinitialize_reaches_inner_models_and_normalizations():
    def branch():
        return keras.Sequential([keras.Input((4,)), L.Dense(4), L.BatchNormalization(), L.PReLU()])

    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Add()([branch()(inputs), branch()(inputs)]))
    for inner in model.layers[1:3]:
        for variable in inner.variables:
            variable.assign(np.full(variable.shape, 7.0))
    reinitialize_model(model)
    first, second = (inner.get_weights() for inner in model.layers[1:3])
    assert np.abs(first[0] - second[0]).max() > 0.1
    for gamma, beta, mean, variance, alpha in (first[2:], second[2:]):
        assert (gamma == 1).all() and (variance == 1).all()
        assert not beta.any() and not alpha.any() and not mean.any()
