import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import embed
from tfconvbias.graph import fold_normalization
from tfconvbias.layers import LocallyConnected2D
from tfconvbias.surgery import compact


def randomized(inputs, outputs):
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        value = 0.3 * rng.normal(size=variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


def left(model):
    return [layer.name for layer in model.layers if isinstance(layer, L.BatchNormalization)]


def assert_same(model, other):
    x = np.random.default_rng(1).normal(size=(3, *model.inputs[0].shape[1:])).astype("float32")
    first, second = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, other))
    np.testing.assert_allclose(second, first, atol=1e-5)


def linear_layers():
    return [
        L.Conv2D(3, 2, use_bias=False),
        L.DepthwiseConv2D(2, depth_multiplier=2),
        L.SeparableConv2D(3, 2, depth_multiplier=2, use_bias=False),
        L.Conv2DTranspose(2, 2),
        LocallyConnected2D(3, 2, use_bias=False),
        LocallyConnected2D(3, 2),
        L.Dense(3),
    ]


@pytest.mark.parametrize("layer", linear_layers(), ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize(
    "fold",
    [
        fold_normalization,
        lambda model: embed(model, fold_normalization=True),
        lambda model: compact(model, fold_normalization=True),
    ],
    ids=["fold", "embed", "compact"],
)
def test_every_kind_is_folded_by_all(layer, fold):
    inputs = keras.Input((5, 4, 2))
    layer = type(layer).from_config({**layer.get_config(), "name": "linear"})
    x = L.BatchNormalization(name="norm")(layer(inputs))
    model = randomized(inputs, L.Conv2D(1, 1, name="last")(L.ReLU()(x)))
    folded = fold(model)
    assert left(folded) == []
    assert_same(model, folded)


def test_what_is_not_folded_stays():
    inputs = keras.Input((6, 5, 3))
    shared = L.Conv2D(3, 1, name="shared")
    x = L.BatchNormalization(name="of_shared")(shared(shared(inputs)))
    read_twice = L.Conv2D(3, 1)(x)
    x = L.BatchNormalization(name="read_twice")(read_twice) + read_twice
    x = L.BatchNormalization(name="activated")(L.Conv2D(3, 1, activation="relu")(x))
    x = L.BatchNormalization(axis=1, name="of_rows")(L.Conv2D(3, 1)(x))
    x = L.BatchNormalization(name="kept")(L.Conv2D(3, 1, name="by_name")(x))
    model = randomized(inputs, x)
    folded = fold_normalization(model, keep=("by_name",))
    assert left(folded) == ["of_shared", "read_twice", "activated", "of_rows", "kept"]
    assert_same(model, folded)


def test_normalizations_in_nested_models():
    block = keras.Sequential(
        [keras.Input((4, 4, 2)), L.Conv2D(2, 1, name="inner"), L.BatchNormalization(name="norm")]
    )
    inputs = keras.Input((4, 4, 2))
    model = randomized(inputs, L.ReLU()(block(inputs)))
    folded = fold_normalization(model)
    assert left(folded) == []
    assert_same(model, folded)
