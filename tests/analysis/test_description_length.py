import math

import keras
import numpy as np
import pytest

from tfconvbias.analysis import description_length, generalization_bound, sharing_bits
from tfconvbias.connectivity import local_support
from tfconvbias.layers import LocallyConnected2D


def _model(*layers, shape=(5, 5, 1)):
    return keras.Sequential([keras.Input(shape), *layers])


def test_theorem_1_by_hand():
    # 0.25 + sqrt((1000 + ln 40) / 2000)
    expected = 0.25 + math.sqrt((1000 + 3.6888794541139363) / 2000)
    assert generalization_bound(0.25, 1000, 1000) == pytest.approx(expected, rel=1e-15)
    assert generalization_bound(0, 0, 1, delta=0.5) == pytest.approx(math.sqrt(math.log(4) / 2))


def test_theorem_2_by_hand():
    # ln(2 · 1024 / 0.1) = 9.927…
    expected = math.sqrt((640 + math.log(20480)) / 200)
    assert generalization_bound(0, 640, 100, 0.1, num_weights=1024) == pytest.approx(expected)


def test_sharing_bits_by_hand():
    assert sharing_bits(0, 0, 8) == 6
    assert sharing_bits(5, 4, 64) == 5 * 8 + 2 * 6
    assert sharing_bits(0, 0, 0) == 0


def test_dense_layer_by_hand():
    model = _model(keras.layers.Dense(2), shape=(4,))
    kernel = np.array([[1.0, 0], [0, -2], [1, 3], [0, 0]], "float32")
    model.layers[0].set_weights([kernel, np.array([0.5, 0], "float32")])
    found = description_length(model)
    assert (found.num_parameters, found.num_weights, found.num_nonzeros) == (10, 10, 5)
    assert found.num_values == 5
    assert found.parameter_bits == 320
    assert found.value_bits == 160
    expected = 5 * math.log2(50) + 2 * math.log2(10)
    assert found.sharing_bits == pytest.approx(expected)
    assert found.bits == pytest.approx(math.log2(10) + 160 + expected)
    bound = 0.1 + math.sqrt((160 + expected + math.log(2 * 10 / 0.05)) / 200)
    assert found.bound(0.1, 100) == pytest.approx(bound)

    found = description_length(model, "values")
    # 1, −2, 3 and the bias 0.5; the 1 stands twice.
    assert (found.num_nonzeros, found.num_values, found.value_bits) == (5, 4, 128)
    found = description_length(model, include="kernels")
    assert (found.num_parameters, found.num_nonzeros) == (8, 4)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_against_their_matrix(padding, strides, groups):
    layer = keras.layers.Conv2D(
        4, 3, strides=strides, padding=padding, groups=groups, use_bias=False
    )
    model = _model(layer, shape=(5, 6, 2))
    kernel = np.array(layer.kernel)
    kernel[np.random.default_rng(0).random(kernel.shape) < 0.5] = 0
    layer.kernel.assign(kernel)
    support = local_support((5, 6), 3, 2, 4, strides, padding, groups=groups)
    matrix = np.zeros(support.matrix_shape, "float32")
    matrix[support.inputs, support.outputs] = kernel.ravel()[support.orbits]

    found = description_length(model)
    assert found.num_weights == matrix.size
    assert found.num_nonzeros == np.count_nonzero(matrix)
    assert found.num_values == np.count_nonzero(kernel)
    assert description_length(model, "none").num_values == np.count_nonzero(matrix)
    assert description_length(model, "values").num_values == len(np.unique(matrix[matrix != 0]))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_locally_connected_layers_against_their_matrix(padding):
    layer = LocallyConnected2D(3, 3, strides=2, padding=padding, use_bias=False)
    model = _model(layer, shape=(5, 6, 2))
    support = local_support((5, 6), 3, 2, 3, 2, padding)
    found = description_length(model)
    assert found.num_weights == np.prod(support.matrix_shape)
    # Entries that meet padding are stored, but stand nowhere.
    assert found.num_parameters == np.prod(layer.kernel.shape)
    assert found.num_nonzeros == found.num_values == support.size
    assert (support.size < found.num_parameters) == (padding == "same")
    kernel = np.zeros(layer.kernel.shape, "float32")
    kernel.ravel()[support.local_entries[:7]] = 2.0
    layer.kernel.assign(kernel)
    assert description_length(model).num_values == 7
    assert description_length(model, "values").num_values == 1


def test_depthwise_and_1d_and_channels_first():
    depthwise = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    found = description_length(_model(depthwise, shape=(5, 5, 3)))
    assert found.num_weights == (25 * 3) * (9 * 6)
    assert found.num_nonzeros == 9 * 9 * 6
    assert found.num_values == 9 * 6
    causal = keras.layers.Conv1D(2, 3, padding="causal", use_bias=False)
    found = description_length(_model(causal, shape=(4, 1)))
    assert found.num_nonzeros == (4 + 3 + 2) * 2
    first = LocallyConnected2D(2, 3, data_format="channels_first", use_bias=False)
    found = description_length(_model(first, shape=(2, 5, 4)))
    assert found.num_weights == 40 * (3 * 2 * 2)
    assert found.num_nonzeros == 6 * 9 * 2 * 2


def test_a_kernel_wider_than_the_image_counts_what_it_can_use():
    conv = keras.layers.Conv2D(1, 5, padding="same", use_bias=False)
    found = description_length(_model(conv, shape=(2, 2, 1)))
    assert found.num_parameters == 25
    assert found.num_nonzeros == 16
    # Offsets −1, 0 and 1 along each axis meet a pixel.
    assert found.num_values == 9


def test_dense_layers_on_images_are_convolutions():
    found = description_length(_model(keras.layers.Dense(3, use_bias=False), shape=(2, 2, 4)))
    assert (found.num_weights, found.num_nonzeros, found.num_values) == (16 * 12, 4 * 12, 12)


def test_batch_norm_counts_its_statistics_and_zeros():
    model = _model(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), shape=(3,))
    found = description_length(model)
    # gamma and moving variance are 1, beta and moving mean 0.
    assert (found.num_parameters, found.num_nonzeros) == (12, 6)
    assert description_length(model, "values").num_values == 1
    assert description_length(model, include="trainable").num_parameters == 6
    empty = description_length(model, include="kernels")
    assert (empty.num_parameters, empty.bits) == (0, 0)


def test_bits_come_from_the_dtype():
    half = keras.layers.Dense(2, use_bias=False, dtype="bfloat16")
    model = _model(half, keras.layers.Dense(3, use_bias=False), shape=(4,))
    found = description_length(model)
    assert found.parameter_bits == 8 * 16 + 6 * 32
    assert found.value_bits == 8 * 16 + 6 * 32
    assert description_length(model, bits_per_parameter=8).value_bits == 14 * 8
    mixed = _model(keras.layers.Dense(2, use_bias=False, dtype="mixed_float16"), shape=(4,))
    assert description_length(mixed).parameter_bits == 8 * 32


def test_layers_add_up_through_nested_models():
    inner = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3, name="conv")], name="inner"
    )
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(2, name="fc")(keras.layers.Flatten()(inner(inputs)))
    found = description_length(keras.Model(inputs, outputs), include="kernels")
    assert [name for name, c in found.layers.items() if c.num_parameters] == ["conv", "fc"]
    assert found.num_weights == 16 * 8 + 16
    assert sum(c.num_nonzeros for c in found.layers.values()) == found.num_nonzeros == 9 * 8 + 16
    assert found.as_dict()["bits"] == found.bits


def test_zeros_shorten_the_description():
    layer = keras.layers.Dense(8, use_bias=False)
    model = _model(layer, shape=(16,))
    dense = description_length(model)
    kernel = np.array(layer.kernel)
    kernel[2:] = 0
    layer.kernel.assign(kernel)
    sparse = description_length(model)
    assert sparse.num_nonzeros == 16
    assert sparse.bits < sparse.parameter_bits < dense.bits
    assert sparse.bound(0, 100) < dense.bound(0, 100)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"train_loss": 1.1}, "train_loss=1.1"),
        ({"train_loss": float("nan")}, "train_loss=nan"),
        ({"bits": -1}, "bits=-1"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"delta": 0}, "delta=0"),
        ({"delta": 1}, "delta=1"),
        ({"num_weights": 0}, "num_weights=0"),
    ],
)
def test_bad_bounds(change, name):
    with pytest.raises(ValueError, match=name):
        generalization_bound(**({"train_loss": 0.1, "bits": 10, "num_samples": 5} | change))


@pytest.mark.parametrize("counts", [(1, 2, 8), (9, 2, 8), (3, 0, 8), (-1, -1, 8)])
def test_bad_counts(counts):
    with pytest.raises(ValueError, match="num_weights=8"):
        sharing_bits(*counts)


def test_bad_options_and_unknown_shapes():
    model = _model(keras.layers.Conv2D(1, 3))
    with pytest.raises(ValueError, match="weight_sharing='conv'"):
        description_length(model, "conv")
    with pytest.raises(ValueError, match="include='all'"):
        description_length(model, include="all")
    with pytest.raises(ValueError, match="bits_per_parameter=0"):
        description_length(model, bits_per_parameter=0)
    with pytest.raises(ValueError, match="input of known size"):
        description_length(_model(keras.layers.Conv2D(1, 3), shape=(None, None, 1)))
    conv = keras.layers.Conv2D(1, 3, padding="same", name="twice")
    inputs = keras.Input((4, 4, 1))
    with pytest.raises(ValueError, match="'twice' is called several times"):
        description_length(keras.Model(inputs, conv(conv(inputs))))
    subclassed = _Subclassed()
    subclassed(np.zeros((1, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match="must have one input, of a functional or Sequential"):
        description_length(subclassed)


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(1, 3)

    def call(self, inputs):
        return self.conv(inputs)
