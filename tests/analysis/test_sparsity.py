"""Counting what is left of each layer."""

import keras
import numpy as np

from tfconvbias import analysis


def test_counts_are_per_kernel_and_exact():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(3, 3, name="a"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="b"),
        ]
    )
    kernel = np.ones((3, 3, 2, 3), "float32")
    kernel[0] = 0.0
    kernel[1, 0, 0, 0] = -0.0
    model.get_layer("a").kernel.assign(kernel)
    counts = analysis.num_nonzeros(model)
    assert counts == {"a": 54 - 18 - 1, "b": 108 * 4}


def test_embeddings_and_biases_are_not_kernels():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Embedding(7, 3), keras.layers.Dense(2, name="d")]
    )
    assert list(analysis.kernels(model)) == ["d"]


def test_layers_of_nested_models_that_share_a_name_stand_by_path():
    def block(name):
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="fc")], name=name)

    inputs = keras.Input((3,))
    model = keras.Model(inputs, block("right")(block("left")(inputs)))
    names = list(analysis.kernels(model))
    assert len(names) == 2
    assert all(name.endswith("fc/kernel") for name in names)
