"""`sparsify` computes what the model computes, and says what it chose and why."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from random_models import outputs_of

from tfconvbias.layers import BlockDense, SparseDense
from tfconvbias.surgery import dense_kinds, densify, sparsify

# JAX computes in float32 unless told otherwise at its start, PyTorch's BatchNormalization always.
DTYPE = "float32" if keras.config.backend() == "jax" else "float64"
TOLERANCE = {"tensorflow": 1e-12, "jax": 1e-5, "torch": 1e-6}[keras.config.backend()]
IMAGE = (8, 8, 2)


def local_kernel(rng, units=40, window=3):
    """Each unit reads some pixels of one window, and the last three any pixels."""
    kernel = np.zeros((*IMAGE, units))
    for unit in range(units):
        top, left = rng.integers(0, 9 - window, 2)
        part = rng.normal(size=(window, window, 2)) * (rng.random((window, window, 2)) < 0.7)
        kernel[top : top + window, left : left + window, :, unit] = part
    kernel[..., -3:] = rng.normal(size=(*IMAGE, 3)) * (rng.random((*IMAGE, 3)) < 0.1)
    return kernel.reshape(-1, units)


def network():
    """A dense network in which units 0 and 1 of the first layer read nothing."""
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input(IMAGE),
            layers.Flatten(dtype=DTYPE),
            layers.Dense(40, use_bias=False, name="first", dtype=DTYPE),
            layers.BatchNormalization(name="norm", dtype=DTYPE),
            layers.ReLU(dtype=DTYPE),
            layers.Dense(30, activation="relu", name="second", dtype=DTYPE),
            layers.Dense(3, name="logits", dtype=DTYPE),
        ]
    )
    for layer in model.layers:
        weights = [rng.normal(size=w.shape) for w in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            weights[-1] = np.abs(weights[-1]) + 0.5
        elif layer.name == "first":
            weights = [local_kernel(rng)]
            weights[0][:, :2] = 0
        elif layer.name == "second":
            # Every unit of the first layer is read by one of the second.
            read = rng.random(weights[0].shape) < 0.05
            read[np.arange(40), np.arange(40) % 30] = True
            weights[0] *= read
        if weights:
            layer.set_weights(weights)
    return model


@pytest.fixture(scope="module")
def model():
    return network()


def assert_same_outputs(model, other):
    images = np.random.default_rng(9).normal(size=(5, *IMAGE)).astype(DTYPE)
    for before, after in zip(outputs_of(model, images), outputs_of(other, images), strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=TOLERANCE * np.abs(before).max())


KINDS_OF_FIRST = [
    (("sparse",), SparseDense),
    (("block",), BlockDense),
    (("dense",), layers.Dense),
]


@pytest.mark.parametrize(("kinds", "expected"), KINDS_OF_FIRST)
@pytest.mark.parametrize("compact", [True, False])
def test_outputs_stay(model, kinds, expected, compact):
    small, report = sparsify(model, choose="smallest", kinds=kinds, compact=compact)
    assert type(small.get_layer("first")) is expected
    assert small.get_layer("first").units == (38 if compact else 40)
    assert [choice.name for choice in report.layers] == ["first", "second", "logits"]
    assert report.layers[2].chosen == "dense"
    assert_same_outputs(model, small)


def test_windows_with_a_sparse_rest(model, monkeypatch):
    """Weights of the units that are not local lie outside of the blocks and are kept."""
    monkeypatch.setattr(dense_kinds, "_best", lambda compared: (compared[-1], "for the test"))
    small, report = sparsify(model)
    first = small.get_layer("first")
    assert isinstance(first, BlockDense)
    assert first.num_rest > 0
    kernel = model.get_layer("first").get_weights()[0][:, 2:]
    np.testing.assert_array_equal(first.dense_kernel(), kernel)
    assert "3×3 windows" in report.layers[0].kind("block").detail
    assert_same_outputs(model, small)


def test_the_smallest_of_the_fastest_is_chosen(model, monkeypatch):
    def times(layers, num_inputs, num_examples):
        assert num_examples == 16
        # Dense, sparse, blocks alone, and where it pays blocks with a sparse product beside.
        found = (2.0, 1.05, 1.5, 1.0) if num_inputs == 128 else (1.0, 3.0, 2.0, 2.0)
        return dict(zip(layers, found, strict=False))

    monkeypatch.setattr(dense_kinds, "inference_ms", times)
    small, report = sparsify(model, batch_size=16)
    first, second, logits = report.layers
    assert (first.chosen, second.chosen, logits.chosen) == ("sparse", "dense", "dense")
    assert "smallest of those within a tenth" in first.reason
    assert "1.9 times as fast as dense" in first.reason
    assert second.reason == "no other kind is faster"
    assert "more than 50 %" in logits.reason
    assert isinstance(small.get_layer("first"), SparseDense)
    # By hand: values and inputs, where each of 38 units begins and the last one ends.
    itemsize = np.dtype(DTYPE).itemsize
    expected = first.num_nonzeros * (itemsize + 4) + 4 * (38 + 1)
    assert first.kind("sparse").num_bytes == expected
    printed = str(report)
    assert "128×38" in printed
    assert "2.000" in printed
    assert json.loads(report.to_json())["layers"][0]["chosen"] == "sparse"


def test_measured_times_stand_in_the_report(model):
    _, report = sparsify(model, batch_size=2)
    assert all(kind.ms > 0 for kind in report.layers[0].kinds)
    names = [kind.kind for kind in report.layers[0].kinds]
    assert names == ["dense", "sparse", "block", "block"]


def test_inputs_that_nobody_reads_are_left_out():
    rng = np.random.default_rng(3)
    kernel = np.zeros((200, 20))
    kernel[rng.choice(200, 30, replace=False)] = rng.normal(size=(30, 20))
    model = keras.Sequential([keras.Input((200,)), layers.Dense(20, name="fc", dtype=DTYPE)])
    model.get_layer("fc").set_weights([kernel, rng.normal(size=20)])
    small, report = sparsify(model, choose="smallest")
    assert tuple(small.get_layer("fc").kernel.shape) == (1, 30, 20)
    assert "30 inputs" in report.layers[0].reason
    inputs = rng.normal(size=(4, 200)).astype(DTYPE)
    (before,), (after,) = outputs_of(model, inputs), outputs_of(small, inputs)
    np.testing.assert_allclose(after, before, atol=TOLERANCE * np.abs(before).max())


def test_saved_and_loaded(model, tmp_path):
    small, report = sparsify(model, choose="smallest")
    small.save(tmp_path / "small.keras")
    assert_same_outputs(model, keras.saving.load_model(tmp_path / "small.keras"))
    assert report.num_bytes[1] < report.num_bytes[0] / 3


def test_densify_takes_it_back(model):
    for kinds in (("sparse",), ("block",)):
        small, _ = sparsify(model, choose="smallest", kinds=kinds)
        dense = densify(small)
        assert type(dense.get_layer("first")) is layers.Dense
        assert_same_outputs(model, dense)


class Other(layers.Dense):
    pass


def test_nested_shared_and_other_layers():
    """A nested network called twice, a convolution, dense layers on places and of other classes."""
    rng = np.random.default_rng(4)
    inner_inputs = keras.Input((6, 8))
    x = layers.Dense(9, name="fc", dtype=DTYPE)(inner_inputs)
    inner = keras.Model(inner_inputs, layers.Dense(8, name="back", dtype=DTYPE)(x), name="inner")
    inputs = keras.Input((6, 8))
    outputs = layers.Conv1D(8, 3, padding="same", name="conv", dtype=DTYPE)(inner(inner(inputs)))
    outputs = Other(4, name="fc", dtype=DTYPE)(outputs)
    model = keras.Model(inputs, outputs)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * (rng.random(weight.shape) < 0.2))
    small, report = sparsify(model, choose="smallest", kinds=("sparse",), compact=False)
    assert [(choice.name, choice.chosen) for choice in report.layers] == [
        ("fc", "sparse"), ("back", "sparse"), ("conv", "dense"), ("fc_1", "dense"),
    ]  # fmt: skip
    assert "Conv1D stays as it is" in report.layers[2].reason
    assert "Other" in report.layers[3].reason
    images = rng.normal(size=(3, 6, 8)).astype(DTYPE)
    (before,), (after,) = outputs_of(model, images), outputs_of(small, images)
    np.testing.assert_allclose(after, before, atol=TOLERANCE * np.abs(before).max())


def test_image_shapes_of_later_layers():
    rng = np.random.default_rng(5)
    model = keras.Sequential([keras.Input((128,)), layers.Dense(40, name="fc", dtype=DTYPE)])
    model.get_layer("fc").set_weights([local_kernel(rng), rng.normal(size=40)])
    options = {"choose": "smallest", "kinds": ("block",)}
    _, without = sparsify(model, **options)
    small, given = sparsify(model, **options, image_shapes={"fc": IMAGE})
    assert given.num_bytes[1] < without.num_bytes[1]
    assert "windows" in given.layers[0].reason
    inputs = rng.normal(size=(4, 128)).astype(DTYPE)
    (before,), (after,) = outputs_of(model, inputs), outputs_of(small, inputs)
    np.testing.assert_allclose(after, before, atol=TOLERANCE * np.abs(before).max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"choose": "best"}, "Received: choose='best'"),
        ({"kinds": ("csr",)}, "Received: kinds="),
        ({"max_density": 2}, "Received: max_density=2"),
        ({"image_shapes": {"first": (3, 3, 3)}}, "Received: \\(3, 3, 3\\)"),
        ({"image_shapes": {"none": (8, 8, 2)}}, "Received: \\['none'\\]"),
    ],
)
def test_refused_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        sparsify(model, **{"choose": "smallest", **arguments})
