"""Every layer of the table goes through `embed`, `compact` and `Complexity`.

On TensorFlow only: what is decided about a layer does not depend on the backend.
"""

import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import EmbeddedDense, embed, embedded_size
from tfconvbias.graph import facts, facts_of
from tfconvbias.layers import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from tfconvbias.regularizers import Complexity
from tfconvbias.surgery import compact

pytestmark = pytest.mark.tensorflow

CONVOLUTIONS = {
    f"{name}{rank}D{end}"
    for name, ranks, end in (
        ("Conv", (1, 2, 3), ""),
        ("DepthwiseConv", (1, 2), ""),
        ("SeparableConv", (1, 2), ""),
        ("Conv", (1, 2, 3), "Transpose"),
        ("LocallyConnected", (1, 2, 3), ""),
    )
    for rank in ranks
}
# What only one of the two knew while each had a list of its own.
ONCE_APART = [
    "AdaptiveAveragePooling1D",
    "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D",
    "AdaptiveMaxPooling2D",
    "AdaptiveMaxPooling3D",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "Bidirectional",
    "CategoryEncoding",
    "SpectralNormalization",
    "TimeDistributed",
]
CLASSES = sorted(
    (layer for layer in facts._TABLE if isinstance(layer, type)), key=lambda layer: layer.__name__
)
CLASSES = [c for c in CLASSES if c.__module__.startswith(("keras.", "tfconvbias.layers."))]
CLASSES.remove(L.InputLayer)
TAKES_NO_IMAGES = [
    "CategoryEncoding",
    "CutMix",
    "Discretization",
    "Embedding",
    "HashedCrossing",
    "Hashing",
    "MixUp",
    "ReversibleEmbedding",
]
ON_SEQUENCES = [
    "AdditiveAttention",
    "Attention",
    "Bidirectional",
    "Dot",
    "GRU",
    "GroupedQueryAttention",
    "LSTM",
    "MultiHeadAttention",
    "SimpleRNN",
    "TimeDistributed",
    "Masking",
]
ARGUMENTS = {
    "Activation": {"activation": "tanh"},
    "Bidirectional": {"layer": L.LSTM(2)},
    "CenterCrop": {"height": 4, "width": 5},
    "Dense": {"units": 4},
    "Dot": {"axes": 2},
    "EinsumDense": {"equation": "abcd,de->abce", "output_shape": (6, 6, 4)},
    "GRU": {"units": 2},
    "GroupNormalization": {"groups": 3},
    "GroupedQueryAttention": {"head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1},
    "LSTM": {"units": 2},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 2},
    "Normalization": {"mean": 0.5, "variance": 2.0},
    "Pipeline": {"layers": [L.Rescaling(2.0)]},
    "Permute": {"dims": (2, 1, 3)},
    "RepeatVector": {"n": 2},
    "Rescaling": {"scale": 2.0, "offset": 1.0},
    "Reshape": {"target_shape": (36, 3)},
    "Resizing": {"height": 3, "width": 4},
    "SimpleRNN": {"units": 2},
    "SpectralNormalization": {"layer": L.Dense(4)},
    "TimeDistributed": {"layer": L.Dense(4)},
    "RandomCrop": {"height": 6, "width": 6},
    **{name: {"rate": 0.5} for name in ("AlphaDropout", "Dropout", "GaussianDropout")},
    "GaussianNoise": {"stddev": 0.5},
    **{f"AdaptiveMaxPooling{rank}D": {"output_size": 2} for rank in (1, 2, 3)},
    **{f"AdaptiveAveragePooling{rank}D": {"output_size": 2} for rank in (1, 2, 3)},
    **{f"AveragePooling{rank}D": {"pool_size": 2} for rank in (1, 2, 3)},
    **{f"SpatialDropout{rank}D": {"rate": 0.5} for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": {"kernel_size": 2, "depth_multiplier": 2} for rank in (1, 2)},
    **{
        name: {"filters": 4, "kernel_size": 2}
        for name in CONVOLUTIONS
        if not name.startswith("Depthwise")
    },
}
FACTORS = [
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomContrast",
    "RandomErasing",
    "RandomHue",
    "RandomInvert",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomTranslation",
    "RandomZoom",
]


def rank_of(layer_class):
    digits = [letter for letter in layer_class.__name__ if letter in "123"]
    return int(digits[0]) if digits else 1 if layer_class.__name__ in ON_SEQUENCES else 2


def make(layer_class):
    name = layer_class.__name__
    arguments = dict(ARGUMENTS.get(name, {}))
    if name in FACTORS:
        arguments["factor"] = (0.2, 0.2) if name != "RandomPosterization" else 4
    if name == "RandomTranslation":
        arguments = {"height_factor": 0.2, "width_factor": 0.2}
    if name == "RandomZoom":
        arguments = {"height_factor": 0.2}
    return layer_class(**arguments)


def called(layer, x, other):
    if isinstance(layer, L.Add | L.Average | L.Concatenate | L.Maximum | L.Minimum):
        return layer([x, other])
    if isinstance(layer, L.Multiply | L.Subtract | L.Dot | L.Attention | L.AdditiveAttention):
        return layer([x, other])
    if isinstance(layer, L.MultiHeadAttention | L.GroupQueryAttention):
        return layer(x, other)
    if isinstance(layer, L.RepeatVector):
        return layer(L.Flatten()(x))
    return layer(x)


def model_around(layer):
    """Two convolutions with a dead kernel each, the layer, and a head of the fitting rank."""
    rank = rank_of(type(layer))
    inputs = keras.Input((6,) * rank + (3,))
    conv = getattr(L, f"Conv{rank}D")
    x, other = (conv(3, 2, padding="same", name=name)(inputs) for name in ("front", "other"))
    x = called(layer, x, other)
    if isinstance(layer, L.Masking):
        x = L.GlobalAveragePooling1D()(x)
    elif len(x.shape) > 2:
        x = getattr(L, f"Conv{len(x.shape) - 2}D")(2, 1, name="middle")(x)
        x = L.Flatten()(x)
    model = keras.Model(inputs, L.Dense(2, name="head")(x))
    return with_dead_kernels(model)


def with_dead_kernels(model):
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.path:
            value = rng.normal(0, 0.5, variable.shape)
            is_positive = "variance" in variable.path
            variable.assign(np.abs(value) + 0.5 if is_positive else value)
    for name in {"front", "other"} & {layer.name for layer in model.layers}:
        kernel, bias = model.get_layer(name).get_weights()
        kernel[..., 1] = 0
        model.get_layer(name).set_weights([kernel, bias])
    return model


def assert_same(model, other):
    shape = (2, *model.inputs[0].shape[1:])
    x = np.random.default_rng(1).uniform(size=shape).astype("float32")
    first, second = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, other))
    assert np.abs(first - second).max() <= 1e-5 * max(1, np.abs(first).max())


def test_the_table_holds_what_only_one_of_its_readers_knew():
    for name in ONCE_APART:
        if hasattr(L, name):
            assert getattr(L, name) in CLASSES


@pytest.mark.parametrize("layer_class", CLASSES, ids=lambda c: c.__name__)
def test_a_layer_goes_through(layer_class):
    name = layer_class.__name__
    if name in TAKES_NO_IMAGES:
        pytest.skip("takes integers or labels, or makes integers of images")
    if name == "Equalization":
        pytest.skip("hands a symbolic input on as it is, which Keras takes for a cycle")
    if name.startswith("ConvLSTM"):
        pytest.skip("is refused by embed, which another test checks")
    model = model_around(make(layer_class))
    dense = embed(model)
    assert_same(model, dense)
    assert dense.count_params() == embedded_size(model).num_parameters
    assert not any(isinstance(layer, L.Conv2D | L.Conv1D | L.Conv3D) for layer in dense.layers)
    assert isinstance(dense.get_layer("front"), EmbeddedDense)
    smaller = compact(model)
    assert_same(model, smaller)
    assert np.isfinite(float(Complexity(model, 1.0, form="number").measure()))
    if name in CONVOLUTIONS and "Transpose" not in name:
        assert_same(model, embed(model, "local"))


def test_layers_of_integers():
    inputs = keras.Input((4,), dtype="int32")
    x = L.Embedding(5, 3)(inputs)
    x = L.Conv1D(3, 2, name="front")(x)
    x = L.Conv1D(3, 2, name="other")(x)
    counts = L.CategoryEncoding(5, "multi_hot")(inputs)
    outputs = L.Dense(2)(L.Concatenate()([L.Flatten()(x), counts]))
    model = with_dead_kernels(keras.Model(inputs, outputs))
    x = np.array([[0, 1, 2, 3], [4, 4, 1, 0]])
    expected = keras.ops.convert_to_numpy(model(x))
    for other in (embed(model), compact(model)):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(other(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        L.ConvLSTM1D(2, 2, return_sequences=True),
        L.TimeDistributed(L.Conv1D(2, 2)),
        L.SpectralNormalization(L.Conv2D(4, 2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_convolution_inside_another_layer_is_not_passed_over(layer):
    assert facts_of(layer).holds_convolution
    shape = (6, 6, 3)
    model = keras.Sequential(
        [
            keras.Input(shape),
            L.Conv2D(3, 2, padding="same", name="front"),
            layer,
            L.Conv2D(3, 1, name="other"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    with_dead_kernels(model)
    if facts_of(layer).applies is None:
        with pytest.raises(NotImplementedError, match="holds a convolution inside"):
            embed(model)
    else:
        embedded = embed(model)
        assert_same(model, embedded)
        assert not any(type(part) is type(layer) for part in embedded.layers)
    assert_same(model, embed(model, layers=["front", "other"]))
    assert_same(model, compact(model))


def test_local_layers_stand_in_the_table():
    for rank, layer in enumerate((LocallyConnected1D, LocallyConnected2D, LocallyConnected3D), 1):
        known = facts_of(layer(2, 1))
        assert (known.kind, known.rank) == ("local", rank)
