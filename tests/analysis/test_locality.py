import keras
import numpy as np
import pytest

from tfconvbias.analysis import layer_locality, locality, spatial_spread, window_share
from tfconvbias.layers import LocallyConnected2D


def test_spread_of_hand_computed_masses():
    images = np.zeros((4, 5, 5, 2))
    images[0, 2, 3, 0] = -7.0
    images[1, 0, 0, 0], images[1, 3, 4, 1] = 1.0, -1.0
    images[2, 1, 0, 0], images[2, 1, 4, 0] = 3.0, 1.0
    # All of unit 3 lies on one pixel: its two channels add up.
    images[3, 4, 4] = (2.0, -2.0)
    # 1: two halves, 5 apart. 2: centroid at column 1, (3·1 + 1·3) / 4.
    np.testing.assert_allclose(spatial_spread(images), [0.0, 2.5, 1.5, 0.0], atol=1e-12)


def test_spread_does_not_depend_on_place_sign_or_scale():
    generator = np.random.default_rng(0)
    images = np.zeros((2, 9, 9, 3))
    images[0, :4, :4] = generator.normal(size=(4, 4, 3))
    images[1, 5:, 3:7] = -2.5 * images[0, :4, :4]
    first, second = spatial_spread(images)
    assert first == pytest.approx(second, rel=1e-12)


def test_window_share_of_hand_computed_masses():
    images = np.zeros((3, 4, 5, 1))
    images[0, 0, 0], images[0, 1, 1], images[0, 3, 4] = 1.0, -2.0, 1.0
    images[1] = 1.0
    images[2, 3, 4] = -5.0
    np.testing.assert_allclose(window_share(images, 1), [0.5, 1 / 20, 1.0])
    np.testing.assert_allclose(window_share(images, 2), [0.75, 4 / 20, 1.0])
    np.testing.assert_allclose(window_share(images, 4), [0.75, 16 / 20, 1.0])


def test_window_share_agrees_with_a_loop():
    images = np.random.default_rng(0).normal(size=(6, 7, 8, 3))
    mass = np.abs(images).sum(-1)
    for window in (1, 3, 7):
        best = np.zeros(6)
        for i in range(7 - window + 1):
            for j in range(8 - window + 1):
                best = np.maximum(best, mass[:, i : i + window, j : j + window].sum((1, 2)))
        np.testing.assert_allclose(window_share(images, window), best / mass.sum((1, 2)))


def test_an_empty_image_has_no_number():
    assert np.isnan(spatial_spread(np.zeros((1, 3, 3, 1)))).all()
    assert np.isnan(window_share(np.zeros((1, 3, 3, 1)), 2)).all()


def _local_kernel(units=40, side=12, size=3, channels=2, seed=0):
    generator = np.random.default_rng(seed)
    images = np.zeros((units, side, side, channels))
    for image in images:
        row, col = generator.integers(0, side - size + 1, 2)
        image[row : row + size, col : col + size] = generator.normal(size=(size, size, channels))
    return images.reshape(units, -1).T


def test_local_units_stand_out_and_shuffled_ones_do_not():
    kernel = _local_kernel()
    found = locality(kernel, (12, 12, 2), window=3, min_nonzeros=1)
    assert found.num_units == 40
    assert found.window_share == pytest.approx(1.0)
    assert found.spread < 1.3 < 3 < found.permuted_spread
    assert found.spread_ratio < 0.4
    assert found.window_share_ratio > 2
    assert found.spread_z < -10 < 10 < found.window_share_z

    order = np.random.default_rng(5).permutation(144)
    shuffled = kernel.reshape(144, 2, 40)[order].reshape(288, 40)
    found = locality(shuffled, (12, 12, 2), window=3, min_nonzeros=1)
    assert found.spread_ratio == pytest.approx(1, abs=0.1)
    assert found.window_share_ratio == pytest.approx(1, abs=0.15)
    assert abs(found.spread_z) < 5
    assert abs(found.window_share_z) < 5


def test_same_seed_same_numbers():
    kernel = _local_kernel()
    options = {"window": 3, "min_nonzeros": 1, "max_units": 10}
    first = locality(kernel, (12, 12, 2), seed=1, **options)
    assert first == locality(kernel, (12, 12, 2), seed=1, **options)
    assert first != locality(kernel, (12, 12, 2), seed=2, **options)
    assert first.num_units == 10


def test_units_with_few_weights_are_left_out():
    kernel = np.zeros((36, 3))
    kernel[:5, 0] = 1.0
    kernel[:4, 1] = 1.0
    found = locality(kernel, (6, 6, 1), window=2, min_nonzeros=5)
    assert found.num_units == 1
    # Five weights in one row: distances 2, 1, 0, 1, 2.
    assert found.spread == pytest.approx(6 / 5)
    assert found.window_share == pytest.approx(2 / 5)
    empty = locality(kernel, (6, 6, 1), window=2, min_nonzeros=6)
    assert empty.num_units == 0
    assert np.isnan(empty.spread)
    assert np.isnan(empty.window_share_ratio)


def test_no_permutation_matters_to_units_of_one_weight():
    kernel = np.zeros((36, 3))
    kernel[[0, 7, 20], [0, 1, 2]] = 2.0
    found = locality(kernel, (6, 6, 1), window=2, min_nonzeros=1)
    assert (found.spread, found.permuted_spread, found.spread_ratio) == (0, 0, 1)
    assert (found.window_share, found.permuted_window_share, found.window_share_ratio) == (1, 1, 1)
    assert np.isnan([found.spread_z, found.window_share_z]).all()


def test_conv_local_and_dense_forms_of_one_filter_agree():
    weights = np.random.default_rng(3).normal(size=(3, 3, 2))
    conv = weights[..., None]
    local = np.broadcast_to(weights[..., None], (8, 8, 3, 3, 2, 1)).copy()
    image = np.zeros((10, 10, 2))
    image[4:7, 2:5] = weights
    options = {"window": 2, "min_nonzeros": 1}
    shape = (10, 10, 2)
    found = [
        locality(conv, shape, **options),
        locality(local, shape, padding="valid", **options),
        locality(image.reshape(-1, 1), shape, **options),
    ]
    for other in found[1:]:
        assert other.spread == pytest.approx(found[0].spread)
        assert other.window_share == pytest.approx(found[0].window_share)
    # Nine weights thrown onto 100 pixels lie about 5 apart.
    assert all(f.permuted_spread > 2 * f.spread for f in found)


def test_layers_of_models_are_measured_where_their_inputs_lie():
    inputs = keras.Input((8, 8, 3))
    x = LocallyConnected2D(2, 3, strides=2, padding="same", name="local")(inputs)
    outputs = keras.layers.Dense(5, name="fc")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    first = layer_locality(model, window=3, min_nonzeros=1)
    assert first.num_units == 4 * 4 * 2
    assert first.window_share == pytest.approx(1)
    second = layer_locality(model, "fc", (4, 4, 2), window=3, min_nonzeros=1)
    assert second.num_units == 5
    assert second.window_share < 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 13}, "`window` must lie between 1 and the image's shorter side, 12"),
        ({"window": 0}, "`window`.*Received: window=0"),
        ({"min_nonzeros": 0}, "min_nonzeros=0"),
        ({"num_permutations": 1}, "num_permutations=1"),
        ({"max_units": 0}, "max_units=0"),
        ({"input_shape": (12, 11, 2)}, "do not fit.*12, 11, 2"),
    ],
)
def test_bad_arguments(change, message):
    options = {"input_shape": (12, 12, 2), "window": 3} | change
    with pytest.raises(ValueError, match=message):
        locality(_local_kernel(), **options)


def test_bad_layers():
    inputs = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(2, 3, dilation_rate=2, name="holes")(inputs)
    model = keras.Model(inputs, conv)
    with pytest.raises(ValueError, match="one of the layers with a kernel, \\['holes'\\]"):
        layer_locality(model, "conv1")
    with pytest.raises(ValueError, match="neither dilated nor grouped"):
        layer_locality(model, "holes", window=3)
    with pytest.raises(ValueError, match="no layer with a kernel"):
        layer_locality(keras.Model(inputs, keras.layers.ReLU()(inputs)))
    with pytest.raises(ValueError, match="four axes"):
        spatial_spread(np.zeros((3, 3)))
