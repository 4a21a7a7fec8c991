"""Facts of users' own layers, and what the table says of Keras' own."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from tfconvbias.embedding import EmbeddedDense, embed
from tfconvbias.graph import LayerFacts, facts_of, register
from tfconvbias.graph.facts import channel_axis, keeps_zero
from tfconvbias.graph.windows import window_of
from tfconvbias.layers import LocallyConnected2D
from tfconvbias.regularizers import Complexity, KernelSize
from tfconvbias.surgery import compact


@keras.saving.register_keras_serializable(package="graph_tests")
class Shifted(L.Layer):
    """Elementwise, with a weight that all numbers share."""

    def build(self, input_shape):
        self.shift = self.add_weight(name="shift", shape=(1,), initializer="ones")

    def call(self, inputs):
        return 2 * inputs + self.shift


@keras.saving.register_keras_serializable(package="graph_tests")
class OwnConv2D(L.Conv2D):
    """A convolution by another name."""


@keras.saving.register_keras_serializable(package="graph_tests")
class Mixed(L.Layer):
    """Each channel minus the mean of all."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="graph_tests")
def own_gate(x):
    return x * ops.sigmoid(x + 1)


register(Shifted, LayerFacts("elementwise"))
register(OwnConv2D, LayerFacts("conv", rank=2))
register(Mixed, LayerFacts("mixing"))
register(own_gate, LayerFacts("elementwise"))


def model_with(*inner):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(4, 3, padding="same", name="first"),
            *inner,
            L.Conv2D(3, 2, name="second"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 1:3] = 0
    model.get_layer("first").set_weights([kernel, bias])
    return model


def assert_same(model, other):
    x = np.random.default_rng(1).normal(size=(3, 6, 6, 2)).astype("float32")
    first, second = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, other))
    np.testing.assert_allclose(second, first, atol=1e-5 * max(1, np.abs(first).max()))


def widths(model, name):
    kernel = ops.convert_to_numpy(model.get_layer(name).kernel)
    return np.sqrt((kernel**2).sum(axis=(0, 1, 2)))


def squared_sizes(model, name):
    sizes = KernelSize(0.0).measure(model.get_layer(name).kernel)
    return (ops.convert_to_numpy(sizes) ** 2).sum()


def measured(model, form="multiply_adds"):
    return float(keras.ops.convert_to_numpy(Complexity(model, 1.0, form=form).measure()))


def test_an_elementwise_layer():
    model = model_with(Shifted(name="own"))
    assert_same(model, embed(model))
    smaller = compact(model)
    assert_same(model, smaller)
    # The constants of the dead channels go on through the layer.
    assert smaller.get_layer("first").filters == 2
    # Both outputs are 6×6 and 5×5; the layer passes the norms of the first kernels on.
    expected = 36 * 2 * squared_sizes(model, "first")
    expected += 25 * widths(model, "first").sum() * squared_sizes(model, "second")
    assert measured(model) == pytest.approx(expected, rel=1e-5)


def test_a_convolution_and_an_activation():
    own = OwnConv2D(4, 3, padding="same", strides=2, activation=own_gate, name="own")
    model = model_with(own)
    kernel, bias = own.get_weights()
    kernel[..., 0] = 0
    kernel[0] = 0
    own.set_weights([kernel, bias])
    embedded = embed(model)
    assert_same(model, embedded)
    assert isinstance(embedded.get_layer("own"), EmbeddedDense)
    assert_same(model, embed(model, "local"))
    assert isinstance(embed(model, "local").get_layer("own"), LocallyConnected2D)
    smaller = compact(model)
    assert_same(model, smaller)
    assert isinstance(smaller.get_layer("own"), OwnConv2D)
    assert smaller.get_layer("own").kernel.shape[-1] == 3
    expected = sum(widths(model, name).sum() for name in ("first", "own", "second"))
    assert measured(model, "number") == pytest.approx(expected, rel=1e-5)


def test_a_layer_that_mixes_channels():
    model = model_with(Mixed(name="own"))
    assert_same(model, embed(model))
    smaller = compact(model)
    assert_same(model, smaller)
    assert smaller.get_layer("first").filters == 4
    # Each of the four channels behind it counts as a whole one, whatever was written before.
    expected = 36 * 2 * squared_sizes(model, "first") + 25 * 4 * squared_sizes(model, "second")
    assert measured(model) == pytest.approx(expected, rel=1e-5)


def test_facts_may_depend_on_the_arguments():
    class Either(L.Layer):
        def __init__(self, mixes, **kwargs):
            super().__init__(**kwargs)
            self.mixes = mixes

    register(Either, lambda layer: LayerFacts("mixing" if layer.mixes else "elementwise"))
    assert facts_of(Either(True)).kind == "mixing"
    assert facts_of(Either(False)).kind == "elementwise"


def test_a_subclass_is_not_known_by_its_parent():
    class Child(L.Conv2D):
        pass

    assert facts_of(Child(2, 3)) is None
    with pytest.raises(NotImplementedError, match=r"class Child is not known.*graph\.register"):
        embed(model_with(Child(2, 3)))
    with pytest.raises(ValueError, match=r"type Child is unknown.*graph\.register"):
        compact(model_with(Child(2, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "odd"}, "kind=odd"),
        ({"kind": "conv"}, "rank=None"),
        ({"kind": "merge"}, "merge=None"),
        ({"kind": "mixing", "merge": "add"}, "merge=add"),
        ({"kind": "elementwise", "constants": "some"}, "constants=some"),
    ],
)
def test_bad_facts(arguments, message):
    with pytest.raises(ValueError, match=f"Received: .*{message}"):
        LayerFacts(**arguments)


def test_bad_registrations():
    with pytest.raises(ValueError, match="`layer` must be a class"):
        register(L.ReLU(), LayerFacts("elementwise"))
    with pytest.raises(ValueError, match="`facts` must be"):
        register(Shifted, "elementwise")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (L.Activation("relu"), True),
        (L.Activation("sigmoid"), False),
        (L.ReLU(threshold=1.0, negative_slope=0.5), False),
        (L.Rescaling(2.0), True),
        (L.Rescaling(2.0, offset=1.0), False),
        (L.MaxPooling1D(), True),
        (L.GlobalAveragePooling3D(), True),
        (L.Add(), True),
        (L.Flatten(), True),
        (L.LayerNormalization(), False),
        (L.Conv2D(2, 3, activation="softplus"), False),
        (L.Conv2D(2, 3, activation="elu"), True),
    ],
)
def test_whether_zeros_stay_zeros(layer, expected):
    assert keeps_zero(layer) == expected


def test_windows():
    window = window_of(L.Conv1D(2, 3, strides=2, padding="causal", groups=1))
    assert (window.size, window.strides, window.padding) == ((3,), (2,), "causal")
    assert window_of(L.MaxPooling3D((1, 2, 3))).strides == (1, 2, 3)
    assert window_of(L.Dense(2)) is None


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.AveragePooling2D(2),
        keras.layers.Concatenate(),
        keras.layers.Cropping2D(1),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.MaxPooling2D(2),
        keras.layers.ReLU(),
        keras.layers.UpSampling2D(2),
        keras.layers.ZeroPadding2D(1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_is_said_to_be_linear_is_additive(layer):
    def output(x):
        return np.asarray(keras.ops.convert_to_numpy(layer([x, 2 * x] if takes_two else x)))

    takes_two = isinstance(layer, keras.layers.Concatenate)
    first, second = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 3)).astype("float32")
    error = np.abs(output(first) + output(second) - output(first + second)).max()
    assert facts_of(layer).is_linear == (error < 1e-5)


@pytest.mark.parametrize(("axis", "expected"), [(-1, -1), (3, -1), (1, -3), (-3, -3)])
def test_the_channel_axis_counts_from_the_end(axis, expected):
    assert channel_axis(keras.layers.BatchNormalization(axis=axis), 4) == expected
