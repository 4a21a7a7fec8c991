"""The report's locality table and its images of filters."""

import keras
import numpy as np
import pytest

from tfconvbias import layers, models
from tfconvbias.training.report import first_layer_images, locality_cells


def test_local_units_stand_out_and_dense_ones_do_not():
    local, dense = (
        locality_cells(models.SConv(2, connectivity=connectivity, input_shape=(16, 16, 3)))
        for connectivity in ("local", "dense")
    )
    assert float(local["z"]) < -10 < float(dense["z"]) < 10
    assert float(local["spread, pixels"]) < 0.8 * float(local["permuted"])
    assert local["share in the best k×k, %"] == "100.0 (k = 9)"
    assert local["units"] == "128 with ≥ 20 weights"


def test_units_with_a_single_weight_are_not_called_local():
    model = models.SConv(1, connectivity="dense", input_shape=(8, 8, 3))
    kernel = np.zeros(model.get_layer("conv1").kernel.shape, "float32")
    kernel[0] = 1
    model.get_layer("conv1").kernel.assign(kernel)
    cells = locality_cells(model, min_nonzeros=1)
    assert cells.pop("units") == "0 with ≥ 2 weights"
    assert set(cells.values()) == {"–"}


def test_convolutions_are_measured_on_an_empty_image():
    found = keras.Sequential(
        [keras.Input((12, 12, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    )
    assert locality_cells(found)["share in the best k×k, %"].startswith("100.0")


@pytest.mark.parametrize(("strides", "padding"), [(2, "same"), (1, "valid"), (2, "valid")])
def test_a_local_units_image_shows_what_it_does_to_each_pixel(strides, padding):
    local = layers.LocallyConnected2D(2, 3, strides=strides, padding=padding, use_bias=False)
    model = keras.Sequential([keras.Input((8, 8, 3)), local])
    kernel = np.zeros(local.kernel.shape, "float32")
    # The only unit with weights: row 1, column 2, filter 1.
    kernel[1, 2, ..., 1] = np.random.default_rng(0).normal(size=kernel[1, 2, ..., 1].shape)
    local.kernel.assign(kernel)
    images, least = first_layer_images(model)
    pixels = np.eye(8 * 8 * 3, dtype="float32").reshape(-1, 8, 8, 3)
    answers = keras.ops.convert_to_numpy(model(pixels))[:, 1, 2, 1]
    assert least == 1
    np.testing.assert_allclose(images, answers.reshape(1, 8, 8, 3), rtol=1e-6)
