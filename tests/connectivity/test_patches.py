import itertools

import numpy as np
import oracles
import pytest

from tfconvbias.connectivity import (
    axis_indices,
    conv_output_shape,
    explicit_padding,
    patch_indices,
    tap_counts,
)

OPTIONS = [
    {"spatial_shape": (7,), "kernel_size": 3, "strides": 2, "padding": "causal"},
    {"spatial_shape": (6, 5), "kernel_size": (2, 3), "padding": "same"},
    {"spatial_shape": (8, 7), "kernel_size": (4, 3), "strides": (2, 3), "padding": "same"},
    {"spatial_shape": (9, 8), "kernel_size": (3, 2), "dilation_rate": (2, 3), "padding": "same"},
    {"spatial_shape": (9, 8), "kernel_size": 3, "strides": 2, "dilation_rate": 2},
    {"spatial_shape": (4, 5, 3), "kernel_size": (2, 3, 3), "strides": (1, 2, 1), "padding": "same"},
    {"spatial_shape": (5, 4), "kernel_size": 4, "strides": 2, "padding": ((2, 2), (1, 3))},
    {"spatial_shape": (2, 2), "kernel_size": 7, "padding": "same"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_patches_are_windows_of_the_padded_input(options):
    spatial = options["spatial_shape"]
    rank = len(spatial)
    rest = {k: options.get(k, 1) for k in ("kernel_size", "strides", "dilation_rate")}
    kernel, strides, dilation = (
        np.broadcast_to(rest[k], rank) for k in ("kernel_size", "strides", "dilation_rate")
    )
    padded = np.pad(
        np.arange(np.prod(spatial)).reshape(spatial),
        explicit_padding(**options),
        constant_values=-1,
    )
    out = conv_output_shape(**options)
    expected = [
        [
            padded[tuple(np.array(position) * strides + np.array(tap) * dilation)]
            for tap in itertools.product(*map(range, kernel))
        ]
        for position in itertools.product(*map(range, out))
    ]
    indices = patch_indices(**options)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(
        tap_counts(**options), (np.array(expected) >= 0).sum(axis=0).reshape(kernel)
    )
    assert [t.shape for t in axis_indices(**options)] == list(zip(out, kernel, strict=True))


def test_patches_give_the_convolution():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 6, 7, 3)), rng.normal(size=(3, 2, 3, 4))
    indices = patch_indices((6, 7), (3, 2), (2, 1), "same")
    rows = np.concatenate([x.reshape(2, 42, 3), np.zeros((2, 1, 3))], axis=1)
    got = rows[:, indices].reshape(2, len(indices), -1) @ w.reshape(-1, 4)
    expected = oracles.conv(x, w, None, (2, 1), "same", (1, 1))
    np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-12)
