import keras
import numpy as np
import oracles
import pytest

from tfconvbias.connectivity import local_support, tap_counts

CASES = [
    {"spatial_shape": (7,), "kernel_size": (3,), "strides": (2,), "padding": "causal"},
    {"spatial_shape": (5, 4), "kernel_size": (2, 3), "padding": "same"},
    {
        "spatial_shape": (6, 5),
        "kernel_size": (3, 2),
        "strides": (2, 3),
        "padding": "same",
        "groups": 2,
    },
    {"spatial_shape": (7, 6), "kernel_size": (3, 2), "dilation_rate": (2, 3), "padding": "same"},
    {"spatial_shape": (5, 4), "kernel_size": (3, 3), "groups": 4},
    {"spatial_shape": (3, 4, 3), "kernel_size": (2, 2, 3), "strides": (1, 2, 1), "padding": "same"},
    {
        "spatial_shape": (4, 4),
        "kernel_size": (4, 4),
        "strides": (2, 2),
        "padding": ((2, 2), (1, 1)),
    },
]
IN, OUT = 4, 8


def _oracle_options(options):
    rank = len(options["spatial_shape"])
    one = (1,) * rank
    return {
        "strides": options.get("strides", one),
        "padding": options.get("padding", "valid"),
        "dilation_rate": options.get("dilation_rate", one),
        "groups": options.get("groups", 1),
    }


def _flatten(volume, data_format):
    if data_format == "channels_first":
        volume = np.moveaxis(volume, -1, 1)
    return volume.reshape(len(volume), -1)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_dense_matrix_equals_conv_and_local(options, data_format):
    rng = np.random.default_rng(1)
    rest = _oracle_options(options)
    x = rng.normal(size=(2, *options["spatial_shape"], IN))
    support = local_support(**options, in_channels=IN, filters=OUT, data_format=data_format)

    kernel = rng.normal(size=(*options["kernel_size"], IN // rest["groups"], OUT))
    expected = oracles.conv(x, kernel, None, **rest)
    matrix = np.zeros(support.matrix_shape)
    matrix[support.inputs, support.outputs] = kernel.ravel()[support.orbits]
    got = _flatten(x, data_format) @ matrix
    np.testing.assert_allclose(got, _flatten(expected, data_format), atol=1e-12)

    out_shape = expected.shape[1:-1]
    local_kernel = rng.normal(size=(*out_shape, *kernel.shape))
    matrix[support.inputs, support.outputs] = local_kernel.ravel()[support.local_entries]
    got = _flatten(x, data_format) @ matrix
    expected = oracles.local(x, local_kernel, None, **rest)
    np.testing.assert_allclose(got, _flatten(expected, data_format), atol=1e-12)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_connections_are_distinct_and_orbits_have_their_sizes(options):
    support = local_support(**options, in_channels=IN, filters=OUT)
    pairs = support.inputs * support.matrix_shape[1] + support.outputs
    assert len(np.unique(pairs)) == support.size == len(pairs)
    assert len(np.unique(support.local_entries)) == support.size
    spatial_options = {k: v for k, v in options.items() if k != "groups"}
    sizes = np.bincount(support.orbits, minlength=support.num_orbits)
    per_tap = sizes.reshape(*options["kernel_size"], -1)
    counts = tap_counts(**spatial_options)
    np.testing.assert_array_equal(per_tap, np.broadcast_to(counts[..., None], per_tap.shape))


def test_depthwise_is_the_case_of_as_many_groups_as_channels():
    x = np.random.default_rng(2).normal(size=(2, 5, 6, 3)).astype("float32")
    layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False)
    expected = keras.ops.convert_to_numpy(layer(x)).reshape(2, -1)
    support = local_support((5, 6), 3, 3, 6, padding="same", groups=3)
    matrix = np.zeros(support.matrix_shape, "float32")
    kernel = layer.get_weights()[0]
    matrix[support.inputs, support.outputs] = kernel.ravel()[support.orbits]
    np.testing.assert_allclose(x.reshape(2, -1) @ matrix, expected, atol=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("max_size", [1, 500, 10**9])
def test_blocks_cover_the_support_in_order(data_format, max_size):
    support = local_support((6, 5), (3, 2), 4, 6, padding="same", data_format=data_format)
    blocks = list(support.blocks(max_size))
    for name in ("inputs", "outputs", "orbits", "local_entries"):
        joined = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_array_equal(joined, getattr(support, name))
    assert sum(block.size for block in blocks) == support.size
    assert all(block.matrix_shape == support.matrix_shape for block in blocks)
    per_position = 3 * 2 * 4 * 6
    assert max(block.size for block in blocks) <= max(max_size, per_position)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "in_channels=4, filters=8, groups=3"),
        ({"groups": 0}, "Received: groups=0"),
        ({"filters": 0}, "Received: filters=0"),
        ({"in_channels": -1}, "Received: in_channels=-1"),
        ({"data_format": "NHWC"}, "Received: data_format=NHWC"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        local_support((5, 5), 3, **{"in_channels": 4, "filters": 8, **arguments})


def test_blocks_reject_a_size_below_one():
    with pytest.raises(ValueError, match="Received: max_size=0"):
        next(local_support((5,), 3, 1, 1).blocks(0))
