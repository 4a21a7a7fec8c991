"""`architecture`, `report` and `identity_kernels`."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from tfconvbias.models import StructuredBase
from tfconvbias.regularizers import KernelSize
from tfconvbias.surgery import architecture, compact, identity_kernels, report


def two_convolutions():
    """Hand-made: 3 of 4 and 2 of 3 kernels live, with sizes 1, 3, 5 and 2, 3."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 5, padding="same", name="a"),
            layers.MaxPooling2D(2),
            layers.Conv2D(3, 3, name="b", use_bias=False),
            layers.Flatten(),
            layers.Dense(2, name="fc"),
        ]
    )
    a = np.zeros((5, 5, 2, 4), "float32")
    a[2, 2, :, 0] = 1.0
    a[1:4, 1:4, :, 1] = 1.0
    a[0, 4, :, 2] = a[4, 0, :, 2] = 1.0
    model.get_layer("a").set_weights([a, np.zeros(4)])
    b = np.zeros((3, 3, 4, 3), "float32")
    b[1:, 1:, :, 0] = 1.0
    b[..., 2] = 1.0
    model.get_layer("b").set_weights([b])
    return model


def test_hand_counted():
    measured = architecture(two_convolutions())
    a, b, fc = measured.layers
    assert (a.kernels, a.live_kernels, a.kept_kernels) == (4, 3, 3)
    assert a.sizes == {0: 1, 1: 1, 3: 1, 5: 1}
    assert a.multiply_adds == 64 * 25 * 2 * 4
    assert a.theoretical_multiply_adds == 64 * 2 * (1 + 9 + 25)
    assert a.realised_multiply_adds == 64 * 25 * 2 * 3
    assert (b.sizes, b.live_inputs, b.kept_kernels) == ({0: 1, 2: 1, 3: 1}, 3, 2)
    assert b.theoretical_multiply_adds == 4 * 3 * (4 + 9)
    assert b.realised_multiply_adds == 4 * 9 * 3 * 2
    assert (fc.live_inputs, fc.realised_multiply_adds) == (8, 16)
    # 5 pixels, +1 for pooling, then 2 more steps of 2 pixels.
    assert (a.receptive_field, b.receptive_field) == (5, 5 + 1 + 2 * 2)
    assert a.parameters == 204
    assert a.kept_parameters == 153


def test_sizes_by_the_groups_of_the_layers_own_penalty():
    for groups, expected in (("half_ring", 4), ("ring", 5)):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(1, 5, kernel_regularizer=KernelSize(0.1, groups=groups), name="a"),
            ]
        )
        kernel = np.ones((5, 5, 1, 1), "float32")
        kernel[0] = kernel[:, 0] = 0
        model.get_layer("a").set_weights([kernel, np.zeros(1)])
        assert architecture(model).layers[0].sizes == {expected: 1}


def test_uneven_kernels():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, (1, 5), name="a")])
    kernel = np.zeros((1, 5, 1, 2), "float32")
    kernel[0, 1:4, 0, 0] = 1
    model.get_layer("a").set_weights([kernel, np.zeros(2)])
    layer = architecture(model).layers[0]
    assert layer.sizes == {0: 1, 3: 1}
    assert layer.theoretical_multiply_adds == 8 * 4 * 3


def test_separable_convolutions_are_counted_as_two():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    x = layers.SeparableConv2D(5, 3, depth_multiplier=2, name="separable")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 0] = 0
    model.get_layer("first").set_weights([kernel, bias])
    depthwise, pointwise, bias = model.get_layer("separable").get_weights()
    depthwise[0] = depthwise[:, 0] = 0
    pointwise[..., 3:] = 0
    model.get_layer("separable").set_weights([depthwise, pointwise, bias])
    measured = architecture(model).layers[1]
    # 6x6 places, two depthwise kernels for each channel, then 1x1 kernels.
    assert measured.multiply_adds == 36 * (9 * 8 + 8 * 5)
    assert measured.theoretical_multiply_adds == 36 * (4 * 6 + 6 * 3)
    assert measured.realised_multiply_adds == 36 * (4 * 6 + 6 * 3)
    small = architecture(compact(model)).layers[1]
    assert small.multiply_adds == 36 * (4 * 6 + 6 * 3)


def test_a_transposed_convolution_applies_its_kernels_at_the_places_of_its_input():
    inputs = keras.Input((4, 5, 3))
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="up")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    kernel, bias = model.get_layer("up").get_weights()
    kernel[..., 4:, :] = 0
    model.get_layer("up").set_weights([kernel, bias * 0])
    measured = architecture(model).layers[0]
    assert measured.multiply_adds == 4 * 5 * 9 * 3 * 6
    assert measured.theoretical_multiply_adds == 4 * 5 * 9 * 3 * 4
    assert measured.realised_multiply_adds == 4 * 5 * 9 * 3 * 4


def test_print_json_and_report():
    model = two_convolutions()
    smaller = compact(model)
    measured = architecture(model)
    assert json.loads(measured.to_json())["layers"][0]["live_kernels"] == 3
    text = str(measured)
    assert len(text.splitlines()) == 5
    assert "3/4" in text
    compared = report(model, smaller)
    assert compared.after.total("multiply_adds") == measured.total("realised_multiply_adds")
    assert compared.parameters == (model.count_params(), smaller.count_params())
    assert "4 → 3" in str(compared)
    assert json.loads(compared.to_json())["parameters"] == list(compared.parameters)
    assert compared.multiply_add_ratio < 1


def test_a_vanished_layer_counts_nothing():
    model = StructuredBase(((4, 3),) * 3, input_shape=(8, 8, 3), strides=(1,) * 3)
    model.get_layer("conv3").set_weights([np.zeros((3, 3, 4, 4))])
    by_name = {layer.name: layer for layer in architecture(model).layers}
    for name in ("conv2", "conv3"):
        assert by_name[name].kept_kernels == by_name[name].realised_multiply_adds == 0
    assert "→ 0" in str(report(model, compact(model)))


def test_plot():
    figure = architecture(two_convolutions()).plot()
    assert len(figure.axes) == 2
    import matplotlib.pyplot as plt

    plt.close(figure)


def test_unknown_spatial_sizes_are_an_error():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="open")(inputs))
    with pytest.raises(ValueError, match=r"spatial sizes are known.*'open'"):
        architecture(model)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [2, 3])
def test_a_causal_identity_is_the_last_tap(size, dilation):
    layer = layers.Conv1D(3, size, padding="causal", dilation_rate=dilation, name="a")
    model = keras.Sequential([keras.Input((6, 3)), layer])
    kernel = np.zeros((size, 3, 3), "float32")
    kernel[-1] = np.eye(3)
    kernel[-1, 2, 2] = 0
    kernel[0, 2, 2] = 1  # a shift in time
    layer.set_weights([kernel, np.zeros(3)])
    images = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    passed = np.isclose(keras.ops.convert_to_numpy(model(images)), images).all(axis=(0, 1))
    assert passed.tolist() == [True, True, False]
    assert identity_kernels(model) == {"a": 2}


def test_identity_kernels():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, padding="same", name="a"),
            layers.Conv2D(4, 3, strides=2, name="strided"),
            layers.Dense(2),
        ]
    )
    kernel = np.zeros((3, 3, 3, 4), "float32")
    kernel[1, 1, 0, 0] = 2.0
    kernel[1, 1, 1, 1] = -0.5
    kernel[0, 0, 1, 1] = 1e-5
    kernel[1, 0, 2, 2] = 1.0
    model.get_layer("a").set_weights([kernel, np.zeros(4)])
    assert identity_kernels(model) == {"a": 2}
    assert identity_kernels(model, tolerance=1e-6) == {"a": 1}
    with pytest.raises(ValueError, match="tolerance=2"):
        identity_kernels(model, tolerance=2)
