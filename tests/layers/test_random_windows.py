"""Locally connected layers of random sizes, strides, padding, dilation, groups and formats."""

import numpy as np
import oracles
import pytest
from contracts import to_numpy
from hypothesis import strategies as st
from random_cases import random_cases, windows

from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D

# On TensorFlow only: eager layers of ever new shapes are slow to compile elsewhere.
pytestmark = pytest.mark.tensorflow


def _check(layer_class, case, groups, data_format, use_bias):
    spatial, options = case
    layer = layer_class(
        2 * groups, **options, groups=groups, data_format=data_format, use_bias=use_bias,
        kernel_initializer="zeros",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *spatial, 3 * groups)).astype("float32")
    given = np.moveaxis(x, -1, 1) if data_format == "channels_first" else x
    layer.build(given.shape)
    weights = [rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()]
    layer.set_weights(weights)
    geometry = {name: options[name] for name in ("strides", "padding", "dilation_rate")}
    places = oracles.output_shape(spatial, options["kernel_size"], **geometry)
    assert weights[0].shape == (*places, *options["kernel_size"], 3, 2 * groups)
    kernel, bias = [*weights, None][:2]
    expected = oracles.local(x.astype("float64"), kernel, bias, **geometry, groups=groups)
    if data_format == "channels_first":
        expected = np.moveaxis(expected, -1, 1)
    assert layer.compute_output_shape(given.shape) == expected.shape
    np.testing.assert_allclose(to_numpy(layer(given)), expected, rtol=0, atol=1e-4)


_OTHERS = {
    "groups": st.integers(1, 2),
    "data_format": st.sampled_from(["channels_last", "channels_first"]),
    "use_bias": st.booleans(),
}


@random_cases(20, case=windows((1,), ("valid", "same", "causal"), longest=9), **_OTHERS)
def test_one_axis(case, **others):
    _check(LocallyConnected1D, case, **others)


@random_cases(15, case=windows((2,)), **_OTHERS)
def test_two_axes(case, **others):
    _check(LocallyConnected2D, case, **others)


@random_cases(10, case=windows((3,), longest=5), **_OTHERS)
def test_three_axes(case, **others):
    _check(LocallyConnected3D, case, **others)
