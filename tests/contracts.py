"""Contracts that every object of a kind must keep. Import them in a test of one such object.

from contracts import check_layer

def test_contract():
    check_layer(MyLayer, {"units": 3}, input_shape=(8, 5), output_shape=(8, 3))
"""

import keras
import numpy as np

# Rounding of the compute dtypes, as the largest error relative to the largest output.
_ROUNDING = {"mixed_float16": 1e-2, "mixed_bfloat16": 6e-2}

# The values of `jit_compile` to train with. Without it JAX runs each operation by itself, and with
# it PyTorch calls the machine's C++ compiler: both take half a minute for the smallest model.
_JIT_COMPILE = {"tensorflow": (True, False), "jax": (True,), "torch": (False,)}


def to_numpy(tensor):
    """The value of a tensor of any backend and dtype, as float32 when it is a float."""
    if "float" in keras.backend.standardize_dtype(tensor.dtype):
        tensor = keras.ops.cast(tensor, "float32")
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def check_layer(
    layer_class,
    arguments,
    input_shape,
    output_shape,
    num_weights=None,
    num_trainable=None,
    has_fixed_shape=True,
    input_dtype="float32",
    precisions=tuple(_ROUNDING),
    tmp_path=None,
    tolerance=1e-5,
):
    """Checks all that Keras and this package expect of a layer.

    Args:
        layer_class: The layer's class.
        arguments: Its keyword arguments.
        input_shape: Shape of the input, batch included.
        output_shape: Expected shape of the output, batch included.
        num_weights: Expected number of scalar weights; `None` leaves them unchecked.
        num_trainable: Expected number of trainable variables; `None` leaves them unchecked.
        has_fixed_shape: Whether the layer fixes all axes but the batch in `build`; it must then
            refuse an input whose other axes differ.
        input_dtype: Dtype of the input; random integers below 10 if it is an integer dtype.
        precisions: Mixed precisions to run; outputs must agree with float32.
        tmp_path: Folder for the saved models.
        tolerance: Largest error relative to the largest output, where equality is expected.
    """
    inputs = _random_inputs(input_shape, input_dtype)
    layer = layer_class(**arguments)
    outputs = _check_shapes(layer, inputs, output_shape)
    if num_weights is not None:
        assert layer.count_params() == num_weights
    if num_trainable is not None:
        assert len(layer.trainable_variables) == num_trainable
    _check_config(layer_class, layer, inputs, outputs, tolerance)
    _check_batches(layer, inputs, outputs, tolerance)
    if has_fixed_shape:
        _check_other_shape_is_refused(layer, inputs)
    for precision in precisions:
        _check_precision(layer_class, layer, arguments, inputs, outputs, precision)
    _check_reload(layer_class, arguments, inputs, tmp_path, tolerance)
    for jit in _JIT_COMPILE[keras.config.backend()]:
        _check_training(layer_class, arguments, inputs, output_shape, jit)


def _random_inputs(shape, dtype):
    rng = np.random.default_rng(7)
    if "int" in dtype:
        return rng.integers(0, 10, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def _assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert np.all(np.isfinite(actual))
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * max(1e-30, np.abs(expected).max())
    )


def _check_shapes(layer, inputs, output_shape):
    outputs = layer(inputs)
    assert tuple(outputs.shape) == output_shape
    assert tuple(layer.compute_output_shape(inputs.shape)) == output_shape
    unknown = (None, *inputs.shape[1:])
    assert tuple(layer.compute_output_shape(unknown)) == (None, *output_shape[1:])
    symbolic = layer(keras.KerasTensor(unknown, dtype=str(inputs.dtype)))
    assert tuple(symbolic.shape) == (None, *output_shape[1:])
    assert keras.backend.standardize_dtype(symbolic.dtype) == keras.backend.standardize_dtype(
        outputs.dtype
    )
    return to_numpy(outputs)


def _check_config(layer_class, layer, inputs, outputs, tolerance):
    config = layer.get_config()
    clone = layer_class.from_config(config)
    assert clone.get_config() == config
    registered = keras.saving.get_registered_name(layer_class)
    assert registered.startswith("tfconvbias>")
    serialized = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is layer_class
    for copy in (clone, again):
        if not copy.built:
            copy.build(inputs.shape)
        copy.set_weights(layer.get_weights())
        _assert_close(to_numpy(copy(inputs)), outputs, tolerance)


def _check_batches(layer, inputs, outputs, tolerance):
    """One graph serves every batch size, and examples do not see each other."""
    symbol = keras.Input(batch_shape=(None, *inputs.shape[1:]), dtype=str(inputs.dtype))
    model = keras.Model(symbol, layer(symbol))
    for count in (1, len(inputs)):
        predicted = model.predict(inputs[:count], verbose=0)
        _assert_close(predicted, outputs[:count], tolerance)
    twice = model.predict(inputs, batch_size=max(1, len(inputs) - 1), verbose=0)
    _assert_close(twice, outputs, tolerance)


def _check_other_shape_is_refused(layer, inputs):
    for axis in range(1, inputs.ndim):
        shape = list(inputs.shape)
        shape[axis] += 1
        try:
            layer(np.zeros(shape, inputs.dtype))
        except ValueError as error:
            assert "shape" in str(error)
        else:
            raise AssertionError(f"{layer} took an input of shape {shape}")


def _check_precision(layer_class, layer, arguments, inputs, outputs, precision):
    mixed = layer_class(**arguments, dtype=precision)
    mixed.build(inputs.shape)
    mixed.set_weights(layer.get_weights())
    result = mixed(inputs)
    assert keras.backend.standardize_dtype(result.dtype) == precision.removeprefix("mixed_")
    for variable in mixed.trainable_variables:
        assert keras.backend.standardize_dtype(variable.dtype) == "float32"
    _assert_close(to_numpy(result), outputs, _ROUNDING[precision])


def _check_reload(layer_class, arguments, inputs, tmp_path, tolerance):
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))])
    model.add(layer_class(**arguments))
    expected = model.predict(inputs, verbose=0)
    path = tmp_path / f"{layer_class.__name__}.keras"
    model.save(path)
    # The registration alone must be enough: no custom_objects.
    loaded = keras.saving.load_model(path)
    _assert_close(loaded.predict(inputs, verbose=0), expected, tolerance)
    for old, new in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(old), to_numpy(new))


def _check_training(layer_class, arguments, inputs, output_shape, jit_compile):
    """Compiled steps move every trainable variable and lower the loss."""
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))])
    model.add(layer_class(**arguments))
    before = [to_numpy(variable) for variable in model.trainable_variables]
    target = np.random.default_rng(8).normal(size=output_shape).astype("float32")
    model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=jit_compile)
    losses = model.fit(inputs, target, batch_size=len(inputs), epochs=4, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.any(to_numpy(variable) != old), variable.path
    if before:
        assert losses[-1] < losses[0]
