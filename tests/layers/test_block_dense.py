"""`BlockDense` against a dense layer with the same kernel, zeros included."""

import keras
import numpy as np
import pytest
from contracts import check_layer

from tfconvbias.layers import BlockDense

DTYPE, TINY = ("float32", 1e-5) if keras.config.backend() == "jax" else ("float64", 1e-12)


def _kernel(seed=0):
    """Nine inputs, seven units: {0, 4} and {1, 2, 5} share inputs, 3 reads none, 6 reads all."""
    rng = np.random.default_rng(seed)
    kernel = np.zeros((9, 7))
    kernel[np.ix_([1, 2, 5], [0, 4])] = rng.normal(size=(3, 2))
    kernel[np.ix_([0, 8], [1, 2, 5])] = rng.normal(size=(2, 3))
    kernel[:, 6] = rng.normal(size=9)
    return kernel.astype(DTYPE)


BLOCKS = [[4, 0], [1, 2, 5], [3], [6]]


@pytest.mark.filterwarnings("ignore:Model doesn't support `jit_compile=True`")
@pytest.mark.parametrize(("num_rest", "rest_weights"), [(0, 0), (4, 4 + 2 * 4)])
def test_contract(tmp_path, num_rest, rest_weights):
    check_layer(
        BlockDense,
        {"units": 5, "num_blocks": 2, "block_inputs": 4, "block_units": 3, "num_rest": num_rest},
        input_shape=(4, 9),
        output_shape=(4, 5),
        num_weights=2 * 4 * 3 + 5 + 2 * 4 + 5 + rest_weights,
        num_trainable=3 if num_rest else 2,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize("rows", [None, [[1, 2, 5], [0, 3], [], [4, 0, 7, 2]]])
@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_equals_dense(rows, shape):
    """With rows given, some weights lie outside of them and go to the sparse product."""
    rng = np.random.default_rng(1)
    kernel, bias = _kernel(), rng.normal(size=7).astype(DTYPE)
    inputs = rng.normal(size=(*shape, 9)).astype(DTYPE)
    layer = BlockDense.from_kernel(kernel, BLOCKS, bias, rows, activation="relu")
    # By hand: input 8 of three units, and five inputs of the unit that reads all.
    assert layer.num_rest == (0 if rows is None else 3 + 5)
    expected = np.maximum(inputs @ kernel + bias, 0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(inputs)), expected, atol=TINY)
    np.testing.assert_array_equal(layer.dense_kernel(), kernel)


def test_one_block_skips_inputs_that_nobody_reads():
    kernel = _kernel()
    kernel[[3, 6, 7]] = 0
    layer = BlockDense.from_kernel(kernel, [range(7)])
    assert tuple(layer.kernel.shape) == (1, 6, 7)
    inputs = np.random.default_rng(2).normal(size=(4, 9)).astype(DTYPE)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(inputs)), inputs @ kernel, atol=TINY
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_blocks": 0}, "Received: num_blocks=0"),
        ({"num_rest": -1}, "Received: num_rest=-1"),
        ({"units": 7}, "units=7, num_blocks=2, block_units=3"),
    ],
)
def test_refused_arguments(changed, message):
    arguments = {"units": 5, "num_blocks": 2, "block_inputs": 4, "block_units": 3}
    with pytest.raises(ValueError, match=message):
        BlockDense(**{**arguments, **changed})


def test_units_in_no_block_are_refused():
    with pytest.raises(ValueError, match="exactly one"):
        BlockDense.from_kernel(_kernel(), BLOCKS[1:])
