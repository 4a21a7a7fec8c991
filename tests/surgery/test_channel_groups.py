"""Which channels belong together: small networks whose groups were found by hand.

On TensorFlow only: what is cut is decided in NumPy, and layers of ever new shapes are slow to
compile on JAX. What a backend computes, the importances, is tested beside this on all of them.
"""

import keras
import numpy as np
import pytest
from keras import layers

from tfconvbias.graph import LayerFacts, register
from tfconvbias.surgery import Axis, LayerCut, Tie, channel_groups, register_cut

pytestmark = pytest.mark.tensorflow


def conv(filters, name, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def slices(group):
    """(layer, weight, axis of the weight counted from its end, role) → positions as lists."""
    return {
        (part.layer, part.weight.name, part.axis % len(part.weight.shape), part.role): (
            part.positions.tolist()
        )
        for part in group.slices
    }


def each(*channels):
    return [[channel] for channel in channels]


def test_a_residual_sum_ties_all_that_write_to_it():
    inputs = keras.Input((8, 8, 3), name="image")
    stem = layers.BatchNormalization(name="norm")(conv(2, "stem")(inputs))
    branch = conv(2, "out")(layers.ReLU()(conv(4, "in")(stem)))
    total = layers.Add()([stem, branch])
    groups = channel_groups(keras.Model(inputs, conv(5, "last", use_bias=False)(total)))
    stream, inner = groups.prunable()
    both = each(0, 1)
    assert slices(stream) == {
        ("stem", "kernel", 3, "writes"): both,
        ("stem", "bias", 0, "shifts"): both,
        ("norm", "gamma", 0, "scales"): both,
        ("norm", "beta", 0, "shifts"): both,
        ("norm", "moving_mean", 0, "other"): both,
        ("norm", "moving_variance", 0, "other"): both,
        ("in", "kernel", 2, "reads"): both,
        ("out", "kernel", 3, "writes"): both,
        ("out", "bias", 0, "shifts"): both,
        ("last", "kernel", 2, "reads"): both,
    }
    assert slices(inner) == {
        ("in", "kernel", 3, "writes"): each(0, 1, 2, 3),
        ("in", "bias", 0, "shifts"): each(0, 1, 2, 3),
        ("out", "kernel", 2, "reads"): each(0, 1, 2, 3),
    }
    assert groups["image"].kept_because == "an input of the model"
    assert "an output of the model" in groups["last"].kept_because
    assert "stem" in str(groups)


def test_a_concatenation_keeps_its_parts_apart():
    inputs = keras.Input((4, 4, 1))
    first = conv(2, "first")(inputs)
    joined = layers.Concatenate()([first, conv(3, "second")(first)])
    joined = layers.BatchNormalization(name="norm")(joined)
    groups = channel_groups(keras.Model(inputs, conv(1, "last")(joined)))
    first, second = groups.prunable()
    assert slices(first)["norm", "gamma", 0, "scales"] == each(0, 1)
    assert slices(first)["last", "kernel", 2, "reads"] == each(0, 1)
    assert slices(first)["second", "kernel", 2, "reads"] == each(0, 1)
    assert slices(second)["norm", "gamma", 0, "scales"] == each(2, 3, 4)
    assert slices(second)["last", "kernel", 2, "reads"] == each(2, 3, 4)


def test_depthwise_separable_and_flattened_channels():
    model = keras.Sequential(
        [
            keras.Input((2, 1, 1)),
            conv(2, "first", 1),
            layers.DepthwiseConv2D(1, depth_multiplier=2, name="depthwise"),
            layers.SeparableConv2D(3, 1, depth_multiplier=2, name="separable"),
            layers.Flatten(),
            layers.Dense(1, name="last"),
        ]
    )
    first, third = channel_groups(model).prunable()
    found = slices(first)
    assert found["first", "kernel", 3, "writes"] == each(0, 1)
    assert found["depthwise", "kernel", 2, "filters"] == each(0, 1)
    assert found["depthwise", "bias", 0, "shifts"] == [[0, 1], [2, 3]]
    assert found["separable", "depthwise_kernel", 2, "filters"] == [[0, 1], [2, 3]]
    assert found["separable", "pointwise_kernel", 2, "reads"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # Two places, three channels: place p, channel c is element 3 p + c.
    assert slices(third)["last", "kernel", 0, "reads"] == [[0, 3], [1, 4], [2, 5]]


def test_groups_of_a_convolution_lose_the_same_channels():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            conv(4, "first"),
            conv(6, "grouped", groups=2),
            layers.GroupNormalization(3, name="norm"),
            conv(1, "last"),
        ]
    )
    first, second = channel_groups(model).prunable()
    assert slices(first)["first", "kernel", 3, "writes"] == [[0, 2], [1, 3]]
    assert slices(first)["grouped", "kernel", 2, "reads"] == each(0, 1)
    # 6 channels in 2 groups of the convolution, 3 of the normalization: c ~ c + 3 and c ~ c + 2.
    assert slices(second)["norm", "gamma", 0, "scales"] == [[0, 1, 2, 3, 4, 5]]


def test_groups_of_a_normalization_lose_the_same_channels():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="first"), layers.GroupNormalization(2),
         layers.Dense(1, name="last")]
    )  # fmt: skip
    (group,) = channel_groups(model).prunable()
    # Channels 0 and 1 are the first group, 2 and 3 the second.
    assert slices(group)["last", "kernel", 0, "reads"] == [[0, 2], [1, 3]]


def test_a_convolution_with_one_channel_in_each_group_is_depthwise():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), conv(2, "first"), conv(4, "each", groups=2), conv(1, "last")]
    )
    (group,) = channel_groups(model).prunable()
    assert slices(group)["first", "kernel", 3, "writes"] == each(0, 1)
    assert slices(group)["each", "kernel", 3, "filters"] == [[0, 1], [2, 3]]
    assert slices(group)["last", "kernel", 2, "reads"] == [[0, 1], [2, 3]]


def test_transposed_kernels_count_their_channels_the_other_way_round():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            conv(2, "first"),
            layers.Conv2DTranspose(3, 2, name="up"),
            conv(1, "last"),
        ]
    )
    first, second = channel_groups(model).prunable()
    assert slices(first)["up", "kernel", 3, "reads"] == each(0, 1)
    assert slices(second)["up", "kernel", 2, "writes"] == each(0, 1, 2)


def test_a_shared_layer_ties_the_channels_of_its_calls():
    inputs = keras.Input((4, 4, 1))
    shared = conv(2, "shared")
    x, y = shared(conv(3, "left")(inputs)), shared(conv(3, "right")(inputs))
    groups = channel_groups(keras.Model(inputs, conv(1, "last")(layers.Concatenate()([x, y]))))
    read, written = groups.prunable()
    assert read.layers("writes") == ["left", "right"]
    assert slices(written)["last", "kernel", 2, "reads"] == [[0, 2], [1, 3]]


def attention_block():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 6, name="embed")(tokens)
    y = layers.LayerNormalization(name="norm")(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 3, name="attend")(y, y)])
    y = layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", name="in")(x)
    y = layers.EinsumDense("abc,cd->abd", (None, 6), name="out")(keras.ops.gelu(y))
    x = layers.Add()([x, y])
    return keras.Model(tokens, layers.Dense(3, name="head")(x[:, 0]))


def test_heads_widths_and_hidden_units_of_a_transformer():
    groups = channel_groups(attention_block())
    stream, heads, hidden = groups.prunable()
    assert stream.channels == 6
    assert stream.layers("reads") == ["attend", "in", "head"]
    assert stream.layers("writes") == ["embed", "attend", "out"]
    assert stream.layers("scales") == ["norm"]
    assert (heads.channels, heads.width) == (2, 3)
    written = [part for part in heads.slices if part.role == "writes"]
    # Queries, keys and values: kernels of the shape (stream, heads, size of a head).
    assert [part.axis for part in written] == [1, 1, 1]
    assert all(part.rows().shape == (2, 18) for part in written)
    (read,) = (part for part in heads.slices if part.role == "reads")
    assert tuple(read.weight.shape) == (2, 3, 6)
    assert hidden.channels == 4
    assert slices(hidden)["out", "kernel", 0, "reads"] == each(0, 1, 2, 3)


def test_heads_that_share_keys_go_together():
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.GroupQueryAttention(3, 4, 2, name="attend")(x, x)
    groups = channel_groups(keras.Model(inputs, layers.Dense(1, name="last")(x)))
    heads = groups["attend heads"]
    assert heads.channels == 2
    of_queries = [p for p in heads.slices if p.weight.path.endswith("query/kernel")]
    assert [part.positions.tolist() for part in of_queries] == [[[0, 1], [2, 3]]]


def test_tokens_side_by_side_have_the_same_channels():
    inputs = keras.Input((5, 3))
    x = layers.Concatenate(axis=1)(
        [layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)]
    )
    x = layers.GlobalAveragePooling1D()(x)
    (group,) = channel_groups(keras.Model(inputs, layers.Dense(1, name="last")(x))).prunable()
    assert group.layers("writes") == ["a", "b"]


def test_functions_of_every_number_let_channels_through():
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="first")(inputs)
    x = keras.ops.cast(keras.ops.clip(x, -1.0, 1.0), "float32")
    x = layers.RMSNormalization(name="norm")(x)
    (group,) = channel_groups(keras.Model(inputs, layers.Dense(1, name="last")(x))).prunable()
    assert (group.layers("scales"), group.layers("reads")) == (["norm"], ["last"])


def test_what_cannot_be_cut_stays_and_says_why():
    inputs = keras.Input((4, 4, 3))
    x = conv(4, "before")(inputs)
    x = layers.Lambda(lambda t: t[..., ::-1], name="turned")(x)
    x = layers.Softmax(name="mixed")(conv(4, "between")(x))
    x = conv(4, "free")(conv(4, "softened", activation="softmax")(x))
    groups = channel_groups(keras.Model(inputs, conv(1, "last")(x)), ignore=["free"])
    assert not groups.prunable()
    assert groups["before"].kept_because == "'turned' of type Lambda is unknown"
    assert groups["between"].kept_because == "'mixed' of type Softmax needs them all"
    assert groups["softened"].kept_because == "the activation of 'softened' may mix channels"
    assert groups["free"].kept_because == "in `ignore`"
    assert groups["last"].kept_because == "an output of the model"


def test_a_normalization_of_another_axis_keeps_its_channels():
    inputs = keras.Input((4, 4, 3))
    x = layers.BatchNormalization(axis=1, name="rows")(conv(4, "first")(inputs))
    groups = channel_groups(keras.Model(inputs, conv(1, "last")(x)))
    assert "rows" in groups["first"].kept_because


def test_names_in_ignore_must_exist():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="first")])
    with pytest.raises(ValueError, match=r"`ignore` must name layers.*\['frist'\]"):
        channel_groups(model, ignore=["frist"])


class Doubled(layers.Layer):
    """The same function of every number."""

    def call(self, inputs):
        return 2 * inputs


class Turned(layers.Layer):
    """Swaps the two halves of the channels."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(shape=(width,), initializer="ones", name="scale")

    def call(self, inputs):
        return keras.ops.roll(inputs * self.scale, self.scale.shape[0] // 2, axis=-1)


def test_own_layers_are_registered():
    register(Doubled, LayerFacts("elementwise", is_linear=True))
    register_cut(
        Turned,
        lambda layer: LayerCut(
            ("before",),
            ("after",),
            (Axis(layer.scale, 0, "before", "scales"),),
            (Tie("before", np.array([0, 1, 2, 3]), "after", np.array([2, 3, 0, 1])),
             Tie("before", np.array([0, 1]), "before", np.array([2, 3]))),
        ),
    )  # fmt: skip
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="a"), Doubled(), Turned(4, name="turned"),
         layers.Dense(1, name="b")]
    )  # fmt: skip
    (group,) = channel_groups(model).prunable()
    assert slices(group)["a", "kernel", 1, "writes"] == [[0, 2], [1, 3]]
    assert slices(group)["turned", "scale", 0, "scales"] == [[0, 2], [1, 3]]


def test_a_cut_that_contradicts_its_layer_is_refused():
    class Wrong(Turned):
        pass

    register_cut(
        Wrong,
        lambda layer: LayerCut(("channels",), ("channels",), (Axis(layer.scale, 0, "channels"),)),
    )
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), Wrong(1, name="wrong")])
    with pytest.raises(ValueError, match="'wrong' counts 1 channels of its space 'channels'"):
        channel_groups(model)
    with pytest.raises(ValueError, match="`layer` must be a class"):
        register_cut("Wrong", lambda layer: None)
    with pytest.raises(ValueError, match="`role` must be one of"):
        Axis(None, 0, "channels", "kernel")
