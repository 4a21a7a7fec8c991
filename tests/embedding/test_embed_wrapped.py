"""Layers that hold convolutions, layers of Keras' applications, and subclassed models."""

import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import EmbeddedDense, deviation, embed, embedded_size, project
from tfconvbias.graph import read_graph
from tfconvbias.layers import LocallyConnected2D, LocallyConnected3D


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def _randomize(model):
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            variable.assign(np.abs(0.4 * rng.normal(size=variable.shape)))
    return model


def _assert_same_function(first, second, input_shape):
    x = np.random.default_rng(1).normal(size=(3, *input_shape)).astype("float32")
    np.testing.assert_allclose(_numpy(first(x)), _numpy(second(x)), rtol=1e-4, atol=1e-5)


TIMED = {
    "conv": (L.Conv2D(2, 3, padding="same", activation="relu"), ("dense", "local", "wide")),
    "causal": (L.Conv1D(2, 3, padding="causal"), ("dense", "wide")),
    "separable": (L.SeparableConv2D(3, 2, strides=2), ("dense", "local")),
    "transposed": (L.Conv2DTranspose(2, 2, strides=2), ("dense",)),
    "local": (LocallyConnected2D(2, 3), ("dense",)),
}


@pytest.mark.parametrize("name", TIMED)
def test_time_distributed(name):
    inner, targets = TIMED[name]
    shape = (3, 5, 2) if name == "causal" else (3, 4, 5, 2)
    model = _randomize(
        keras.Sequential([keras.Input(shape), L.TimeDistributed(inner, name="timed")])
    )
    for target in targets:
        embedded = embed(model, target)
        _assert_same_function(model, embedded, shape)
        assert not any(isinstance(layer, L.TimeDistributed) for layer in embedded.layers)
        assert embedded_size(model, target).num_parameters == embedded.count_params()
        assert deviation(embedded).off_local == 0.0
        if name != "local":
            _assert_same_function(model, project(embedded), shape)
    if name == "conv":
        assert isinstance(embed(model, "local").get_layer("timed"), LocallyConnected3D)
        assert embed(model).get_layer("timed").kernel.shape == (3 * 4 * 5 * 2, 3 * 4 * 5 * 2)


def test_time_distributed_that_has_no_such_form():
    causal = L.TimeDistributed(L.Conv1D(2, 3, padding="causal"), name="timed")
    volumes = L.TimeDistributed(L.Conv3D(2, 2), name="timed")
    for shape, layer, target, reason in (
        ((3, 5, 2), causal, "local", "has padding='causal'"),
        ((3, 4, 4, 4, 1), volumes, "dense", "has three axes already"),
        ((None, 5, 2), causal, "dense", "fully defined, with its leading axis"),
    ):
        copy = L.TimeDistributed.from_config(layer.get_config())
        model = keras.Sequential([keras.Input(shape), copy])
        with pytest.raises(ValueError, match=f"'timed'.*{reason}"):
            embed(model, target)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_transposed_convolution_of_stride_1_is_a_convolution(padding, dilation):
    layer = L.Conv2DTranspose(3, (2, 3), padding=padding, dilation_rate=dilation, name="up")
    model = _randomize(keras.Sequential([keras.Input((5, 4, 2)), layer]))
    for target in ("local", "wide"):
        embedded = embed(model, target)
        _assert_same_function(model, embedded, (5, 4, 2))
        _assert_same_function(model, project(embedded), (5, 4, 2))
        found = deviation(embedded)
        assert found.off_local == 0.0 and found.broken_sharing < 1e-6


def test_spectral_normalization():
    wrapper = L.SpectralNormalization(L.Conv2D(2, 3, padding="same", name="inner"), name="sn")
    model = keras.Sequential([keras.Input((4, 4, 2)), L.ZeroPadding2D(1), wrapper])
    model.layers[-1].layer.kernel.assign(np.random.default_rng(0).normal(size=(3, 3, 2, 2)))
    embedded = embed(model)
    _assert_same_function(model, embedded, (4, 4, 2))
    assert isinstance(embedded.get_layer("sn"), EmbeddedDense)
    # The padding in front is folded, as it is for the convolution itself.
    assert embedded.get_layer("sn").kernel.shape[0] == 4 * 4 * 2


def test_layers_of_convnext():
    convnext = keras.applications.ConvNeXtTiny(
        weights=None, input_shape=(32, 32, 3), include_top=False
    )
    scale = next(layer for layer in convnext.layers if type(layer).__name__ == "LayerScale")
    inputs = keras.Input((4, 4, 2))
    x = L.DepthwiseConv2D(3, padding="same")(inputs)
    config = {**scale.get_config(), "projection_dim": 2, "name": "scale"}
    x = type(scale).from_config(config)(L.LayerNormalization()(x)) + inputs
    model = _randomize(keras.Model(inputs, x))
    _assert_same_function(model, embed(model), (4, 4, 2))


class _Subclassed(keras.Model):
    def __init__(self, own=False):
        super().__init__()
        self.conv = L.Conv2D(2, 3, name="conv")
        self.dropout = L.Dropout(0.5)
        self.head = L.Dense(2, name="head")
        self.own = self.add_weight(shape=(2,)) if own else None

    def call(self, inputs, training=False):
        x = self.dropout(keras.ops.relu(self.conv(inputs)), training=training)
        x = self.head(keras.ops.mean(x, axis=(1, 2)))
        return x if self.own is None else x + self.own


def test_a_subclassed_model():
    model = _Subclassed()
    with pytest.raises(ValueError, match="built subclassed model"):
        embed(model)
    model(np.ones((2, 5, 5, 1), "float32"))
    _randomize(model)
    embedded = embed(model)
    _assert_same_function(model, embedded, (5, 5, 1))
    assert isinstance(embedded.get_layer("conv"), EmbeddedDense)
    # What the original does in training alone, the embedded model does as well.
    x = np.ones((8, 5, 5, 1), "float32")
    assert np.any(_numpy(embedded(x, training=True)) != _numpy(embedded(x, training=False)))


def test_subclassed_models_that_cannot_be_followed():
    model = _Subclassed(own=True)
    model(np.ones((2, 5, 5, 1), "float32"))
    with pytest.raises(ValueError, match="functional model"):
        read_graph(model)

    class Branching(_Subclassed):
        def build(self, input_shape):
            self.conv.build(input_shape)

        def call(self, inputs):
            return self.conv(inputs) if float(keras.ops.sum(inputs)) > 0 else inputs

    model = Branching()
    model.build((None, 5, 5, 1))
    with pytest.raises(ValueError, match="Keras could not follow it"):
        read_graph(model)
