import dataclasses

import keras
import numpy as np
import oracles
import pytest

from tfconvbias.embedding import conv_to_dense, conv_to_local, kernels, orbit_sums
from tfconvbias.graph import conv_geometry

CASES = [
    # input shape (channels last), kernel size, in, out, options
    ((7,), (3,), {"strides": 2, "padding": "causal"}),
    ((6,), (4,), {"padding": "same", "dilation_rate": 2}),
    ((5, 4), (2, 3), {"padding": "same"}),
    ((6, 5), (3, 2), {"strides": (2, 3), "padding": "same", "groups": 2}),
    ((7, 6), (3, 2), {"dilation_rate": (2, 3), "padding": "same"}),
    ((5, 4), (3, 3), {"groups": 4}),
    ((3, 3), (5, 5), {"padding": "same"}),
    ((4, 4), (4, 4), {"strides": 2, "padding": ((2, 2), (1, 0))}),
    ((3, 4, 3), (2, 2, 3), {"strides": (1, 2, 1), "padding": "same"}),
]
IN, OUT = 4, 8
FORMATS = ["channels_last", "channels_first"]


def _volume_shape(spatial, channels, data_format):
    return (*spatial, channels) if data_format == "channels_last" else (channels, *spatial)


def _flat(volume, data_format):
    if data_format == "channels_first":
        volume = np.moveaxis(volume, -1, 1)
    return volume.reshape(len(volume), -1)


def _oracle(options, rank):
    def each(value):
        return (value,) * rank if isinstance(value, int) else tuple(value)

    return {
        "strides": each(options.get("strides", 1)),
        "padding": options.get("padding", "valid"),
        "dilation_rate": each(options.get("dilation_rate", 1)),
        "groups": options.get("groups", 1),
    }


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("spatial", "size", "options"), CASES, ids=str)
def test_equals_convolution(spatial, size, options, data_format):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *spatial, IN))
    kernel = rng.normal(size=(*size, IN // options.get("groups", 1), OUT))
    shape = _volume_shape(spatial, IN, data_format)
    expected = oracles.conv(x, kernel, None, **_oracle(options, len(spatial)))

    matrix = conv_to_dense(kernel, shape, data_format=data_format, **options)
    got = _flat(x, data_format) @ matrix
    np.testing.assert_allclose(got, _flat(expected, data_format), rtol=0, atol=1e-12)

    local = conv_to_local(kernel, shape, data_format=data_format, **options)
    got = oracles.local(x, local, None, **_oracle(options, len(spatial)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("spatial", "size", "options"), CASES[:5], ids=str)
def test_equals_identity_pushed_through_the_convolution(spatial, size, options):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*size, IN // options.get("groups", 1), OUT))
    num_inputs = int(np.prod(spatial)) * IN
    identity = np.eye(num_inputs).reshape(num_inputs, *spatial, IN)
    expected = oracles.conv(identity, kernel, None, **_oracle(options, len(spatial)))
    matrix = conv_to_dense(kernel, (*spatial, IN), **options)
    np.testing.assert_array_equal(matrix, expected.reshape(num_inputs, -1))


def test_depthwise_kernel_is_a_grouped_one():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, IN, 2))
    x = rng.normal(size=(2, 5, 4, IN))
    matrix = conv_to_dense(kernel, (5, 4, IN), padding="same", kind="depthwise")
    expected = np.zeros((2, 5, 4, IN * 2))
    for channel in range(IN):
        expected[..., 2 * channel : 2 * channel + 2] = oracles.conv(
            x[..., channel : channel + 1],
            kernel[:, :, channel : channel + 1],
            None,
            (1, 1),
            "same",
            (1, 1),
        )
    np.testing.assert_allclose(x.reshape(2, -1) @ matrix, expected.reshape(2, -1), atol=1e-12)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2, "padding": "same"},
        {"strides": (3, 2), "padding": "valid"},
        {"padding": "same", "dilation_rate": (2, 1)},
        {"strides": 2, "padding": "same", "output_padding": 1},
        {"strides": (2, 3), "padding": "valid", "output_padding": (1, 0)},
    ],
    ids=str,
)
def test_transposed_equals_the_keras_layer(options, data_format):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 2, 2, IN)).astype("float32")
    layer = keras.layers.Conv2DTranspose(
        2, (3, 2), use_bias=False, data_format="channels_last", **options
    )
    x = rng.normal(size=(2, 4, 3, IN)).astype("float32")
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    expected = keras.ops.convert_to_numpy(layer(x))
    shape = _volume_shape((4, 3), IN, data_format)
    matrix = conv_to_dense(kernel, shape, kind="transposed", data_format=data_format, **options)
    got = _flat(x, data_format) @ matrix
    np.testing.assert_allclose(got, _flat(expected, data_format), atol=1e-5)


def _geometries():
    for data_format in FORMATS:
        for spatial, size, options in CASES:
            shape = _volume_shape(spatial, IN, data_format)
            kernel_shape = (*size, IN // options.get("groups", 1), OUT)
            yield conv_geometry(shape, kernel_shape, data_format=data_format, **options)
        shape = _volume_shape((5, 4), IN, data_format)
        yield conv_geometry(
            shape, (3, 3, IN, 2), padding="same", data_format=data_format, kind="depthwise"
        )
        yield conv_geometry(
            shape,
            (3, 2, 3, IN),
            2,
            padding="same",
            data_format=data_format,
            kind="transposed",
        )


def _live_taps(geometry):
    """Mask over the conv kernel: taps that meet an input somewhere."""
    live = (geometry.support().patches >= 0).any(axis=0)
    kernel = np.zeros(geometry.kernel_shape)
    kernel.reshape(len(live), -1)[live] = 1
    return kernel


@pytest.mark.parametrize("geometry", list(_geometries()), ids=str)
def test_projection_undoes_embedding_and_is_orthogonal(geometry):
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=geometry.kernel_shape)
    matrix = kernels.dense_from_conv(kernel, geometry)
    np.testing.assert_allclose(
        kernels.conv_from_dense(matrix, geometry), kernel * _live_taps(geometry), atol=1e-14
    )
    # The rest is orthogonal to every embedded kernel, and the three parts add up.
    any_matrix = rng.normal(size=geometry.matrix_shape)
    nearest = kernels.dense_from_conv(kernels.conv_from_dense(any_matrix, geometry), geometry)
    assert abs(np.sum((any_matrix - nearest) * matrix)) < 1e-9
    conv, broken, off_local = kernels.squared_norms(any_matrix, geometry)
    np.testing.assert_allclose(conv, np.sum(nearest**2), rtol=1e-12)
    np.testing.assert_allclose(conv + broken + off_local, np.sum(any_matrix**2), rtol=1e-12)
    ones = kernels.dense_from_conv(np.ones_like(kernel), geometry)
    np.testing.assert_allclose(off_local, np.sum(any_matrix[ones == 0] ** 2), rtol=1e-12)
    assert np.count_nonzero(ones) == geometry.support().size


@pytest.mark.parametrize("geometry", list(_geometries()), ids=str)
def test_deviation_of_an_embedded_float32_kernel_is_exactly_zero(geometry):
    kernel = np.random.default_rng(2).normal(size=geometry.kernel_shape).astype("float32")
    matrix = kernels.dense_from_conv(kernel, geometry)
    assert kernels.squared_norms(matrix, geometry)[1:] == (0.0, 0.0)


@pytest.mark.parametrize("geometry", list(_geometries()), ids=str)
def test_local_and_dense_agree(geometry):
    if geometry.kind == "transposed":
        with pytest.raises(ValueError, match="transposed convolution has no locally connected"):
            kernels.local_from_conv(np.zeros(geometry.kernel_shape), geometry)
        return
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=geometry.kernel_shape)
    local = kernels.local_from_conv(kernel, geometry)
    dense = kernels.dense_from_conv(kernel, geometry)
    np.testing.assert_array_equal(kernels.dense_from_local(local, geometry), dense)
    np.testing.assert_allclose(kernels.conv_from_local(local, geometry), kernel, rtol=1e-14)

    any_matrix = rng.normal(size=geometry.matrix_shape)
    inner = kernels.dense_from_local(kernels.local_from_dense(any_matrix, geometry), geometry)
    np.testing.assert_array_equal(inner[dense != 0], any_matrix[dense != 0])
    assert not inner[dense == 0].any()
    kernels.set_local_entries(any_matrix, geometry, 0.0)
    assert not any_matrix[dense != 0].any() and (any_matrix[dense == 0] != 0).all()


def test_orbit_sums_are_the_convolutions_gradient():
    rng = np.random.default_rng(4)
    geometry = conv_geometry((5, 4, 2), (3, 2, 2, 3), 2, padding="same")
    kernel = rng.normal(size=geometry.kernel_shape)
    weights = rng.normal(size=geometry.matrix_shape)

    def value(kernel):
        return float(np.sum(weights * kernels.dense_from_conv(kernel, geometry)))

    expected = oracles.finite_differences(value, kernel)
    np.testing.assert_allclose(orbit_sums(weights, geometry), expected, atol=1e-8)


def test_margin_rows_count_only_when_asked_for():
    geometry = conv_geometry((6, 6, 1), (3, 3, 1, 2))
    matrix = np.ones(geometry.matrix_shape)
    padded = dataclasses.replace(geometry, margin=((1, 1), (1, 1)))
    assert sum(kernels.squared_norms(matrix, padded)) == pytest.approx(16 * 32)
    assert sum(kernels.squared_norms(matrix, padded, include_padding=True)) == pytest.approx(
        36 * 32
    )


def test_bias_order():
    bias = np.arange(3.0)
    for data_format in FORMATS:
        shape = _volume_shape((2, 2), 1, data_format)
        geometry = conv_geometry(shape, (1, 1, 1, 3), data_format=data_format)
        volume = kernels.bias_to_positions(bias, geometry)
        flat = kernels.flatten_bias(volume, geometry)
        expected = np.tile(bias, 4) if data_format == "channels_last" else np.repeat(bias, 4)
        np.testing.assert_array_equal(flat, expected)
        np.testing.assert_array_equal(kernels.unflatten_bias(flat, geometry), volume)
