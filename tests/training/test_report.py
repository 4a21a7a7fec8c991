"""The report's locality table."""

import keras
import numpy as np

from tfconvbias import models
from tfconvbias.training.report import locality_cells


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
