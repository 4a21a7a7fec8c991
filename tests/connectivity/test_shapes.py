import doctest
import importlib
import itertools
import subprocess
import sys

import keras
import oracles
import pytest

import tfconvbias
from tfconvbias.connectivity import conv_output_shape, explicit_padding

GRID = [
    (n, k, s, padding, d)
    for n, k, s, padding, d in itertools.product(
        (5, 6, 7, 9), (1, 2, 3, 4), (1, 2, 3), ("valid", "same", "causal"), (1, 2)
    )
    if d * (k - 1) < n
]


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_padding_and_shape_follow_the_definition(padding):
    for n, k, s, pad, d in GRID:
        if pad == padding:
            before, after, out = oracles.pad_amounts(n, k, s, pad, d)
            assert explicit_padding((n,), k, s, pad, d) == ((before, after),), (n, k, s, d)
            assert conv_output_shape((n,), k, s, pad, d) == (out,), (n, k, s, d)


def test_shape_equals_keras():
    for n, k, s, padding, d in GRID:
        if s > 1 and d > 1:
            continue
        layer = keras.layers.Conv1D(2, k, strides=s, padding=padding, dilation_rate=d)
        expected = layer.compute_output_shape((None, n, 3))[1:-1]
        assert conv_output_shape((n,), k, s, padding, d) == expected, (n, k, s, padding, d)


def test_axes_are_independent():
    assert conv_output_shape((10, 7, 5), (3, 2, 1), (2, 1, 3), "same") == (5, 7, 2)
    assert explicit_padding((10, 7, 5), (3, 2, 1), (2, 1, 3), "same") == ((0, 1), (0, 1), (0, 0))


def test_pairs_are_taken_as_they_are():
    pairs = ((2, 2), (1, 0))
    assert explicit_padding((32, 8), (4, 2), (2, 1), pairs) == pairs
    assert conv_output_shape((32, 8), (4, 2), (2, 1), pairs) == (17, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": (3, 0)}, r"kernel_size.*Received: kernel_size=\(3, 0\)"),
        ({"kernel_size": (3,)}, r"Received: kernel_size=\(3,\)"),
        ({"kernel_size": 2.5}, r"Received: kernel_size=2.5"),
        ({"kernel_size": 3, "strides": -1}, r"Received: strides=-1"),
        ({"kernel_size": 3, "dilation_rate": 0}, r"Received: dilation_rate=0"),
        ({"kernel_size": 3, "padding": "full"}, r"Received: padding=full"),
        ({"kernel_size": 3, "padding": ((1, 1),)}, r"2 pairs.*Received: padding="),
        ({"kernel_size": 3, "padding": ((1, 1), (-1, 0))}, r"Received: padding=\(-1, 0\)"),
        ({"kernel_size": 9}, r"output would be empty.*kernel_size=\(9, 9\)"),
        ({"kernel_size": 3, "spatial_shape": (8, 0)}, r"Received: spatial_shape=\(8, 0\)"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        conv_output_shape(**{"spatial_shape": (8, 8), **arguments})


def test_the_floor_needs_numpy_only():
    # An empty stand-in for the package keeps its other floors from being imported.
    code = f"""
import sys, types
package = types.ModuleType("tfconvbias")
package.__path__ = {list(tfconvbias.__path__)!r}
sys.modules["tfconvbias"] = package
import tfconvbias.connectivity
heavy = {{"keras", "tensorflow", "jax", "torch", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("module", ["shapes", "patches", "support"])
def test_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"tfconvbias.connectivity.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
