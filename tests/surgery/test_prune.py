"""A pruned model equals the model with zeros for the channels that were cut.

On TensorFlow only: what is cut is decided in NumPy, and layers of ever new shapes are slow to
compile on JAX. What a backend computes, the importances, is tested beside this on all of them.
"""

import importlib

import keras
import numpy as np
import pytest
import random_models
from keras import layers, ops
from random_models import outputs_of, random_images, random_model, relative_difference, scramble

from tfconvbias.surgery import channel_groups, compact, prune

TOLERANCE = 1e-5

pytestmark = pytest.mark.tensorflow


def conv(filters, name, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def score(**scores):
    """An importance from a table; groups that it does not name are whole."""

    def importance(group):
        return scores.get(group.name)

    return importance


def with_zeros(model, **places):
    """A copy of a model with zeros in weights, given as layer → (weight number, axis, indices)."""
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for name, (number, axis, indices) in places.items():
        weights = twin.get_layer(name).get_weights()
        np.moveaxis(weights[number], axis, 0)[indices] = 0
        twin.get_layer(name).set_weights(weights)
    return twin


def scrambled(model, seed=0):
    scramble(model, np.random.default_rng(seed), dead_share=0)
    return model


def images_for(model, seed=1):
    return random_images(np.random.default_rng(seed), model.input_shape[1:])


def residual_net():
    inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization(name="norm")(conv(4, "stem")(inputs))
    y = layers.Activation("sigmoid")(conv(6, "in")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    x = layers.Add()([x, layers.BatchNormalization()(conv(4, "out")(y))])
    x = layers.Concatenate()([x, conv(3, "side")(x)])
    x = layers.Dense(2, name="head")(layers.Flatten()(x))
    return scrambled(keras.Model(inputs, x))


def test_cut_channels_are_zeros_where_they_are_read(tmp_path):
    model = residual_net()
    # Half of the channels go: the lowest of each group.
    importance = score(stem=[5, 0, 4, 1], side=[0, 0, 1], **{"in": [1, 9, 0, 8, 2, 7]})
    smaller, report = prune(model, ratio=0.5, importance=importance, scope="layer", round_to=1)
    shapes = {
        name: smaller.get_layer(name).get_weights()[0].shape
        for name in ("stem", "norm", "in", "depthwise", "out", "side", "head")
    }
    assert shapes == {
        "stem": (3, 3, 2, 2), "norm": (2,), "in": (3, 3, 2, 3), "depthwise": (3, 3, 3, 1),
        "out": (3, 3, 3, 2), "side": (3, 3, 2, 2), "head": (36 * 4, 2),
    }  # fmt: skip
    # Channels 1 and 3 of the stream, 0 of the side (of two that are equal the later one goes):
    # in the head, channel c of place p is row 7 p + c.
    gone = [7 * place + channel for place in range(36) for channel in (1, 3, 4 + 1)]
    twin = with_zeros(
        model, **{"in": (0, 2, [1, 3])}, side=(0, 2, [1, 3]), out=(0, 2, [0, 2, 4]),
        head=(0, 0, gone),
    )  # fmt: skip
    images = images_for(model)
    assert relative_difference(twin, smaller, images) <= TOLERANCE
    assert relative_difference(model, smaller, images) > 1e-2
    removed = {group.name: group.removed for group in report.groups if group.removed}
    assert removed == {"stem": (1, 3), "in": (0, 2, 4), "side": (1,)}
    assert report.parameters == (model.count_params(), smaller.count_params())
    places = 36
    expected = places * (9 * 2 * 2 + 9 * 2 * 3 + 9 * 3 + 9 * 3 * 2 + 9 * 2 * 2 + 4 * 2)
    assert report.multiply_adds[1] == expected
    assert "stem" in str(report)
    assert "an output of the model" in str(report)
    smaller.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert relative_difference(smaller, loaded, images) <= TOLERANCE


def test_grouped_separable_and_transposed_convolutions():
    model = scrambled(
        keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                conv(4, "first", activation="softplus"),
                conv(6, "grouped", groups=2),
                layers.GroupNormalization(2, name="norm"),
                layers.SeparableConv2D(4, 3, depth_multiplier=2, name="separable"),
                layers.Conv2DTranspose(4, 2, name="up"),
                layers.GlobalMaxPooling2D(),
                layers.Dense(2, name="head"),
            ]
        )
    )
    importance = score(first=[1, 0], separable=[0, 3, 0, 3], up=[3, 0, 0, 3])
    smaller, _ = prune(model, ratio=0.5, importance=importance, scope="layer", round_to=1)
    twin = with_zeros(model, grouped=(0, 2, [1]), up=(0, 3, [0, 2]), head=(0, 0, [1, 2]))
    assert smaller.get_layer("first").filters == 2
    assert smaller.get_layer("separable").pointwise_kernel.shape == (1, 1, 12, 2)
    assert relative_difference(twin, smaller, images_for(model)) <= TOLERANCE


def transformer():
    inputs = keras.Input((5, 3))
    x = layers.Dense(6, name="embed")(inputs)
    y = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    y = layers.MultiHeadAttention(3, 2, name="attend")(query=y, value=y)
    x = layers.Add()([x, y])
    y = layers.Dense(4, activation="gelu", name="in")(x)
    x = layers.Add()([x, layers.Dense(6, name="out")(y)])
    x = layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


def by_path(model):
    return {v.path: ops.convert_to_numpy(v).astype("float64") for v in model.weights}


def narrow_transformer(w, x, stream, heads, hidden):
    """The transformer in NumPy on some of its channels, heads and hidden units."""

    def normalize(x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)
        return x * w["norm/gamma"][stream] + w["norm/beta"][stream]

    def project(x, part):
        kernel = w[f"attend/{part}/kernel"][stream][:, heads]
        return np.einsum("btc,chk->bthk", x, kernel) + w[f"attend/{part}/bias"][heads]

    x = x @ w["embed/kernel"][:, stream] + w["embed/bias"][stream]
    y = normalize(x)
    query, key, value = (project(y, part) for part in ("query", "key", "value"))
    weights = np.exp(np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(2))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("bhts,bshk->bthk", weights, value)
    kernel = w["attend/attention_output/kernel"][heads][..., stream]
    x = x + np.einsum("bthk,hkc->btc", mixed, kernel) + w["attend/attention_output/bias"][stream]
    y = x @ w["in/kernel"][stream][:, hidden] + w["in/bias"][hidden]
    y = ops.convert_to_numpy(keras.activations.gelu(ops.convert_to_tensor(y))).astype("float64")
    x = x + y @ w["out/kernel"][hidden][:, stream] + w["out/bias"][stream]
    return x.mean(axis=1) @ w["head/kernel"][stream] + w["head/bias"]


def test_a_transformer_loses_stream_heads_and_hidden_units():
    model = transformer()
    importance = score(embed=[9, 0, 8, 0, 7, 6], **{"attend heads": [0, 2, 1], "in": [0, 1, 2, 3]})
    smaller, report = prune(model, ratio=0.3, importance=importance, scope="layer", round_to=1)
    assert smaller.get_layer("attend").num_heads == 2
    x = np.random.default_rng(1).normal(size=(3, 5, 3))
    expected = narrow_transformer(by_path(model), x, [0, 2, 4, 5], [1, 2], [1, 2, 3])
    np.testing.assert_allclose(
        outputs_of(smaller, x.astype("float32"))[0], expected, rtol=2e-4, atol=1e-5
    )
    # Projections of 5 tokens, queries by keys and weights by values, for 4 channels, 2 heads of 2.
    attention = 5 * 4 * (2 * 2) * 4 + 5 * 5 * 2 * 2 * 2
    assert report.multiply_adds[1] == 5 * 3 * 4 + attention + 5 * 2 * 4 * 3 + 4 * 2


@pytest.mark.parametrize("seed", range(3))
def test_random_models(seed, monkeypatch):
    compare_random_model(seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_random_models(seed, monkeypatch):
    compare_random_model(seed, monkeypatch)


def compare_random_model(seed, monkeypatch):
    # Zeros would count in the statistics of a layer normalization.
    monkeypatch.delitem(random_models._BLOCKS, "_layer_norm")
    rng = np.random.default_rng(seed)
    model = scrambled(random_model(rng, depth=6), seed)
    before = model.get_weights()
    scope = "global" if seed % 2 else "layer"
    smaller, report = prune(
        model, ratio=0.5, importance="random", scope=scope, seed=seed, round_to=1
    )
    twin = zeros_in_readers(model, report)
    assert relative_difference(twin, smaller, images_for(model)) <= TOLERANCE
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # `compact` finds the same channels, since nothing reads them any more.
    assert compact(twin).count_params() <= smaller.count_params()


def zeros_in_readers(model, report):
    """A copy of the model in which whatever reads the channels that were cut has zeros."""
    groups = channel_groups(model)
    twin = keras.models.clone_model(model)
    numbers = {id(weight): number for number, weight in enumerate(model.weights)}
    weights = [weight.copy() for weight in model.get_weights()]
    for group in report.groups:
        for part in groups[group.name].with_roles("reads"):
            rows = np.moveaxis(weights[numbers[id(part.weight)]], part.axis, 0)
            rows[part.positions[list(group.removed)].reshape(-1)] = 0
    twin.set_weights(weights)
    return twin


APPLICATIONS = {
    # At 40 % of each group: 0.6² = 36 % of the body, 60 % of the classifier.
    "ResNet50": (0.37, 0.39),
    "DenseNet121": (0.34, 0.42),
    "MobileNetV2": (0.36, 0.47),
    "EfficientNetB0": (0.36, 0.46),
    "ConvNeXtTiny": (0.34, 0.40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name):
    low, high = APPLICATIONS[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3))
    rng = np.random.default_rng(0)
    if name != "ConvNeXtTiny":
        model.set_weights([w + rng.normal(0, 0.02, w.shape) ** 2 for w in model.get_weights()])
    smaller, report = prune(model, ratio=0.4, scope="layer", round_to=1)
    assert low < report.parameters[1] / report.parameters[0] < high
    if name == "ConvNeXtTiny":
        # Its layer normalizations take other statistics of fewer channels.
        assert outputs_of(smaller, images_for(model))[0].shape == (3, 1000)
    else:
        twin = zeros_in_readers(model, report)
        assert relative_difference(twin, smaller, images_for(model)) <= TOLERANCE


def chain(*widths):
    parts = [conv(width, f"conv{number}") for number, width in enumerate(widths)]
    return scrambled(
        keras.Sequential(
            [keras.Input((4, 4, 8)), *parts, layers.GlobalAveragePooling2D(), layers.Dense(2)]
        )
    )


def work_of(model):
    """Multiply-adds of a chain of 3×3 convolutions on 4×4 images and a dense layer."""
    kernels = [layer.kernel.shape for layer in model.layers if layer.weights]
    return sum((16 if len(shape) == 4 else 1) * int(np.prod(shape)) for shape in kernels)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("budget", ["multiply_adds", "parameters"])
def test_budgets_are_kept_and_used(budget, scope):
    model = chain(24, 40, 32)
    smaller, report = prune(model, **{budget: 0.5}, scope=scope, round_to=1)
    cost = work_of if budget == "multiply_adds" else type(model).count_params
    share = cost(smaller) / cost(model)
    assert 0.45 < share <= 0.5
    assert report.multiply_adds == (work_of(model), work_of(smaller))
    whole = prune(model, **{budget: 1.0}, scope=scope)
    assert whole.model.count_params() == model.count_params()


def test_a_global_ranking_spares_the_layers_that_matter():
    model = chain(16, 16)
    importance = score(conv0=np.arange(1.0, 17), conv1=np.full(16, 0.01))
    smaller, _ = prune(model, ratio=0.25, importance=importance, round_to=1)
    # The 8 lowest of 32 scores, each over the mean of its group, 8.5 and 0.01.
    assert [smaller.get_layer(name).filters for name in ("conv0", "conv1")] == [8, 16]


def test_means_of_cut_channels_are_carried_over():
    """Where a channel is constant, the pruned model is exact."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = layers.Conv2D(4, 3, groups=2, use_bias=False, name="grouped")(x)
    x = layers.Flatten()(layers.Conv2D(4, 1, name="third")(x))
    model = scrambled(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    for name, dead in (("first", [0, 2]), ("third", [1])):
        kernel, bias = model.get_layer(name).get_weights()
        kernel[..., dead] = 0
        model.get_layer(name).set_weights([kernel, bias])
    images = random_images(rng, (6, 6, 2), 5)
    importance = score(first=[0, 1], third=[2, 0, 1, 3])
    options = {"scope": "layer", "round_to": 1, "importance": importance, "dataset": images}
    exact, _ = prune(model, ratio=0.3, compensate=True, **options)
    assert [exact.get_layer(name).filters for name in ("first", "third")] == [2, 3]
    assert relative_difference(model, exact, images) <= TOLERANCE
    plain, _ = prune(model, ratio=0.3, **options)
    assert relative_difference(model, plain, images) > 1e-2
    with pytest.raises(ValueError, match="`dataset` must be given for compensate=True"):
        prune(model, ratio=0.5, compensate=True)


def test_widths_are_rounded():
    smaller, _ = prune(chain(30, 64, 12), ratio=0.4, scope="layer")
    # 18 → 16, 38.4 → 40, 7.2 → 8.
    assert [smaller.get_layer(f"conv{n}").filters for n in range(3)] == [16, 40, 8]
    smaller, _ = prune(chain(30, 64, 6), ratio=0.05, scope="layer")
    # 28.5 → 30, which it was, 60.8 → 64 and 5.7 → 6: no width is rounded above what it was.
    assert [smaller.get_layer(f"conv{n}").filters for n in range(3)] == [30, 64, 6]


def test_a_time_is_measured(monkeypatch):
    """With a clock that counts parameters the budget of time is one of parameters."""
    module = importlib.import_module("tfconvbias.surgery.prune")

    def clock(models, images):
        assert images.shape == (32, 4, 4, 8)
        return {name: [float(model.count_params())] for name, model in models.items()}

    monkeypatch.setattr(module, "inference_times", clock)
    model = chain(24, 40)
    smaller, report = prune(model, seconds=0.5, round_to=1)
    share = smaller.count_params() / model.count_params()
    assert report.time_share == pytest.approx(share)
    assert 0.4 < share <= 0.5
    with pytest.raises(ValueError, match="`seconds` cannot be reached"):
        prune(model, seconds=0.001)


def test_several_inputs_and_outputs_keep_their_structure():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    x = layers.Dense(8, name="first")(layers.Concatenate()([inputs["a"], inputs["b"]]))
    model = keras.Model(inputs, {"x": layers.Dense(2)(x), "y": layers.Dense(1)(x)})
    smaller, _ = prune(model, ratio=0.5, round_to=1)
    found = smaller({"a": np.ones((1, 3), "float32"), "b": np.ones((1, 2), "float32")})
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "x": (1, 2),
        "y": (1, 1),
    }
    assert smaller.get_layer("first").units == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Exactly one of"),
        ({"ratio": 0.5, "parameters": 0.5}, "Exactly one of"),
        ({"ratio": 1.0}, r"`ratio` must be a number in \[0, 1\)"),
        ({"multiply_adds": 0}, r"`multiply_adds` must be a number in \(0, 1\]"),
        ({"parameters": 1e-6}, "`parameters` cannot be reached: .* would be left"),
        ({"ratio": 0.5, "scope": "all"}, "`scope` must be"),
        ({"ratio": 0.5, "round_to": 0}, "`round_to` must be"),
        ({"ratio": 0.5, "importance": "size"}, "`importance` must be one of"),
        ({"ratio": 0.5, "importance": "taylor"}, "`dataset` must be given"),
        ({"ratio": 0.5, "importance": "bn_scale"}, "Nothing can be pruned"),
        ({"ratio": 0.5, "ignore": [layers.Conv2D]}, "Nothing can be pruned"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        prune(chain(8), **options)


def test_an_embedding_gets_narrower():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 6, name="embed")(tokens)
    model = keras.Model(tokens, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))
    table = np.random.default_rng(0).normal(size=(7, 6))
    kernel, bias = model.get_layer("head").get_weights()
    table[:, [1, 4]] = 0
    model.set_weights([table, kernel, bias])
    smaller = prune(model, ratio=1 / 3, round_to=1).model
    assert smaller.get_layer("embed").output_dim == 4
    x = np.arange(10).reshape(2, 5) % 7
    expected = table[x].mean(axis=1) @ kernel + bias
    np.testing.assert_allclose(outputs_of(smaller, x)[0], expected, rtol=1e-5, atol=1e-6)
