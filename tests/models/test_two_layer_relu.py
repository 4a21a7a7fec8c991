import keras
import numpy as np
import pytest
from keras import ops

from tfconvbias.models import HalfMeanSquaredError, TwoLayerReLU

X = np.random.default_rng(0).standard_normal((7, 12)).astype("float32")


def _weights(model):
    hidden, output = model.get_layer("hidden"), model.get_layer("output")
    arrays = (hidden.kernel, hidden.bias, output.kernel, output.bias)
    return [ops.convert_to_numpy(a) for a in arrays]


def _randomise_biases(model):
    rng = np.random.default_rng(5)
    for layer in ("hidden", "output"):
        bias = model.get_layer(layer).bias
        bias.assign(rng.standard_normal(bias.shape))


@pytest.mark.parametrize("connectivity", ["dense", "local", "conv"])
def test_output_is_that_of_the_equation(connectivity):
    model = TwoLayerReLU(
        5,
        connectivity=connectivity,
        dimension=12,
        patch_size=None if connectivity == "dense" else 3,
        seed=0,
    )
    _randomise_biases(model)
    kernel, bias, outgoing, offset = _weights(model)
    expected = np.full((7, 1), offset)
    patches = X.reshape(7, 4, 3)
    for k in range(5):
        if connectivity == "dense":
            unit = np.maximum(X @ kernel[:, k] + bias[k], 0)
        elif connectivity == "conv":
            unit = np.mean(
                [np.maximum(patches[:, p] @ kernel[:, k] + bias[k], 0) for p in range(4)], 0
            )
        else:
            unit = np.mean(
                [np.maximum(patches[:, p] @ kernel[p, :, k] + bias[p, k], 0) for p in range(4)], 0
            )
        expected = expected + unit[:, None] * outgoing[k]
    np.testing.assert_allclose(ops.convert_to_numpy(model(X)), expected, rtol=1e-4, atol=1e-5)


def test_conv_is_local_with_tied_weights():
    conv = TwoLayerReLU(5, connectivity="conv", dimension=12, patch_size=3)
    local = TwoLayerReLU(5, connectivity="local", dimension=12, patch_size=3)
    _randomise_biases(conv)
    kernel, bias, outgoing, offset = _weights(conv)
    local.set_weights([np.stack([kernel] * 4), np.stack([bias] * 4), outgoing, offset])
    np.testing.assert_allclose(
        ops.convert_to_numpy(conv(X)), ops.convert_to_numpy(local(X)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("connectivity", "patch_size", "parameters"),
    [("dense", None, 14 * 5 + 1), ("local", 3, 17 * 5 + 1), ("conv", 3, 5 * 5 + 1)],
)
def test_parameter_counts(connectivity, patch_size, parameters):
    model = TwoLayerReLU(5, connectivity=connectivity, dimension=12, patch_size=patch_size)
    assert model.count_params() == parameters


@pytest.mark.parametrize(("connectivity", "fan_in"), [("dense", 40), ("local", 8), ("conv", 8)])
def test_initial_weights_have_the_stated_variance(connectivity, fan_in):
    model = TwoLayerReLU(
        4000,
        connectivity=connectivity,
        dimension=40,
        patch_size=None if connectivity == "dense" else 8,
        seed=3,
    )
    kernel, bias, outgoing, offset = _weights(model)
    np.testing.assert_allclose(kernel.var(), 2 / fan_in, rtol=0.05)
    np.testing.assert_allclose(outgoing.var(), 1 / 4000, rtol=0.1)
    assert not bias.any()
    assert not offset.any()
    again = TwoLayerReLU(
        4000,
        connectivity=connectivity,
        dimension=40,
        patch_size=None if connectivity == "dense" else 8,
        seed=3,
    )
    np.testing.assert_array_equal(_weights(again)[0], kernel)


def test_half_the_mean_squared_error_in_a_saved_model(tmp_path):
    model = TwoLayerReLU(5, connectivity="local", dimension=12, patch_size=3)
    model.compile(keras.optimizers.SGD(0.1), HalfMeanSquaredError())
    y = np.ones((7, 1), "float32")
    expected = model.evaluate(X, y, verbose=0)
    np.testing.assert_allclose(
        expected, np.mean((ops.convert_to_numpy(model(X)) - y) ** 2) / 2, rtol=1e-5
    )
    model.fit(X, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.loss, HalfMeanSquaredError)
    np.testing.assert_allclose(
        ops.convert_to_numpy(loaded(X)), ops.convert_to_numpy(model(X)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connectivity": "convolutional", "width": 3}, "connectivity='convolutional'"),
        ({"connectivity": "conv", "width": 3}, "patch_size=None, dimension=12"),
        ({"connectivity": "local", "width": 3, "patch_size": 5}, "patch_size=5, dimension=12"),
        ({"connectivity": "dense", "width": 3, "patch_size": 4}, "no patches"),
        ({"connectivity": "dense", "width": 0}, "width=0"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerReLU(dimension=12, **arguments)
