"""`compact` on random patterns of zeros: the same function, and exactly the channels that count."""

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers as L
from random_cases import random_cases
from random_models import relative_difference

from tfconvbias.surgery import compact

# On TensorFlow only: eager layers of ever new shapes are slow to compile elsewhere.
pytestmark = pytest.mark.tensorflow

_WIDTHS = (4, 5, 3)
_CHANNELS = st.tuples(*(st.lists(st.booleans(), min_size=n, max_size=n) for n in _WIDTHS))


@random_cases(10, is_written=_CHANNELS, is_read=_CHANNELS, kernel_size=st.integers(1, 2))
def test_a_channel_stays_if_it_is_written_and_read(is_written, is_read, kernel_size):
    # Without biases a dead channel is zero; without zeros in the other weights a live one is not.
    kept = [np.logical_and(*pair) for pair in zip(is_written, is_read, strict=True)]
    hypothesis.assume(all(part.any() for part in kept))
    convolutions = [
        L.Conv2D(width, kernel_size, use_bias=False, activation="relu") for width in _WIDTHS
    ]
    head = L.Dense(2)
    model = keras.Sequential(
        [keras.Input((6, 5, 2)), *convolutions, L.GlobalAveragePooling2D(), head]
    )
    rng = np.random.default_rng(3)
    readers = [*convolutions[1:], head]
    for layer in (*convolutions, head):
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    for layer, reader, written, read in zip(
        convolutions, readers, is_written, is_read, strict=True
    ):
        kernel = layer.kernel.numpy()
        kernel[..., ~np.array(written)] = 0
        layer.kernel.assign(kernel)
        kernel = reader.kernel.numpy()
        kernel[..., ~np.array(read), :] = 0
        reader.kernel.assign(kernel)
    smaller = compact(model)
    widths = [layer.filters for layer in smaller.layers if isinstance(layer, L.Conv2D)]
    assert widths == [int(part.sum()) for part in kept]
    images = rng.normal(size=(4, 6, 5, 2)).astype("float32")
    assert relative_difference(model, smaller, images) < 1e-5


@random_cases(
    8,
    dead=st.lists(st.booleans(), min_size=6, max_size=6),
    biased=st.lists(st.booleans(), min_size=6, max_size=6),
    padding=st.sampled_from(["valid", "same"]),
    strides=st.integers(1, 2),
    is_padded=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:No live kernel is left")
def test_constants_are_carried_exactly(dead, biased, padding, strides, is_padded):
    parts = [
        L.Conv2D(6, 3, activation="relu", name="first"),
        *([L.ZeroPadding2D(1)] if is_padded else []),
        L.BatchNormalization(),
        L.Conv2D(3, 3, strides=strides, padding=padding),
        L.Flatten(),
        L.Dense(2),
    ]
    model = keras.Sequential([keras.Input((7, 7, 2)), *parts])
    rng = np.random.default_rng(4)
    for variable in model.variables:
        value = rng.normal(size=variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    # A dead channel emits the constant of its bias, or zero.
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., dead] = 0
    bias[np.logical_and(dead, np.logical_not(biased))] = 0
    model.get_layer("first").set_weights([kernel, bias])
    smaller = compact(model)
    assert smaller.count_params() <= model.count_params()
    images = rng.normal(size=(4, 7, 7, 2)).astype("float32")
    assert relative_difference(model, smaller, images) < 1e-5
