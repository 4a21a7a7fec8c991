import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.analysis import description_length
from tfconvbias.graph import conv_geometry
from tfconvbias.graph.windows import layer_geometries
from tfconvbias.layers import LocallyConnected2D


def matrix_of(layer, input_shape):
    """The matrix of a linear layer, from its outputs for one input at a time."""
    size = int(np.prod(input_shape))
    ones = np.eye(size, dtype="float32").reshape(size, *input_shape)
    return keras.ops.convert_to_numpy(layer(ones)).reshape(size, -1)


LAYERS = [
    L.Conv2D(3, 3, strides=2, padding="same", use_bias=False),
    L.Conv2D(4, 2, groups=2, dilation_rate=2, use_bias=False),
    L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False),
    L.Conv2DTranspose(3, 3, strides=2, padding="same", use_bias=False),
    L.Conv2DTranspose(3, 2, use_bias=False),
    LocallyConnected2D(3, 2, padding="same", use_bias=False),
    L.Dense(3, use_bias=False),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_geometry_and_description_equal_the_matrix_of_the_layer(layer):
    shape = (5, 4, 2)
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    layer.kernel.assign(np.random.default_rng(0).uniform(1, 2, layer.kernel.shape))
    matrix = matrix_of(layer, shape)
    ((_, geometry),) = layer_geometries(layer, (None, *shape))
    assert geometry.matrix_shape == matrix.shape
    found = description_length(model)
    assert found.num_weights == matrix.size
    assert found.num_nonzeros == np.count_nonzero(matrix)


@pytest.mark.tensorflow
def test_a_separable_convolution_is_two_matrices():
    layer = L.SeparableConv2D(3, 2, depth_multiplier=2, use_bias=False)
    model = keras.Sequential([keras.Input((5, 4, 2)), layer])
    (_, first), (_, second) = layer_geometries(layer, (None, 5, 4, 2))
    assert first.matrix_shape == (5 * 4 * 2, 4 * 3 * 4)
    assert second.matrix_shape == (4 * 3 * 4, 4 * 3 * 3)
    found = description_length(model)
    assert found.num_weights == 40 * 48 + 48 * 36
    # One tap of the first meets 12 places, of the second as well.
    assert found.num_nonzeros == 12 * (2 * 2 * 4) + 12 * (4 * 3)


def test_an_unknown_input_shape_names_the_layer():
    layer = L.Conv2D(2, 3, name="open")
    layer.build((None, None, 4, 2))
    with pytest.raises(ValueError, match="'open' must be fully defined"):
        layer_geometries(layer, (None, None, 4, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_shape": (3, 3, 5, 2)}, "kernel is for 5 input channels"),
        ({"kernel_shape": (3, 4, 2)}, "one axis more"),
        ({"input_shape": (None, 4, 4)}, "`input_shape` must be"),
        ({"kind": "strange"}, "`kind` must be one of"),
        ({"data_format": "last"}, "data_format"),
        ({"kind": "transposed", "padding": "causal"}, "padding 'valid' or 'same'"),
        ({"padding": "none"}, "padding"),
        ({"groups": 3, "kernel_shape": (3, 3, 1, 4)}, "for 3 input channels"),
    ],
)
def test_geometry_errors(changes, message):
    arguments = {"input_shape": (4, 4, 4), "kernel_shape": (3, 3, 4, 2), **changes}
    with pytest.raises(ValueError, match=message):
        conv_geometry(**arguments)
