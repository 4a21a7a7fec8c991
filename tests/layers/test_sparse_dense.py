"""`SparseDense` against a dense layer with the same kernel, zeros included."""

import sys

import keras
import numpy as np
import pytest
from contracts import check_layer, to_numpy
from keras import ops

from tfconvbias.layers import SparseDense, product_loops, sparse_call, sparse_products

# JAX computes in float32 unless told otherwise at its start.
DOUBLE, TINY = ("float32", 1e-5) if keras.config.backend() == "jax" else ("float64", 1e-12)


def _sparse_kernel(num_inputs=30, units=12, density=0.2, dtype="float32"):
    """Units with no, some and all inputs."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(num_inputs, units)) * (rng.random((num_inputs, units)) < density)
    kernel[:, 3] = 0
    kernel[:, 5] = rng.normal(size=num_inputs)
    kernel[:, -1] = 0
    return kernel.astype(dtype)


@pytest.fixture(params=["numba", "loops", "numpy", "gathered"])
def products(request, monkeypatch):
    """Every test with and without Numba's products, and with the operations used on a GPU."""
    if request.param == "gathered":
        monkeypatch.setattr(sparse_call, "_runs_on_processor", lambda: False)
    elif request.param == "numba":
        pytest.importorskip("numba")
        assert sparse_products.compiled_products() is not None
    else:
        # The loops that Numba compiles give the same numbers uncompiled.
        products = product_loops if request.param == "loops" else None
        monkeypatch.setattr(sparse_products, "compiled_products", lambda: products)


@pytest.mark.filterwarnings("ignore:Model doesn't support `jit_compile=True`")
@pytest.mark.parametrize("shape", [(4, 9), (4, 3, 9)])
def test_contract(tmp_path, shape):
    check_layer(
        SparseDense,
        {"units": 5, "num_nonzeros": 23, "activation": "tanh", "seed": 1},
        input_shape=shape,
        output_shape=(*shape[:-1], 5),
        num_weights=23 + 5 + 2 * 23,
        num_trainable=2,
        has_fixed_shape=len(shape) == 2,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize("dtype", sorted({"float32", DOUBLE}))
def test_equals_dense(products, dtype):
    kernel = _sparse_kernel(dtype=dtype)
    rng = np.random.default_rng(1)
    bias = rng.normal(size=12).astype(dtype)
    inputs = rng.normal(size=(7, 30)).astype(dtype)
    layer = SparseDense.from_kernel(kernel, bias, activation="relu")
    tolerance = 1e-5 if dtype == "float32" else TINY
    expected = np.maximum(inputs @ kernel + bias, 0)
    np.testing.assert_allclose(to_numpy(layer(inputs)), expected, atol=tolerance)
    many = to_numpy(layer(np.repeat(inputs, 3, axis=0)))
    np.testing.assert_allclose(many, np.repeat(expected, 3, axis=0), atol=tolerance)
    np.testing.assert_array_equal(layer.dense_kernel(), kernel)
    assert tuple(layer.kernel.shape) == (np.count_nonzero(kernel),)
    assert layer.compute_dtype == dtype


@pytest.mark.parametrize(("training", "batch"), [(True, 7), (True, 20), (False, 7), (False, 20)])
def test_gradients(products, training, batch):
    """By hand: d · kernelᵀ, and the entries of xᵀ · d where the kernel has weights."""
    kernel = _sparse_kernel(dtype=DOUBLE)
    rng = np.random.default_rng(2)
    inputs, upstream = (rng.normal(size=(batch, size)).astype(DOUBLE) for size in (30, 12))
    layer = SparseDense.from_kernel(kernel)
    of_inputs, of_values = _gradients(layer, inputs, upstream, training)
    np.testing.assert_allclose(of_inputs, upstream @ kernel.T, atol=TINY)
    np.testing.assert_allclose(of_values, (inputs.T @ upstream).T[kernel.T != 0], atol=TINY)


def _gradients(layer, inputs, upstream, training=True):
    """Gradients of `sum(layer(inputs) * upstream)`."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        inputs = tf.constant(inputs)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = ops.sum(layer(inputs, training=training) * upstream)
        found = tape.gradient(loss, [inputs, layer.kernel.value])
    elif backend == "jax":
        import jax

        rest = [variable.value for variable in layer.non_trainable_variables]

        def loss(inputs, values):
            outputs, _ = layer.stateless_call([values], rest, inputs, training=training)
            return ops.sum(outputs * upstream)

        found = jax.grad(loss, (0, 1))(ops.convert_to_tensor(inputs), layer.kernel.value)
    else:
        inputs = ops.convert_to_tensor(inputs).requires_grad_()
        ops.sum(layer(inputs, training=training) * ops.convert_to_tensor(upstream)).backward()
        found = [inputs.grad, layer.kernel.value.grad]
    return [ops.convert_to_numpy(part) for part in found]


def test_nan_reaches_outputs_and_gradients(products):
    kernel = _sparse_kernel()
    inputs = np.ones((2, 30), "float32")
    inputs[0, 4] = np.nan
    layer = SparseDense.from_kernel(kernel)
    outputs = to_numpy(layer(inputs))
    assert np.isnan(outputs[0]).any()
    assert np.isfinite(outputs[1]).all()
    _, of_values = _gradients(layer, inputs, np.ones((2, 12), "float32"))
    rows = ops.convert_to_numpy(layer.indices)[:, 1]
    np.testing.assert_array_equal(np.isnan(of_values), rows == 4)


def test_an_empty_kernel_gives_zeros():
    layer = SparseDense.from_kernel(np.zeros((4, 3), "float32"), np.array([1.0, 2, 3], "float32"))
    np.testing.assert_array_equal(to_numpy(layer(np.ones((2, 4), "float32"))), [[1, 2, 3]] * 2)


def test_large_products_are_shared_among_cores(products, monkeypatch):
    monkeypatch.setattr(sparse_products, "_SHARED_FROM", 1)
    monkeypatch.setattr(sparse_products, "num_cores", lambda: 3)
    kernel = _sparse_kernel(50, 41, 0.3, "float64")
    rng = np.random.default_rng(3)
    inputs, gradient = rng.normal(size=(50, 17)), rng.normal(size=(41, 17))
    units, rows = np.nonzero(kernel.T)
    starts = np.searchsorted(units, np.arange(42))
    values, rows = kernel[rows, units], rows.astype("int32")
    outputs = sparse_products.kernel_product(inputs, values, rows, starts)
    np.testing.assert_allclose(outputs, kernel.T @ inputs, atol=1e-12)
    back = sparse_products.input_gradient(gradient, values, rows, starts, 50)
    np.testing.assert_allclose(back, kernel @ gradient, atol=1e-12)
    found = sparse_products.weight_gradient(inputs, gradient, rows, starts)
    np.testing.assert_allclose(found, (inputs @ gradient.T)[rows, units], atol=1e-12)


def test_file_is_in_proportion_to_the_weights(tmp_path):
    kernel = np.zeros((1000, 500), "float32")
    places = np.random.default_rng(0).choice(kernel.size, 5000, replace=False)
    kernel.flat[places] = np.random.default_rng(1).normal(size=5000)
    sizes = []
    for layer in (keras.layers.Dense(500, use_bias=False), SparseDense.from_kernel(kernel)):
        model = keras.Sequential([keras.Input((1000,)), layer])
        model.save(tmp_path / "model.keras")
        sizes.append((tmp_path / "model.keras").stat().st_size)
    assert sizes[0] > 20 * sizes[1]
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[-1].dense_kernel(), kernel)


def test_new_layers_draw_their_inputs():
    layers = [SparseDense(4, 10, seed=seed) for seed in (0, 0, 1)]
    for layer in layers:
        layer.build((None, 6))
    supports = [layer.dense_kernel() != 0 for layer in layers]
    np.testing.assert_array_equal(supports[0], supports[1])
    assert (supports[0] != supports[2]).any()
    assert sorted(supports[0].sum(0)) == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0, "num_nonzeros": 3}, "Received: units=0"),
        ({"units": 2, "num_nonzeros": 0}, "Received: num_nonzeros=0"),
        ({"units": 2, "num_nonzeros": 1.5}, "Received: num_nonzeros=1.5"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseDense(**arguments)


def test_more_weights_than_places_are_refused():
    with pytest.raises(ValueError, match="num_nonzeros=9"):
        SparseDense(2, 9).build((None, 4))


@pytest.mark.tensorflow
def test_inference_is_exported(tmp_path):
    layer = SparseDense.from_kernel(_sparse_kernel())
    model = keras.Sequential([keras.Input((30,)), layer])
    inputs = np.ones((20, 30), "float32")
    model.export(tmp_path / "exported", verbose=False)
    artifact = sys.modules["tensorflow"].saved_model.load(str(tmp_path / "exported"))
    for few in (inputs, inputs[:2]):
        np.testing.assert_allclose(artifact.serve(few), few @ _sparse_kernel(), atol=1e-5)
