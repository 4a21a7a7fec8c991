"""Random small networks compute the same after `embed`, and after `project` once more."""

import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers as L
from random_cases import random_cases, windows

from tfconvbias.embedding import embed, project

# On TensorFlow only: eager layers of ever new shapes are slow to compile elsewhere.
pytestmark = pytest.mark.tensorflow


def _conv(x, filters, options, groups):
    # Keras' convolutions take either strides or dilation.
    if max(options["strides"]) > 1:
        options = {**options, "dilation_rate": (1, 1)}
    if options["padding"] == "valid":
        spans = zip(options["kernel_size"], options["dilation_rate"], x.shape[1:3], strict=True)
        if any((k - 1) * d + 1 > n for k, d, n in spans):
            options = {**options, "padding": "same"}
    return L.Conv2D(filters, groups=groups, activation="tanh", **options)(x)


_PARTS = {
    "conv": lambda x, filters, options: _conv(x, filters, options, 1),
    "grouped": lambda x, filters, options: _conv(x, filters, options, 2),
    "depthwise": lambda x, filters, options: L.DepthwiseConv2D(3, padding="same")(x),
    "transposed": lambda x, filters, options: L.Conv2DTranspose(filters, 2, padding="same")(x),
    "pad": lambda x, filters, options: L.ZeroPadding2D(((1, 0), (0, 2)))(x),
    "normalize": lambda x, filters, options: L.BatchNormalization()(x),
    "pool": lambda x, filters, options: L.MaxPooling2D(2, 1, padding="same")(x),
    "shortcut": lambda x, filters, options: L.Add()([x, L.Conv2D(x.shape[-1], 1)(x)]),
    "join": lambda x, filters, options: L.Concatenate()([x, L.ReLU()(x)]),
}


def _network(parts):
    inputs = x = keras.Input((5, 4, 2))
    for name, filters, (_, options) in parts:
        x = _PARTS[name](x, filters, options)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    rng = np.random.default_rng(1)
    for variable in model.variables:
        value = 0.5 * rng.normal(size=variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


_NETWORKS = st.lists(
    st.tuples(st.sampled_from(sorted(_PARTS)), st.sampled_from([2, 4]), windows((2,))),
    min_size=1,
    max_size=4,
)


@random_cases(
    8,
    parts=_NETWORKS,
    target=st.sampled_from(["dense", "local", "wide"]),
    padding=st.sampled_from(["folded", "explicit"]),
)
def test_the_function_stays_there_and_back(parts, target, padding):
    model = _network(parts)
    # `embed` does not widen transposed kernels.
    if target == "wide":
        model = _network([part for part in parts if part[0] != "transposed"])
    larger = embed(model, target, padding)
    x = np.random.default_rng(2).normal(size=(3, 5, 4, 2)).astype("float32")
    expected = np.asarray(model(x, training=False))
    found = np.asarray(larger(x, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    if any(
        isinstance(layer, (L.Conv2D, L.DepthwiseConv2D, L.Conv2DTranspose))
        for layer in model.layers
    ):
        again = np.asarray(project(larger)(x, training=False))
        np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-4)
