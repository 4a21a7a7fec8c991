"""Locally connected layers lose channels like convolutions; a bias of each place stays exact."""

import keras
import numpy as np
import pytest

from tfconvbias import embedding, regularizers, surgery
from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D


def values_of(tensor):
    return np.copy(keras.ops.convert_to_numpy(tensor))


def network(first, data_format="channels_last", **options):
    shape = (6, 7, 3) if data_format == "channels_last" else (3, 6, 7)
    common = {"data_format": data_format}
    axis = -1 if data_format == "channels_last" else 1
    inputs = keras.Input(shape)
    x = first(8, 3, padding="same", activation="relu", name="first", **common)(inputs)
    x = keras.layers.BatchNormalization(axis=axis, name="norm")(x)
    options = {"padding": "same", "strides": 2, **options}
    x = LocallyConnected2D(6, 3, activation="relu", name="own", **options, **common)(x)
    outputs = keras.layers.Dense(4, name="head")(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def randomize(model, seed=0):
    draw = np.random.default_rng(seed)
    for weight in model.weights:
        value = draw.normal(size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)


def clear(layer, channels, bias=None):
    kernel = values_of(layer.kernel)
    kernel[..., channels] = 0
    layer.kernel.assign(kernel)
    if bias is not None:
        values = values_of(layer.bias)
        values[..., channels] = bias
        layer.bias.assign(values)


def check_same(model, compact):
    images = np.random.default_rng(1).normal(size=(5, *model.input_shape[1:])).astype("float32")
    expected = values_of(model(images, training=False))
    np.testing.assert_allclose(
        values_of(compact(images, training=False)), expected, rtol=1e-4, atol=1e-4 * expected.std()
    )


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_local_layer_takes_over_constants_at_every_place(padding, groups):
    """Border taps of a constant channel read zeros; the bias of their place knows that."""
    model = network(keras.layers.Conv2D, padding=padding, groups=groups)
    randomize(model)
    clear(model.get_layer("first"), [1, 2, 5, 6])
    small = surgery.compact(model)
    assert small.get_layer("first").filters == 4
    assert small.get_layer("own").kernel.shape[-2] == 4 // groups
    check_same(model, small)


def test_zero_filters_with_equal_biases_go():
    model = network(LocallyConnected2D)
    randomize(model)
    clear(model.get_layer("first"), [0, 3], bias=0.25)
    clear(model.get_layer("own"), [4], bias=-1)
    small = surgery.compact(model)
    assert small.get_layer("first").filters == 6
    assert small.get_layer("own").filters == 5
    assert small.get_layer("head").kernel.shape == (12 * 5, 4)
    check_same(model, small)


def test_a_zero_filter_whose_biases_differ_between_places_stays():
    model = network(LocallyConnected2D)
    randomize(model)
    clear(model.get_layer("first"), [0])
    small = surgery.compact(model)
    assert small.get_layer("first").filters == 8
    check_same(model, small)


def test_a_layer_without_bias_gets_one_for_every_place():
    model = network(keras.layers.Conv2D, use_bias=False)
    randomize(model)
    clear(model.get_layer("first"), [7])
    small = surgery.compact(model)
    assert tuple(small.get_layer("own").bias.shape) == (3, 4, 6)
    check_same(model, small)


def test_one_axis_with_dilation():
    inputs = keras.Input((9, 4))
    x = keras.layers.Conv1D(5, 3, padding="same", name="first")(inputs)
    x = LocallyConnected1D(3, 3, padding="causal", dilation_rate=2, name="own")(x)
    model = keras.Model(inputs, x)
    randomize(model)
    clear(model.get_layer("first"), [0, 4])
    small = surgery.compact(model)
    assert small.get_layer("own").kernel.shape[-2] == 3
    check_same(model, small)


@pytest.mark.parametrize("groups", [1, 2])
def test_pruning_cuts_filters_of_local_layers(groups):
    model = network(LocallyConnected2D, groups=groups)
    randomize(model)
    pruned = surgery.prune(model, ratio=0.5, scope="layer", round_to=1).model
    assert pruned.get_layer("first").filters == 4
    assert pruned.get_layer("own").filters == {1: 3, 2: 4}[groups]


def test_multiply_adds_of_local_and_embedded_layers_are_counted():
    """Each entry of a locally connected or dense kernel is used once per image."""
    model = network(keras.layers.Conv2D)
    places = {"first": 6 * 7, "own": 3 * 4}
    by_layer = {
        "first": places["first"] * 3 * 8 * 9,
        "own": places["own"] * 8 * 6 * 9,
        "head": 12 * 6 * 4,
    }
    measured = surgery.architecture(model)
    assert {one.name: one.multiply_adds for one in measured.layers} == by_layer
    dense = surgery.architecture(embedding.embed(model, "dense"))
    assert [one.multiply_adds for one in dense.layers] == [
        (6 * 7 * 3) * (6 * 7 * 8),
        (6 * 7 * 8) * (3 * 4 * 6),
        12 * 6 * 4,
    ]


def test_a_budget_counts_what_cannot_be_cut():
    """An embedded layer stays whole, so that half of all is to be found in the others."""
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(2, 3, name="first")(inputs)
    x = keras.layers.Dense(64, name="middle")(keras.layers.Flatten()(x))
    model = embedding.embed(keras.Model(inputs, keras.layers.Dense(4, name="head")(x)), "dense")
    whole = surgery.architecture(model).total("multiply_adds")
    assert whole == 36 * 32 + 32 * 64 + 64 * 4
    pruned = surgery.prune(model, multiply_adds=0.6, round_to=1)
    left = surgery.architecture(pruned.model).total("multiply_adds")
    assert left <= 0.6 * whole < left + 36


def test_filters_of_small_norm_are_removed_together_at_all_places():
    """A filter's norm is that of its weights at all places, also where all axes have one length."""
    inputs = keras.Input((5, 5, 3))
    x = LocallyConnected2D(4, 3, use_bias=False, name="own")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    randomize(model)
    kernel = values_of(model.get_layer("own").kernel)
    assert kernel.shape == (3, 3, 3, 3, 3, 4)
    kernel[..., 1] *= 0.01
    model.get_layer("own").kernel.assign(kernel)
    norms = np.sqrt((kernel**2).sum(axis=(0, 1, 2, 3, 4)))
    bound = float(np.sort(norms)[:2].mean())
    thresholded = surgery.threshold(model, bound, regularizer=regularizers.KernelSize(0.0))
    left = values_of(thresholded.get_layer("own").kernel)
    np.testing.assert_array_equal(left[..., 1], 0)
    np.testing.assert_array_equal(left[..., [0, 2, 3]], kernel[..., [0, 2, 3]])
