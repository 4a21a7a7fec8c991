"""Dense networks: units that nothing feeds and units that nobody reads go, exactly."""

import keras
import numpy as np
import pytest
from keras import layers
from random_models import outputs_of

from tfconvbias.models import SConv
from tfconvbias.surgery import compact

# JAX computes in float32 unless told otherwise at its start, PyTorch's BatchNormalization always.
DTYPE = "float32" if keras.config.backend() == "jax" else "float64"
TOLERANCE = {"tensorflow": 1e-12, "jax": 1e-5, "torch": 1e-6}[keras.config.backend()]
FED, READ, UNFED = [0, 3, 4, 7], [1, 3, 4, 6, 7], [1, 2, 5, 6]


def dense_network(normalize=True, dropout=0.3, activation="relu"):
    """An S-FC in small, with a wider first layer, in float64 where the backend has it."""
    parts = [keras.Input((4, 4, 2)), layers.Flatten(dtype=DTYPE)]
    for number, units in enumerate((8, 6)):
        parts.append(layers.Dense(units, use_bias=not normalize, name=f"fc{number}", dtype=DTYPE))
        if normalize:
            parts.append(layers.BatchNormalization(name=f"bn{number}", dtype=DTYPE))
        parts.append(layers.Activation(activation, dtype=DTYPE))
        if dropout:
            parts.append(layers.Dropout(dropout, dtype=DTYPE))
    return keras.Sequential([*parts, layers.Dense(3, name="logits", dtype=DTYPE)])


def fill(model, seed=0):
    """Random weights; four units of the first layer read nothing, three are read by nobody."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        weights = [rng.normal(size=w.shape) for w in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            weights[-1] = np.abs(weights[-1]) + 0.5
        if layer.name == "fc0":
            weights[0][:, UNFED] = 0
        if layer.name == "fc1":
            weights[0][[unit for unit in range(8) if unit not in READ]] = 0
        if weights:
            layer.set_weights(weights)
    return model


def assert_same_outputs(model, smaller, shape=(4, 4, 2)):
    images = np.random.default_rng(9).normal(size=(5, *shape)).astype(DTYPE)
    for before, after in zip(outputs_of(model, images), outputs_of(smaller, images), strict=True):
        scale = np.abs(before).max()
        np.testing.assert_allclose(after, before, rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("normalize", [True, False])
def test_units_without_inputs_become_biases_and_units_without_readers_go(normalize, activation):
    model = fill(dense_network(normalize, activation=activation))
    smaller = compact(model)
    # By hand: of the units that read something, those that somebody reads.
    assert smaller.get_layer("fc0").units == len(set(FED) & set(READ))
    assert smaller.get_layer("fc1").use_bias
    assert_same_outputs(model, smaller)


def test_what_only_leads_to_such_units_goes_too():
    model = fill(dense_network())
    last = model.get_layer("logits")
    kernel, bias = last.get_weights()
    kernel[1:] = 0
    last.set_weights([kernel, bias])
    read = model.get_layer("fc1").get_weights()[0][:, 0] != 0
    middle = model.get_layer("fc1")
    kernel = middle.get_weights()[0]
    kernel[4, 0] = 0
    read[4] = False
    middle.set_weights([kernel])
    smaller = compact(model)
    assert smaller.get_layer("fc1").units == 1
    assert smaller.get_layer("fc0").units == len(set(FED) & set(np.flatnonzero(read)))
    assert_same_outputs(model, smaller)


def test_a_constant_runs_through_several_layers():
    """A unit of the second layer that reads constant units only is constant itself."""
    model = fill(dense_network())
    middle = model.get_layer("fc1")
    kernel = middle.get_weights()[0]
    kernel[FED, 2] = 0
    middle.set_weights([kernel])
    smaller = compact(model)
    assert smaller.get_layer("fc1").units == 5
    assert_same_outputs(model, smaller)


def test_nested_dense_networks():
    inner = fill(dense_network())
    inputs = keras.Input((4, 4, 2))
    outputs = layers.Dense(2, name="head", dtype=DTYPE)(layers.ReLU(dtype=DTYPE)(inner(inputs)))
    model = keras.Model(inputs, outputs)
    smaller = compact(model)
    assert [layer.units for layer in smaller.layers if isinstance(layer, layers.Dense)] == [
        len(set(FED) & set(READ)), 6, 3, 2,
    ]  # fmt: skip
    assert_same_outputs(model, smaller)


def test_s_fc_of_the_zoo():
    model = SConv(1, connectivity="dense", input_shape=(6, 6, 3), classes=4, dropout_rate=0.2)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        weights = [rng.normal(size=w.shape) for w in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            weights[-1] = np.abs(weights[-1]) + 0.5
        if layer.name == "conv1":
            weights[0][:, :4] = 0
        if weights:
            layer.set_weights(weights)
    smaller = compact(model)
    assert smaller.get_layer("conv1").units == 5
    images = rng.normal(size=(5, 6, 6, 3)).astype("float32")
    (before,), (after,) = outputs_of(model, images), outputs_of(smaller, images)
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())
