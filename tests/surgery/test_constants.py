"""Constants that dead channels emit are carried exactly."""

import keras
import numpy as np
import pytest
from keras import layers
from random_models import outputs_of, random_images, relative_difference, scramble

from tfconvbias.surgery import compact

TOLERANCE = 1e-5


def kill(layer, dead):
    """Zeroes kernels and leaves the bias, so that the channels emit a constant."""
    kernel, *rest = layer.get_weights()
    kernel[..., dead] = 0
    layer.set_weights([kernel, *rest])


def scrambled(model, seed=0):
    scramble(model, np.random.default_rng(seed), dead_share=0.0)
    return model


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("activation", ["linear", "sigmoid"])
def test_one_channel_stands_for_all_constants_that_meet_zero_padding(strides, activation):
    model = keras.Sequential(
        [
            keras.Input((7, 7, 3)),
            layers.Conv2D(6, 3, activation=activation, name="a"),
            layers.Conv2D(4, 3, padding="same", strides=strides, name="b"),
            layers.Conv2D(2, 3, padding="same"),
        ]
    )
    kill(scrambled(model).get_layer("a"), [0, 2, 3, 5])
    smaller = compact(model)
    assert smaller.get_layer("a").filters == 3
    images = random_images(np.random.default_rng(1), (7, 7, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE


def test_one_channel_stands_for_constants_behind_a_padding_layer():
    inputs = keras.Input((7, 7, 3))
    x = layers.Conv2D(6, 1, name="a")(inputs)
    x = layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    outputs = layers.Conv2D(4, 3, strides=2, name="b")(x)
    model = keras.Model(inputs, outputs)
    kill(scrambled(model).get_layer("a"), [0, 2, 3, 5])
    smaller = compact(model)
    assert smaller.get_layer("a").filters == 3
    images = random_images(np.random.default_rng(1), (7, 7, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE


def test_each_group_keeps_a_channel_of_its_own():
    model = keras.Sequential(
        [
            keras.Input((7, 7, 3)),
            layers.Conv2D(12, 1, name="a"),
            layers.Conv2D(8, 3, padding="same", groups=2, name="b"),
        ]
    )
    kill(scrambled(model).get_layer("a"), [0, 2, 3, 6, 7, 8, 9])
    smaller = compact(model)
    assert smaller.get_layer("a").filters == 2 * 4
    images = random_images(np.random.default_rng(1), (7, 7, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE


def test_transposed_convolutions_and_two_readers_share_a_channel():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 1, name="a")(inputs)
    first = layers.Conv2D(4, 3, padding="same")(x)
    second = layers.Conv2DTranspose(3, 3, padding="same")(x)
    model = keras.Model(inputs, layers.Concatenate()([first, second]))
    kill(scrambled(model).get_layer("a"), [0, 2, 3, 5])
    smaller = compact(model)
    assert smaller.get_layer("a").filters == 3
    images = random_images(np.random.default_rng(1), (6, 6, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE


@pytest.mark.parametrize(
    ("join", "order"), [("Add", (0, 1)), ("Add", (1, 0)), ("Subtract", (0, 1))]
)
def test_a_constant_term_of_a_sum_becomes_a_shift(tmp_path, join, order):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1)(inputs)
    branch = layers.Conv2D(4, 3, padding="same", name="inside")(x)
    branch = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="dead")(branch))
    terms = [x, branch]
    outputs = getattr(layers, join)(name="sum")([terms[index] for index in order])
    model = keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(layers.ReLU()(outputs)))
    kill(scrambled(model).get_layer("dead"), [0, 1, 2, 3])
    smaller = compact(model)
    images = random_images(np.random.default_rng(1), (6, 6, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE
    names = {layer.name for layer in smaller.layers}
    assert not names & {"inside", "dead"}
    smaller.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert relative_difference(smaller, loaded, images) == 0
    # What a surgery has made can be operated on again.
    smaller.layers[1].bias.assign([5.0] * 4)
    kill(smaller.layers[1], [1])
    last = next(layer for layer in smaller.layers[::-1] if isinstance(layer, layers.Conv2D))
    kernel, bias = last.get_weights()
    kernel[:, :, 2] = 0
    last.set_weights([kernel, bias])
    again = compact(smaller)
    assert again.layers[1].filters == 3
    assert relative_difference(smaller, again, images) <= TOLERANCE


def test_a_branch_that_emits_a_volume_of_its_own_is_kept_without_a_warning():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    branch = layers.ReLU()(layers.Conv2D(8, 3, padding="same", name="dead")(x))
    branch = layers.Conv2D(4, 3, padding="same", name="second")(branch)
    model = keras.Model(inputs, layers.Add()([x, branch]))
    kill(scrambled(model).get_layer("dead"), slice(None))
    model.get_layer("dead").bias.assign(np.linspace(-0.5, 1, 8))
    smaller = compact(model)
    assert smaller.get_layer("dead").kernel.shape == (1, 1, 4, 1)
    assert smaller.get_layer("second").kernel.shape == (3, 3, 1, 4)
    images = random_images(np.random.default_rng(1), (6, 6, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE


def test_borders_may_be_approximated_and_the_error_is_told():
    inputs = keras.Input((7, 7, 3))
    x = layers.ReLU()(layers.Conv2D(6, 1, name="a")(inputs))
    x = layers.Conv2D(4, 3, padding="same", name="b")(x)
    x = layers.ZeroPadding2D(1)(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(x))
    kill(scrambled(model).get_layer("a"), [0, 2, 3, 5])
    kill(model.get_layer("b"), [1, 2])
    model.get_layer("a").bias.assign(np.ones(6))
    model.get_layer("b").bias.assign(np.ones(4))
    images = random_images(np.random.default_rng(1), (7, 7, 3))
    with pytest.warns(UserWarning, match="as if there were no padding") as caught:
        smaller = compact(model, approximate_borders=images)
    assert smaller.get_layer("a").filters == 2
    assert smaller.get_layer("b").filters == 2
    left, right = outputs_of(model, images)[0], outputs_of(smaller, images)[0]
    error = np.abs(left - right).max() / np.abs(left).max()
    assert error > 1e-2
    assert f"{error:.1e} of" in " ".join(str(warning.message) for warning in caught)
    # Away from the border nothing changes.
    np.testing.assert_allclose(right[:, 2:-2, 2:-2], left[:, 2:-2, 2:-2], rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_called_twice_absorbs_nothing():
    inputs = keras.Input((6, 6, 3))
    first = layers.Conv2D(3, 1, name="first")(inputs)
    second = layers.Conv2D(3, 1, name="second")(inputs)
    shared = layers.Conv2D(4, 3, name="shared")
    model = keras.Model(inputs, [shared(first), shared(second)])
    scrambled(model)
    for name in ("first", "second"):
        # The same channels, but other constants.
        kill(model.get_layer(name), [0, 2])
    smaller = compact(model)
    images = random_images(np.random.default_rng(1), (6, 6, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE


# JAX computes with float32 only.
@pytest.mark.tensorflow
def test_constants_are_carried_with_more_digits_than_the_layers_have():
    """Two large constants that cancel each other."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 1, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=0.0, name="norm")(x))
    x = layers.Conv2D(2, 1, name="b")(x)
    model = keras.Model(inputs, x)
    kill(scrambled(model).get_layer("a"), [0, 1])
    ones, zeros = np.ones(3), np.zeros(3)
    model.get_layer("a").bias.assign([1e4 / 3, 1e4 / 3, 0.0])
    variance = np.array([7.0, 7.0, 1.0])
    model.get_layer("norm").set_weights([ones, zeros, zeros, variance])
    kernel, bias = model.get_layer("b").get_weights()
    kernel[:, :, 0], kernel[:, :, 1] = 0.1, -0.3
    model.get_layer("b").set_weights([kernel, bias])
    smaller = compact(model)
    bias64 = model.get_layer("a").get_weights()[1].astype("float64")
    kernel64 = kernel.astype("float64")
    emitted = bias64[:2] / np.sqrt(7.0)
    expected = bias + emitted @ kernel64[0, 0, :2]
    found = smaller.get_layer("b").get_weights()[1]
    np.testing.assert_array_equal(found, expected.astype("float32"))


def test_a_product_of_two_dead_channels_is_still_an_output():
    inputs = keras.Input((5, 5, 3))
    factors = [layers.Conv2D(4, 1, use_bias=False, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, layers.Multiply()(factors))
    scrambled(model)
    for name, dead in (("a", [0, 1]), ("b", [0, 2])):
        kill(model.get_layer(name), dead)
    smaller = compact(model)
    assert smaller.output_shape == (None, 5, 5, 4)
    images = random_images(np.random.default_rng(1), (5, 5, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE
