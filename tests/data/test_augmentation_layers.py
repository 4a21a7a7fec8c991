"""PadCrop and Cutout against NumPy oracles that recover each image's draw from the output."""

import keras
import numpy as np
import pytest
from keras import ops

from tfconvbias.data import Cutout, PadCrop

pytestmark = pytest.mark.backend
LAYERS = [PadCrop(3, seed=5), Cutout(5, seed=5)]


def images(count=200, size=(9, 7), channels=2, dtype="uint8"):
    # No zeros, so that padding and cut squares can be told from the image.
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (count, *size, channels)).astype(dtype)


def run(layer, x, training=True):
    return ops.convert_to_numpy(layer(x, training=training))


def crop_offset(image, output, padding):
    """The one offset from which NumPy crops `output`."""
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    rows, columns, _ = image.shape
    found = [
        (i, j)
        for i in range(2 * padding + 1)
        for j in range(2 * padding + 1)
        if (padded[i : i + rows, j : j + columns] == output).all()
    ]
    assert len(found) == 1
    return found[0]


def cut_centre(image, output, length):
    """The one centre around which NumPy cuts `output`."""
    rows, columns, _ = image.shape
    start = length // 2
    found = []
    for i in range(rows):
        for j in range(columns):
            expected = image.copy()
            expected[
                max(i - start, 0) : max(i - start + length, 0),
                max(j - start, 0) : max(j - start + length, 0),
            ] = 0
            if (expected == output).all():
                found.append((i, j))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mirroring_is_that_of_keras_after_the_crop(padding, dtype):
    x = images(dtype=dtype)
    cropped = run(PadCrop(padding, seed=7), x)
    both = PadCrop(padding, flip=True, seed=7, flip_seed=11)
    y = run(both, x)
    flip = keras.layers.RandomFlip("horizontal", seed=11, data_format="channels_last")
    assert y.dtype == dtype
    assert (y == run(flip, cropped)).all()
    mirrored = (y == cropped[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (y[~mirrored] == cropped[~mirrored]).all()
    assert 70 < mirrored.sum() < 130
    assert (run(both, x, training=False) == x).all()
    again = PadCrop.from_config(both.get_config())
    assert (run(again, x) == y).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_pad_crop_against_numpy(dtype):
    x = images(dtype=dtype)
    y = run(PadCrop(2, seed=1), x)
    assert y.dtype == dtype
    offsets = np.array([crop_offset(*pair, 2) for pair in zip(x, y, strict=True)])
    for axis in (0, 1):  # all 5 offsets, about 40 times each
        counts = np.bincount(offsets[:, axis], minlength=5)
        assert counts.min() > 20 and counts.max() < 65
    assert len(np.unique(offsets, axis=0)) == 25


@pytest.mark.parametrize("length", [4, 3, 1])
def test_cutout_against_numpy(length):
    x = images(dtype="float32")
    y = run(Cutout(length, seed=1), x)
    centres = np.array([cut_centre(*pair, length) for pair in zip(x, y, strict=True)])
    assert len(np.unique(centres[:, 0])) == 9
    assert len(np.unique(centres[:, 1])) == 7
    assert (centres == 0).any(0).all()  # a square clipped by an edge is among them


def test_a_cut_as_large_as_two_images_leaves_nothing():
    assert (run(Cutout(18), images()) == 0).all()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_images_are_drawn_independently(layer):
    x = np.repeat(images(1), 200, axis=0)
    y = run(layer, x)
    assert len(np.unique(y.reshape(200, -1), axis=0)) > 15
    # Rows and columns are drawn independently of each other.
    find = crop_offset if isinstance(layer, PadCrop) else cut_centre
    size = layer.padding if isinstance(layer, PadCrop) else layer.length
    draws = np.array([find(*pair, size) for pair in zip(x, y, strict=True)])
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.25


@pytest.mark.parametrize("make", [PadCrop, Cutout])
def test_seed_reproduces_and_calls_differ(make):
    x = images(20)
    first, second = make(4, seed=3), make(4, seed=3)
    once = run(first, x)
    assert (run(second, x) == once).all()
    assert (run(first, x) != once).any()
    assert (run(make(4, seed=4), x) != once).any()


@pytest.mark.parametrize("make", [PadCrop, Cutout])
def test_identity_at_inference_and_at_zero(make):
    x = images(4)
    assert (run(make(4), x, training=False) == x).all()
    assert (ops.convert_to_numpy(make(4)(x)) == x).all()
    assert (run(make(0), x) == x).all()


@pytest.mark.parametrize("make", [PadCrop, Cutout])
def test_float_values_are_not_rounded_by_the_policy(make):
    x = images(4).astype("float32") + 0.123
    y = run(make(2, seed=0, dtype="mixed_float16"), x)
    assert y.dtype == np.float32
    assert set(np.unique(y)) <= {0.0, *np.unique(x)}


@pytest.mark.parametrize("make", [PadCrop, Cutout])
def test_symbolic_call_and_config(make):
    layer = make(3, seed=9)
    output = layer(keras.Input((None, None, 3), dtype="uint8"))
    assert output.shape == (None, None, None, 3)
    assert output.dtype == "uint8"
    again = make.from_config(layer.get_config())
    assert (run(again, images(9)) == run(make(3, seed=9), images(9))).all()
    assert not layer.trainable_weights


@pytest.mark.parametrize(
    ("make", "name"), [(PadCrop, "padding"), (Cutout, "length")], ids=["PadCrop", "Cutout"]
)
def test_errors(make, name):
    for value in (-1, 1.5):
        with pytest.raises(
            ValueError, match=rf"`{name}` must be a (non-|whole number).*Received: {name}={value}"
        ):
            make(value)
    with pytest.raises(ValueError, match=r"expected ndim=4, found ndim=3"):
        make(2)(images(1)[0])
