"""Input weights laid out on the image."""

import keras
import numpy as np
import pytest

from tfconvbias import analysis
from tfconvbias.layers import LocallyConnected2D

SHAPE = (6, 5, 3)


def test_dense_columns_become_images():
    kernel = np.arange(90 * 4, dtype="float32").reshape(90, 4)
    images = analysis.input_weight_images(kernel, [3, 0], SHAPE)
    assert images.shape == (2, *SHAPE)
    np.testing.assert_array_equal(images[0].ravel(), kernel[:, 3])


def test_conv_filters_are_their_own_images():
    kernel = np.random.default_rng(0).normal(size=(3, 2, 3, 5))
    images = analysis.input_weight_images(kernel, [4], SHAPE)
    np.testing.assert_array_equal(images[0], kernel[..., 4])


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
def test_local_images_give_the_layers_output(strides, padding):
    """A unit's output is the sum of its image of weights times the input."""
    layer = LocallyConnected2D(2, (3, 2), strides=strides, padding=padding, use_bias=False)
    image = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype("float32")
    outputs = keras.ops.convert_to_numpy(layer(image))[0].ravel()
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    units = np.arange(analysis.num_units(kernel))
    weights = analysis.input_weight_images(kernel, units, SHAPE, strides, padding)
    np.testing.assert_allclose((weights * image).sum((1, 2, 3)), outputs, atol=1e-5)


def test_random_units_have_enough_weights_and_are_reproducible():
    kernel = np.zeros((50, 30))
    for unit in range(30):
        kernel[:unit, unit] = 1
    units = analysis.random_units(kernel, 5, min_nonzeros=20, seed=3)
    assert len(units) == 5
    assert (units >= 20).all()
    np.testing.assert_array_equal(units, analysis.random_units(kernel, 5, seed=3))
    assert len(analysis.random_units(kernel, 99, min_nonzeros=25)) == 5


def test_other_kernels_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 4, 5\)"):
        analysis.input_weight_images(np.zeros((3, 4, 5)), [0], SHAPE)
