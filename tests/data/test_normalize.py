import keras
import numpy as np
import pytest
from keras import ops

from tfconvbias.data import PUBLISHED_STATISTICS, Normalize, channel_statistics

pytestmark = pytest.mark.backend
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(count=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 7, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_equation(dtype):
    x = images()
    expected = (x / 255 - np.array(MEAN)) / np.array(STD)
    result = Normalize(MEAN, STD)(x.astype(dtype))
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(result), expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_rounds_once_at_the_end(policy):
    x = (images() / 255 * 254.3).astype("float32")  # values that float16 does not hold
    exact = Normalize(MEAN, STD)(x)
    result = Normalize(MEAN, STD, dtype=policy)(x)
    compute_dtype = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(result.dtype) == compute_dtype
    expected = ops.convert_to_numpy(ops.cast(ops.cast(exact, compute_dtype), "float32"))
    assert (ops.convert_to_numpy(ops.cast(result, "float32")) == expected).all()


def test_statistics_from_data():
    x = images(50)
    mean, std = channel_statistics(x)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, x.std((0, 1, 2)) / 255, rtol=1e-12)
    result = ops.convert_to_numpy(Normalize.from_data(x)(x))
    assert abs(result.mean((0, 1, 2))).max() < 1e-5
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"Channel 1 of `x` is constant \(7\)"):
        x[..., 1] = 7
        channel_statistics(x)
    with pytest.raises(ValueError, match=r"non-empty uint8 array. Received: dtype=float64"):
        channel_statistics(np.zeros((1, 2, 2, 3)))


def test_statistics_of_more_pixels_than_are_counted_at_once():
    x = np.zeros((3, 2**19, 1), "uint8")
    x[2] = 255
    mean, std = channel_statistics(x)
    np.testing.assert_allclose((*mean, *std), (1 / 3, (2 / 9) ** 0.5), rtol=1e-12)


def test_symbolic_call_and_config():
    layer = Normalize(MEAN, STD)
    output = layer(keras.Input((7, 6, 3), dtype="uint8"))
    assert output.shape == (None, 7, 6, 3)
    assert output.dtype == "float32"
    again = Normalize.from_config(layer.get_config())
    assert (ops.convert_to_numpy(again(images())) == ops.convert_to_numpy(layer(images()))).all()
    assert not layer.weights


def test_published_statistics_are_the_images_channels_on_the_unit_scale():
    for name, (mean, std) in PUBLISHED_STATISTICS.items():
        assert len(mean) == len(std) == (1 if name == "mnist" else 3)
        assert min(*mean, *std) > 0 and max(*mean, *std) < 1


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.1,), (0.1, 0.2), "one number for each channel"),
        ((), (), "one number for each channel"),
        ((0.1,), (0.0,), r"`std` positive. Received: mean=\(0.1,\), std=\(0.0,\)"),
        ((float("nan"),), (1.0,), "must be finite"),
    ],
)
def test_bad_statistics(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)


def test_channels_must_match():
    with pytest.raises(ValueError, match=r"must have 3 channels.*\(2, 4, 4, 1\)"):
        Normalize(MEAN, STD)(np.zeros((2, 4, 4, 1), "uint8"))
