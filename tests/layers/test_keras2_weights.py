"""Weight files of Keras 2: its three layouts, written by an oracle, and files of tf_keras."""

import itertools
import json
from pathlib import Path

import h5py
import keras
import numpy as np
import oracles
import pytest
from contracts import to_numpy

from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D, load_keras2_weights
from tfconvbias.layers.keras2_kernel import keras2_same_padding

# Files and NumPy: nothing of it differs by backend.
pytestmark = pytest.mark.tensorflow

LAYERS = {1: LocallyConnected1D, 2: LocallyConnected2D}
FORMATS = ["channels_last", "channels_first"]
CHANNELS, FILTERS = 2, 3
NO_DRAWS = {"kernel_initializer": "zeros"}

# Spatial shape, kernel size, strides. Keras 2 padded the last one of each rank as no convolution.
WINDOWS = [
    ((7,), (3,), (1,)),
    ((7,), (3,), (2,)),
    ((6,), (2,), (1,)),
    ((4, 5), (3, 3), (1, 1)),
    ((4, 5), (2, 3), (1, 2)),
]


class Keras2Layer:
    """A locally connected layer of Keras 2: random weights as it stored them, and its outputs.

    Written as loops over pairs of an output and an input unit, each with its one weight.
    """

    def __init__(self, window, padding, implementation, data_format, seed=0):
        rng = np.random.default_rng(seed)
        spatial, kernel_size, strides = window
        output = [
            -(-n // s) if padding == "same" else (n - k) // s + 1
            for n, k, s in zip(*window, strict=True)
        ]
        is_last = data_format == "channels_last"
        in_shape = (*spatial, CHANNELS) if is_last else (CHANNELS, *spatial)
        self.out_shape = (*output, FILTERS) if is_last else (FILTERS, *output)
        positions = list(itertools.product(*map(range, output)))
        taps = list(itertools.product(*map(range, kernel_size)))
        pairs = {}
        for (p, position), (t, tap) in itertools.product(enumerate(positions), enumerate(taps)):
            place = [
                o * s + offset - (k // 2 if padding == "same" else 0)
                for o, s, offset, k in zip(position, strides, tap, kernel_size, strict=True)
            ]
            if not all(0 <= at < n for at, n in zip(place, spatial, strict=True)):
                continue
            for c, f in itertools.product(range(CHANNELS), range(FILTERS)):
                source = (*place, c) if is_last else (c, *place)
                target = (*position, f) if is_last else (f, *position)
                feature = t * CHANNELS + c if is_last else c * len(taps) + t
                source = int(np.ravel_multi_index(source, in_shape))
                target = int(np.ravel_multi_index(target, self.out_shape))
                pairs[target, source] = (p, feature, f)
        shapes = {
            1: (len(positions), len(taps) * CHANNELS, FILTERS),
            2: (*in_shape, *self.out_shape),
            3: (len(pairs),),
        }
        self.kernel = rng.normal(size=shapes[implementation]).astype("float32")
        self.bias = rng.normal(size=(*output, FILTERS)).astype("float32")
        self.matrix = np.zeros((np.prod(in_shape), np.prod(self.out_shape)))
        dense = self.kernel.reshape(len(self.matrix), -1) if implementation == 2 else None
        for number, (target, source) in enumerate(sorted(pairs)):
            if implementation == 1:
                weight = self.kernel[pairs[target, source]]
            elif implementation == 2:
                weight = dense[source, target]
            else:
                weight = self.kernel[number]
            self.matrix[source, target] = weight
        self.inputs = rng.normal(size=(2, *in_shape)).astype("float32")

    def outputs(self):
        flat = self.inputs.reshape(2, -1) @ self.matrix
        # For channels_first too, Keras 2 read the bias in the order of the outputs' axes.
        return flat.reshape(2, *self.out_shape) + self.bias.reshape(self.out_shape)


def write(path, layers, config=None, version="2.15.0", backend="tensorflow"):
    """A legacy HDF5 file: `layers` maps a layer's name to its weights by name."""
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in layers]
        group.attrs["keras_version"], group.attrs["backend"] = version, backend
        for name, weights in layers.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in weights.items():
                layer[weight] = value
    return path


def local_file(path, old, **options):
    weights = {"local/kernel:0": old.kernel, "local/bias:0": old.bias}
    return write(path, {"input": {}, "local": weights}, **options)


def local_model(old, window, padding, data_format, zeros=None):
    _, kernel_size, strides = window
    options = {"strides": strides, "padding": padding, "data_format": data_format, **NO_DRAWS}
    model = keras.Sequential([keras.Input(old.inputs.shape[1:])])
    if zeros is not None and len(zeros) == 1:
        model.add(keras.layers.ZeroPadding1D(zeros[0], data_format=data_format))
    elif zeros is not None:
        model.add(keras.layers.ZeroPadding2D(zeros, data_format=data_format))
    model.add(LAYERS[len(kernel_size)](FILTERS, kernel_size, name="local", **options))
    return model


def outputs_of(model, inputs):
    """The outputs of the last layer, by the oracle, from its weights."""
    layer, is_last = model.layers[-1], model.layers[-1].data_format == "channels_last"
    for other in model.layers[:-1]:
        pads = np.array(other.padding).reshape(-1, 2)
        pads = [(0, 0), *pads, (0, 0)] if is_last else [(0, 0), (0, 0), *pads]
        inputs = np.pad(inputs, pads)
    inputs = inputs if is_last else np.moveaxis(inputs, 1, -1)
    kernel, bias = layer.get_weights()
    ones = (1,) * layer.rank
    outputs = oracles.local(inputs, kernel, bias, layer.strides, layer.padding, ones)
    return outputs if is_last else np.moveaxis(outputs, -1, 1)


CASES = [
    (window, padding, implementation, data_format)
    for window in WINDOWS
    for padding, implementation in [
        ("valid", 1),
        ("valid", 2),
        ("valid", 3),
        ("same", 2),
        ("same", 3),
    ]
    for data_format in FORMATS
]


@pytest.mark.parametrize(("window", "padding", "implementation", "data_format"), CASES, ids=str)
def test_all_layouts(window, padding, implementation, data_format, tmp_path):
    old = Keras2Layer(window, padding, implementation, data_format)
    path = local_file(tmp_path / "old.h5", old)
    model = local_model(old, window, padding, data_format)
    ours = oracles.pad_amounts
    pads = [ours(n, k, s, padding, 1)[:2] for n, k, s in zip(*window, strict=True)]
    befores = [before for before, _ in pads]
    if padding == "same" and befores != [k // 2 for k in window[1]]:
        with pytest.raises(ValueError, match=r"ZeroPadding[12]D\(\(.*before it"):
            load_keras2_weights(model, path)
        model = local_model(old, window, "valid", data_format, keras2_same_padding(*window))
    assert load_keras2_weights(model, path) == ["local"]
    found = outputs_of(model, old.inputs)
    np.testing.assert_allclose(found, old.outputs(), rtol=0, atol=1e-5)


GOLDEN = sorted((Path(__file__).parent / "keras2_files").glob("*.h5"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_files_of_tf_keras(path):
    with h5py.File(path) as file:
        inputs, expected = file.attrs["x"], file.attrs["y"]
        arguments = json.loads(file.attrs["arguments"])
    rank = inputs.ndim - 2
    model = keras.Sequential(
        [
            keras.Input(inputs.shape[1:]),
            LAYERS[rank](**arguments),
            keras.layers.Flatten(),
            keras.layers.Dense(expected.shape[-1]),
        ]
    )
    assert len(load_keras2_weights(model, path)) == 2
    np.testing.assert_allclose(to_numpy(model(inputs)), expected, rtol=0, atol=1e-5)


def test_there_are_such_files():
    assert len(GOLDEN) == 3


def test_other_layers_are_loaded_as_they_are(tmp_path):
    """Nested models are one group in the file, their moving averages last."""
    window = ((4, 4), (2, 2), (1, 1))
    old = Keras2Layer(window, "valid", 3, "channels_last")
    rng = np.random.default_rng(1)
    norm = {name: rng.random(CHANNELS) for name in ("gamma", "beta", "mean", "variance")}
    conv = {"conv/kernel:0": rng.random((1, 1, 2, 2)), "conv/bias:0": rng.random(2)}
    inner = {
        "norm/gamma:0": norm["gamma"],
        "norm/beta:0": norm["beta"],
        "local/kernel:0": old.kernel,
        "local/bias:0": old.bias,
        "norm/moving_mean:0": norm["mean"],
        "norm/moving_variance:0": norm["variance"],
    }
    path = write(tmp_path / "old.h5", {"conv": conv, "inner": inner, "flat": {}})
    block = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.BatchNormalization(),
            LocallyConnected2D(FILTERS, 2, **NO_DRAWS),
        ]
    )
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Conv2D(2, 1), block, keras.layers.Flatten()]
    )
    load_keras2_weights(model, path)
    for found, expected in zip(model.layers[0].get_weights(), conv.values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    normalization, local = block.layers
    for found, expected in zip(normalization.get_weights(), norm.values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    outputs = oracles.local(old.inputs, *local.get_weights(), (1, 1), "valid", (1, 1))
    np.testing.assert_allclose(outputs, old.outputs(), rtol=0, atol=1e-5)


WINDOW = ((4, 4), (2, 3), (1, 1))


def old_and_model(data_format="channels_last", window=WINDOW, implementation=1):
    old = Keras2Layer(WINDOW, "valid", implementation, data_format)
    return old, local_model(old, window, "valid", data_format)


def test_by_name(tmp_path):
    old, model = old_and_model()
    weights = {"a/kernel:0": old.kernel, "a/bias:0": old.bias}
    other = {"b/kernel:0": np.zeros(3)}
    path = write(tmp_path / "old.h5", {"b": other, "local": weights})
    assert load_keras2_weights(model, path, by_name=True) == ["local"]
    np.testing.assert_allclose(outputs_of(model, old.inputs), old.outputs(), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"1 layers with weights, old.h5 has 2.*\['b', 'local'\]"):
        load_keras2_weights(model, path)
    write(path, {"b": other})
    with pytest.raises(ValueError, match=r"No layer has the name.*\['local'\].*\['b'\]"):
        load_keras2_weights(model, path, by_name=True)


def test_long_lists_of_names_are_split(tmp_path):
    old, model = old_and_model()
    path = local_file(tmp_path / "old.h5", old)
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"input"], [b"local"]
    assert load_keras2_weights(model, path) == ["local"]
    assert model.layers[-1].get_weights()[0].any()


def config_of(kernel_size, data_format="channels_last"):
    local = {"name": "local", "kernel_size": kernel_size, "strides": [1, 1]}
    layer = {"class_name": "LocallyConnected2D", "config": {**local, "data_format": data_format}}
    return {"class_name": "Sequential", "config": {"layers": [layer]}}


def test_a_kernel_whose_shape_fits_by_chance_is_refused(tmp_path):
    old, model = old_and_model(window=((4, 4), (3, 2), (1, 1)))
    path = local_file(tmp_path / "old.h5", old, config=config_of([2, 3]))
    with pytest.raises(ValueError, match=r"kernel_size=\(3, 2\).*has kernel_size=\[2, 3\]"):
        load_keras2_weights(model, path)
    old, model = old_and_model()
    local_file(path, old, config=config_of([2, 3], "channels_first"))
    with pytest.raises(ValueError, match=r"data_format=channels_last.*=channels_first"):
        load_keras2_weights(model, path)
    local_file(path, old, config=config_of([2, 3]))
    assert load_keras2_weights(model, path) == ["local"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel:0": np.zeros((5, 12, 3))}, r"expected one of \(6, 12, 3\).*Received: shape=\(5,"),
        ({"kernel:0": np.zeros(7)}, r"\(216,\) \(implementations 1, 2 and 3\).*shape=\(7,\)"),
        ({"bias:0": np.zeros((2, 3))}, r"'local/bias:0' of old.h5 with shape \(2, 3\)"),
        ({"more:0": np.zeros(2)}, r"'local' has 2 weights, old.h5 has 3"),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_alone(change, message, tmp_path):
    old, model = old_and_model()
    weights = {"kernel:0": old.kernel, "bias:0": old.bias, **change}
    weights = {f"local/{name}": value for name, value in weights.items()}
    path = write(tmp_path / "old.h5", {"local": weights})
    with pytest.raises(ValueError, match=message):
        load_keras2_weights(model, path)
    assert not any(weight.any() for weight in model.get_weights())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "3.12.0"}, r"by Keras 3: load it with `model.load_weights`"),
        ({"version": "1.2.2"}, r"laid out differently.*old.h5 of Keras 1.2.2 on tensorflow"),
        ({"backend": "theano"}, r"of Keras 2.15.0 on theano"),
    ],
)
def test_files_of_other_versions_are_refused(options, message, tmp_path):
    old, model = old_and_model()
    path = local_file(tmp_path / "old.h5", old, **options)
    with pytest.raises(ValueError, match=message):
        load_keras2_weights(model, path)


def test_what_is_no_weight_file_is_named(tmp_path):
    _, model = old_and_model()
    with pytest.raises(FileNotFoundError, match=r"Received: path='.*nothing.h5'"):
        load_keras2_weights(model, tmp_path / "nothing.h5")
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with pytest.raises(ValueError, match=r"no weights of a Keras 2 model.*text.h5'"):
        load_keras2_weights(model, text)
    with h5py.File(text, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"no weights of a Keras 2 model.*text.h5'"):
        load_keras2_weights(model, text)
    new = next(path for path in GOLDEN if path.name.endswith(".weights.h5"))
    with pytest.raises(ValueError, match=r"`by_name` is for the .h5 files.*weights.h5'"):
        load_keras2_weights(model, new, by_name=True)
    with pytest.raises(ValueError, match=r"no weights yet.*'empty'"):
        load_keras2_weights(keras.Sequential([keras.layers.Dense(2)], name="empty"), new)


def test_links_into_other_files_are_refused(tmp_path):
    old, model = old_and_model()
    path, secret = local_file(tmp_path / "old.h5", old), tmp_path / "secret.h5"
    local_file(secret, old)
    with h5py.File(path, "a") as file:
        del file["local/local/kernel:0"]
        file["local/local/kernel:0"] = h5py.ExternalLink(str(secret), "local/local/kernel:0")
    with pytest.raises(ValueError, match=r"refers to another file.*'local/kernel:0'"):
        load_keras2_weights(model, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "causal"}, "no causal padding"),
        ({"dilation_rate": 2}, "neither dilation nor groups"),
    ],
)
def test_layers_that_keras_2_did_not_have(options, message, tmp_path):
    old = Keras2Layer(WINDOWS[0], "valid", 1, "channels_last")
    path = local_file(tmp_path / "old.h5", old)
    layer = LocallyConnected1D(FILTERS, 3, **options, **NO_DRAWS)
    model = keras.Sequential([keras.Input((7, CHANNELS)), layer])
    with pytest.raises(ValueError, match=message):
        load_keras2_weights(model, path)


def test_a_kernel_that_could_be_either_is_refused(tmp_path):
    """Implementation 2's `(n, c, p, f)` has the shape of `(p, k, c, f)` where n = p = k = c."""
    layer = LocallyConnected1D(FILTERS, 3, padding="same", **NO_DRAWS)
    model = keras.Sequential([keras.Input((3, 3)), layer])
    model.save_weights(tmp_path / "either.weights.h5")
    with pytest.raises(ValueError, match=r"does not tell implementation 2.*kernel \(3, 3, 3, 3\)"):
        load_keras2_weights(model, tmp_path / "either.weights.h5")
