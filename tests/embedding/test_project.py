import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import (
    EmbeddedDense,
    deviation,
    embed,
    embedded_layers,
    evaluate_parts,
    masked,
    project,
)
from tfconvbias.embedding import reinitialize as reinitialize_model
from tfconvbias.graph import conv_geometry
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


def _meets_inputs(name):
    """For `_cnn`: which taps of a local kernel meet a pixel, by counting along each axis."""

    def axis(length, size, stride, before):
        count = (length + (2 if before else 0) - size) // stride + 1
        places = np.arange(count)[:, None] * stride + np.arange(size) - before
        return (places >= 0) & (places < length)

    lengths, size, stride, before = {
        "a": ((7, 6), 3, 2, 1),
        "b": ((4, 3), 3, 1, 1),
        "c": ((4, 3), 2, 1, 0),
    }[name]
    rows, columns = (axis(length, size, stride, before) for length in lengths)
    return rows[:, None, :, None] & columns[None, :, None, :]


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
            live = _meets_inputs(name)
            kernel, base = (k[live] for k in (kernel, base))
        parts["total"] += np.sum(kernel.astype(np.float64) ** 2)
        parts["rest"] += np.sum((kernel.astype(np.float64) - base) ** 2)
    np.testing.assert_allclose(found.norm**2, parts["total"], rtol=1e-6)
    outside = (found.off_local**2 + found.broken_sharing**2) * found.norm**2
    np.testing.assert_allclose(outside, parts["rest"], rtol=1e-4)
    assert (found.off_local > 0) == (target == "dense") and found.broken_sharing > 0
    assert deviation(model, include_head=True).norm > found.norm
    assert deviation(model, include_biases=True).norm > found.norm


def _shared_between_blocks():
    """An embedded layer in a block that two others hold, and a local one inside and outside."""
    geometry = conv_geometry((4, 4, 1), (3, 3, 1, 1), padding="same")
    dense = EmbeddedDense(16, geometry, use_bias=False, name="dense")
    flat = keras.Sequential([keras.Input((4, 4, 1)), L.Flatten(), dense, L.Reshape((4, 4, 1))])
    local = LocallyConnected2D(1, 3, padding="same", use_bias=False, name="local")
    first = keras.Sequential([keras.Input((4, 4, 1)), flat, local], name="first")
    second = keras.Sequential([keras.Input((4, 4, 1)), flat], name="second")
    model = keras.Sequential([keras.Input((4, 4, 1)), first, second, local])
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def test_a_layer_that_occurs_twice_counts_and_comes_back_once():
    model = _shared_between_blocks()
    assert sorted(layer.name for layer in embedded_layers(model)) == ["dense", "local"]
    norm = np.sqrt(sum(np.sum(np.square(weight)) for weight in model.get_weights()))
    assert deviation(model, include_padding=True).norm == pytest.approx(norm, rel=1e-6)
    before = [weight.copy() for weight in model.get_weights()]
    for keep in ("local", "off_local"):
        with masked(model, keep):
            assert any((weight == 0).any() for weight in model.get_weights())
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    # One draw for each layer; the dense one has 6 × 6 inputs with its padding.
    reinitialize_model(model, seed=5)
    generator = keras.random.SeedGenerator(5)
    limits = [1 / np.sqrt(n) for n in (36, 9)]
    for weight, limit in zip(model.get_weights(), limits, strict=True):
        drawn = keras.random.uniform(weight.shape, -limit, limit, seed=generator)
        np.testing.assert_allclose(weight, _numpy(drawn), rtol=1e-6)


def test_padding_layers_and_padding_same_project_alike():
    """Weights that only ever meet padding stand for nothing, whoever puts it there."""
    rng = np.random.default_rng(0)
    conv = {"filters": 2, "kernel_size": 3, "use_bias": False, "name": "c"}
    one = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(**conv, padding="same")])
    other = keras.Sequential(
        [keras.Input((4, 4, 1)), L.ZeroPadding2D(((1, 0), (1, 0))), L.ZeroPadding2D(((0, 1),) * 2),
         L.Conv2D(**conv)]
    )  # fmt: skip
    one, other = embed(one, "local"), embed(other, "local")
    kernel = rng.normal(size=one.get_layer("c").kernel.shape).astype("float32")
    one.get_layer("c").kernel.assign(kernel)
    rows = np.arange(4)[:, None] + np.arange(3) - 1
    inside = (rows >= 0) & (rows < 4)
    inside = inside[:, None, :, None] & inside[None, :, None, :]
    noise = 9.0 * rng.normal(size=kernel.shape).astype("float32")
    other.get_layer("c").kernel.assign(np.where(inside[..., None, None], kernel, noise))
    x = rng.normal(size=(2, 4, 4, 1)).astype("float32")
    np.testing.assert_allclose(_numpy(one(x)), _numpy(other(x)), atol=1e-5)
    expected = (kernel * inside[..., None, None]).sum(axis=(0, 1))
    expected = expected / inside.sum(axis=(0, 1))[..., None, None]
    for model in (one, other):
        found = _numpy(project(model).get_layer("c").kernel)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    same, padded = deviation(one), deviation(other)
    assert padded.norm == pytest.approx(same.norm, rel=1e-6)
    assert padded.broken_sharing == pytest.approx(same.broken_sharing, rel=1e-6)
    everything = np.linalg.norm(other.get_weights()[0])
    assert deviation(other, include_padding=True).norm == pytest.approx(everything, rel=1e-6)


def test_what_a_shared_layer_meets_in_one_call_counts():
    """Zeros in front of one of two calls: the other one uses these weights."""
    local = LocallyConnected2D(1, 3, use_bias=False, name="local")
    inputs = keras.Input((6, 6, 1))
    padded = L.ZeroPadding2D(1)(L.Cropping2D(1)(inputs))
    model = keras.Model(inputs, [local(padded), local(inputs)])
    kernel = np.random.default_rng(0).normal(size=local.kernel.shape)
    local.kernel.assign(kernel)
    found = _numpy(project(model).get_layer("local").kernel)
    np.testing.assert_allclose(found, kernel.mean(axis=(0, 1)), rtol=1e-5)


def test_a_projection_shares_nothing_with_its_source():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), LocallyConnected2D(2, 3, activation=L.PReLU(), name="local")]
    )
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype("float32")
    model(x)
    for variable in model.variables:
        variable.assign(np.full(variable.shape, 0.5))
    before, weights = _numpy(model(x)), [w.copy() for w in model.get_weights()]
    back = project(model)
    np.testing.assert_allclose(_numpy(back(x)), before, rtol=1e-5)
    for variable in back.variables:
        variable.assign(np.zeros(variable.shape))
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


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
    # One zero on each side of the 8 × 8 inputs.
    limit = 1 / np.sqrt(10 * 10 * 2)
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
    reinitialize_model(again, seed=3, fan_in="folded")
    np.testing.assert_allclose(again.get_weights()[0], kernel * np.sqrt(200 / 128), atol=1e-7)
    explicit = embed(cnn, padding="explicit")
    for fan_in in ("explicit", "folded"):
        reinitialize_model(explicit, seed=3, fan_in=fan_in)
        assert 0.99 * limit < np.abs(explicit.get_weights()[0]).max() <= limit
    with pytest.raises(ValueError, match="fan_in='all'"):
        reinitialize_model(again, fan_in="all")
    with pytest.raises(ValueError, match="fan-in of layer 'up'"):
        up = L.Conv1DTranspose(1, 2, name="up")
        reinitialize_model(keras.Sequential([keras.Input((3, 1)), up]))


def test_the_standard_network_starts_like_the_authors():
    """Their code pads the inputs of each dense layer, and draws with as many inputs as that."""

    def cnn():
        return keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                L.ZeroPadding2D(2),
                L.Conv2D(4, 5, name="a"),
                L.Conv2D(4, 3, padding="same", name="b"),
            ]
        )

    folded, explicit = embed(cnn()), embed(cnn(), padding="explicit")
    for model in (folded, explicit):
        reinitialize_model(model)
        for name, num_inputs in (("a", 12 * 12 * 2), ("b", 10 * 10 * 4)):
            kernel = _numpy(model.get_layer(name).kernel)
            np.testing.assert_allclose(np.abs(kernel).max(), num_inputs**-0.5, rtol=0.01)


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


def test_a_dense_layer_on_flat_inputs_gets_its_volume_back():
    cnn = keras.Sequential([keras.Input((5, 4, 2)), L.Conv2D(3, 2, name="c")])
    inputs = keras.Input((40,))
    back = project(keras.Model(inputs, embed(cnn).get_layer("c")(inputs)))
    assert back.get_layer("c_volume").target_shape == (5, 4, 2)
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype("float32")
    expected = _numpy(cnn(x)).reshape(3, -1)
    np.testing.assert_allclose(_numpy(back(x.reshape(3, 40))), expected, rtol=1e-5, atol=1e-5)
