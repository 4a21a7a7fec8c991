import keras
import numpy as np
import pytest

from tfconvbias.models import StructuredBase
from tfconvbias.regularizers import KernelNumber


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def main_path(model):
    return [layer for layer in convolutions(model) if "shortcut" not in layer.name]


# The draft's Table 2, with the depth that counts the classifier, and our base `cifar8`.
TABLE_2 = {
    "imagenet8": (8, [(64, 7)] + [(64, 3)] * 2 + [(128, 3)] * 2 + [(256, 3)] * 2),
    "imagenet18": (
        18,
        [(64, 7)] + [(64, 3)] * 4 + [(128, 3)] * 4 + [(256, 3)] * 4 + [(512, 3)] * 4,
    ),
    "cifar8": (8, [(16, 3)] * 3 + [(32, 3)] * 2 + [(64, 3)] * 2),
    "cifar20": (20, [(16, 3)] * 7 + [(32, 3)] * 6 + [(64, 3)] * 6),
    "cifar20_square": (20, [(64, 5)] * 19),
}


@pytest.mark.parametrize("base", TABLE_2)
@pytest.mark.parametrize("residual", [True, False])
def test_table_2(base, residual):
    depth, expected = TABLE_2[base]
    model = StructuredBase(base, residual=residual, kernel_initializer="zeros")
    layers = main_path(model)
    assert [(layer.filters, *layer.kernel_size) for layer in layers] == [
        (width, size, size) for width, size in expected
    ]
    assert len(layers) + 1 == depth
    adds = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(adds) == (len(layers) // 2 if residual else 0)
    assert len(convolutions(model)) - len(layers) == {
        "imagenet8": 2, "imagenet18": 3, "cifar8": 2, "cifar20": 2, "cifar20_square": 2,
    }[base] * residual  # fmt: skip
    size = {"imagenet8": 14, "imagenet18": 7}.get(base, 8)
    assert layers[-1].output.shape[1:3] == (size, size)


def test_parameter_counts_of_resnet20():
    # He et al.: 0.27 M. Kernels 3·16·9 + 6·16²·9 + (16·32 + 5·32²)·9 + (32·64 + 5·64²)·9,
    # projections 16·32 + 32·64, BatchNorm 4 per channel, classifier 650.
    kernels = 432 + 6 * 2304 + 9 * (512 + 5 * 1024) + 9 * (2048 + 5 * 4096)
    channels = 7 * 16 + 7 * 32 + 7 * 64
    model = StructuredBase("cifar20", kernel_initializer="zeros")
    assert model.count_params() == kernels + 512 + 2048 + 4 * channels + 650


def test_free_depth_and_widths_and_regularizer():
    regularizer = KernelNumber(1e-3)
    model = StructuredBase(
        ((3, 5), (4, 3), (5, 1)), input_shape=(8, 8, 2), classes=3, kernel_regularizer=regularizer
    )
    assert model.output_shape == (None, 3)
    assert [layer.strides[0] for layer in main_path(model)] == [1, 2, 2]
    assert len(model.losses) == 4, "three convolutions and a projection, not the classifier"
    assert all(layer.kernel_regularizer is regularizer for layer in convolutions(model))


def test_save_and_load(tmp_path):
    model = StructuredBase(((3, 3), (3, 3), (3, 3)), input_shape=(6, 6, 1))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    left, right = (keras.ops.convert_to_numpy(m(images)) for m in (model, loaded))
    np.testing.assert_allclose(left, right, rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`base` must be one of"):
        StructuredBase("cifar21")
    with pytest.raises(ValueError, match="pairs of positive integers"):
        StructuredBase(((4, 3), (0, 3)))
    with pytest.raises(ValueError, match="odd number of convolutions"):
        StructuredBase(((4, 3), (4, 3)))
    with pytest.raises(ValueError, match="`strides` must be 3"):
        StructuredBase(((4, 3), (4, 3), (4, 3)), strides=(1, 2))
    with pytest.raises(ValueError, match="`classes` must be"):
        StructuredBase(((4, 3),), classes=0)


def test_both_branches_of_a_strided_pair_are_centred_on_the_same_pixels():
    model = StructuredBase(
        ((1, 3), (1, 5), (2, 3)), strides=(1, 2, 1), input_shape=(8, 8, 1), residual=True
    )
    strided = model.get_layer("conv2")
    kernel = np.zeros(strided.kernel.shape, "float32")
    kernel[2, 2, 0, 0] = 1
    strided.kernel.assign(kernel)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    before = model.get_layer("conv1_relu").output
    pixels, read = keras.Model(model.input, [before, strided.output])(images)
    pixels, read = keras.ops.convert_to_numpy(pixels), keras.ops.convert_to_numpy(read)
    np.testing.assert_allclose(read[..., 0], pixels[:, ::2, ::2, 0], rtol=1e-6)


@pytest.mark.parametrize("residual", [True, False])
def test_sums_and_kernels_are_normalized_before_they_are_rectified(residual):
    model = StructuredBase(((2, 3), (2, 3), (4, 3)), strides=(1, 1, 2), residual=residual,
                           input_shape=(8, 8, 1), kernel_initializer="zeros")  # fmt: skip

    def before(layer):
        found = layer.input if isinstance(layer.input, list) else [layer.input]
        return [type(tensor._keras_history.operation).__name__ for tensor in found]

    kinds = {"BatchNormalization": [], "ReLU": [], "Add": []}
    for layer in model.layers:
        if type(layer).__name__ in kinds:
            kinds[type(layer).__name__].append(before(layer))
    assert kinds["BatchNormalization"] == [["Conv2D"]] * (4 if residual else 3)
    sums = [["BatchNormalization", "BatchNormalization"]] if residual else []
    assert kinds["Add"] == sums
    assert sorted(kinds["ReLU"]) == sorted(
        [["Add"]] * residual + [["BatchNormalization"]] * (3 - residual)
    )
