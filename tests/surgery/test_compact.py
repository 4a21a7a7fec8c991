"""`compact` computes the same function with less."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from random_models import outputs_of, random_images, random_model, relative_difference, scramble

from tfconvbias.models import StructuredBase
from tfconvbias.regularizers import KernelNumber
from tfconvbias.surgery import compact, make_plan

TOLERANCE = 1e-5


def zero_kernels(layer, dead):
    weights = layer.get_weights()
    for weight in weights:
        weight[..., dead] = 0
    layer.set_weights(weights)


def multiply_adds(model):
    return sum(rule.multiply_adds() for rule in make_plan(model).kernel_rules())


def check(model, images):
    """Compact equals the model; returns it, and checks what was predicted."""
    plan = make_plan(model)
    smaller = compact(model)
    assert relative_difference(model, smaller, images) <= TOLERANCE
    assert multiply_adds(smaller) == plan.multiply_adds()
    return smaller


# On TensorFlow only: the walk is NumPy, and eager layers of ever new shapes are slow to compile.
@pytest.mark.tensorflow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:No live kernel is left")
def test_random_models(seed, tmp_path):
    rng = np.random.default_rng(seed)
    model = random_model(rng, depth=5)
    scramble(model, rng)
    images = random_images(rng, model.input_shape[1:])
    weights = [w.copy() for w in model.get_weights()]
    config = model.get_config()
    smaller = check(model, images)
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    smaller.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert relative_difference(model, loaded, images) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
@pytest.mark.filterwarnings("ignore:No live kernel is left")
def test_many_random_models(seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    scramble(model, rng)
    check(model, random_images(rng, model.input_shape[1:]))


def chain(*parts, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *parts])


def test_widths_of_a_chain():
    model = chain(
        layers.Conv2D(6, 3, name="a"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
        layers.Conv2D(5, 3, name="b"),
        layers.Flatten(),
        layers.Dense(4, name="c"),
        layers.Dense(2, name="d"),
    )
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    zero_kernels(model.get_layer("a"), [0, 3])
    zero_kernels(model.get_layer("norm"), [0])
    zero_kernels(model.get_layer("b"), [4])
    zero_kernels(model.get_layer("c"), [1, 2])
    smaller = check(model, random_images(rng, (8, 8, 3)))
    shapes = {name: smaller.get_layer(name).kernel.shape for name in "abcd"}
    # Kernel 3 of `a` emits a constant, which the unpadded `b` absorbs into its bias.
    assert shapes == {"a": (3, 3, 3, 4), "b": (3, 3, 4, 4), "c": (4 * 4 * 4, 2), "d": (2, 2)}


def test_channels_that_nothing_reads_go_too():
    model = chain(layers.Conv2D(6, 3, name="a"), layers.ReLU(), layers.Conv2D(5, 3, name="b"))
    kernel, bias = model.get_layer("b").get_weights()
    kernel[:, :, 2:4] = 0
    model.get_layer("b").set_weights([kernel, bias])
    smaller = check(model, random_images(np.random.default_rng(0), (8, 8, 3)))
    assert smaller.get_layer("a").filters == 4


def test_a_constant_next_to_zero_padding_stays_and_is_explained():
    model = chain(
        layers.Conv2D(4, 1, name="a"),
        layers.Conv2D(4, 3, padding="same", name="b"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    )
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., :2] = 0
    bias[:] = [0.0, 1.0, 0.0, 0.0]
    model.get_layer("a").set_weights([kernel, bias])
    smaller = check(model, random_images(np.random.default_rng(0), (8, 8, 3)))
    assert smaller.get_layer("a").filters == 3
    plan = make_plan(model)
    assert "1 of 3" not in plan.explanations["a"]
    assert "zero padding of 'b'" in plan.explanations["a"]
    # Through the centre tap alone no padding is read: the constant goes into the bias.
    kernel, bias = model.get_layer("b").get_weights()
    kernel[[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2], 1] = 0
    model.get_layer("b").set_weights([kernel, bias])
    smaller = check(model, random_images(np.random.default_rng(0), (8, 8, 3)))
    assert smaller.get_layer("a").filters == 2


def test_a_bias_is_added_where_there_was_none():
    model = chain(
        layers.Conv2D(3, 1, activation="sigmoid", name="a"),
        layers.Conv2D(2, 3, use_bias=False, name="b"),
    )
    zero_kernels(model.get_layer("a"), [1])
    smaller = check(model, random_images(np.random.default_rng(0), (8, 8, 3)))
    assert smaller.get_layer("a").filters == 2
    assert smaller.get_layer("b").use_bias


@pytest.mark.parametrize("dead", ["conv2", "conv3"])
def test_a_branch_whose_first_or_second_convolution_is_dead_goes_whole(dead):
    model = StructuredBase(((4, 3),) * 5, input_shape=(8, 8, 3), strides=(1,) * 5)
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    zero_kernels(model.get_layer(dead), slice(None))
    zero_kernels(model.get_layer(f"{dead}_bn"), slice(None))
    zero_kernels(model.get_layer("conv3_bn"), slice(None))
    smaller = check(model, random_images(rng, (8, 8, 3)))
    names = {layer.name for layer in smaller.layers}
    assert not names & {"conv2", "conv2_bn", "conv3", "conv3_bn", "conv3_add"}
    assert {"conv1", "conv4", "conv5"} <= names


def test_a_channel_of_a_residual_stream_goes_only_if_all_writers_are_dead():
    model = StructuredBase(((4, 3),) * 3, input_shape=(8, 8, 3), strides=(1,) * 3)
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    for name, dead in (("conv1", [0, 1]), ("conv3", [1, 2])):
        zero_kernels(model.get_layer(name), dead)
        zero_kernels(model.get_layer(f"{name}_bn"), dead)
    smaller = check(model, random_images(rng, (8, 8, 3)))
    assert smaller.get_layer("conv1").filters == smaller.get_layer("conv3").filters == 3
    explanations = make_plan(model).explanations
    assert "1 of 4" in explanations["conv1"]
    assert "tied to live ones of 'conv3'" in explanations["conv1"]


def test_kernels_are_cropped_with_explicit_padding():
    rng = np.random.default_rng(0)
    for size, stride, length in ((5, 1, 8), (5, 2, 8), (3, 2, 8), (3, 2, 7), (5, 2, 9)):
        model = chain(
            layers.Conv2D(3, size, strides=stride, padding="same", name="a"),
            shape=(length, length, 2),
        )
        scramble(model, rng, dead_share=0.0)
        kernel, bias = model.get_layer("a").get_weights()
        full = kernel.copy()
        for rows, columns, left in (
            (slice(1, size - 1), slice(1, size - 1), size - 2),
            (slice(1, size), slice(1, size), size - 1),
            (slice(0, 1), slice(size - 1, size), 1),
        ):
            kernel = np.zeros_like(full)
            kernel[rows, columns] = full[rows, columns]
            model.get_layer("a").set_weights([kernel, bias])
            smaller = check(model, random_images(rng, (length, length, 2)))
            assert smaller.get_layer("a").kernel_size == (left, left)


def test_plain_network_keeps_one_kernel_with_a_warning():
    model = chain(
        layers.Conv2D(4, 3, name="a"),
        layers.ReLU(),
        layers.Conv2D(4, 3, name="b"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, name="c"),
    )
    zero_kernels(model.get_layer("b"), slice(None))
    with pytest.warns(UserWarning, match=r"No live kernel is left in \['b'\]"):
        smaller = compact(model)
    images = random_images(np.random.default_rng(0), (8, 8, 3))
    assert relative_difference(model, smaller, images) <= TOLERANCE
    assert smaller.get_layer("a").filters == smaller.get_layer("b").filters == 1


def test_grouped_convolutions_stay_equally_wide():
    model = chain(
        layers.Conv2D(12, 1, name="a"),
        layers.Conv2D(12, 3, groups=3, name="b"),
        layers.Conv2D(2, 1),
    )
    zero_kernels(model.get_layer("a"), [0, 4, 5, 8, 9])
    zero_kernels(model.get_layer("b"), [1, 2, 4, 8, 9, 10, 11])
    kernel, bias = model.get_layer("b").get_weights()
    kernel[..., 8:] = 0
    model.get_layer("b").set_weights([kernel, bias])
    smaller = check(model, random_images(np.random.default_rng(0), (8, 8, 3)))
    b = smaller.get_layer("b")
    assert b.groups == 2
    assert b.kernel.shape == (3, 3, 3, 6)


def test_shared_layer_and_nested_model():
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same", name="s"), layers.ReLU()],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    x = inner(inner(layers.Conv2D(4, 1, name="first")(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    zero_kernels(inner.get_layer("s"), [0, 2])
    zero_kernels(model.get_layer("first"), [0])
    smaller = check(model, random_images(rng, (8, 8, 3)))
    assert smaller.get_layer("inner_s").kernel.shape == (3, 3, 3, 3)
    assert sum(isinstance(layer, layers.Conv2D) for layer in smaller.layers) == 2


def test_several_inputs_and_outputs_in_a_dict():
    a, b = keras.Input((6, 6, 2), name="a"), keras.Input((3,), name="b")
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(a))
    joined = layers.Concatenate()([x, layers.Dense(5, name="side")(b)])
    model = keras.Model({"a": a, "b": b}, {"x": layers.Dense(2)(joined), "y": joined})
    rng = np.random.default_rng(0)
    zero_kernels(model.get_layer("conv"), [1])
    data = {"a": random_images(rng, (6, 6, 2)), "b": random_images(rng, (3,))}
    smaller = check(model, data)
    assert smaller.get_layer("conv").filters == 4, "its channels are outputs of the model"
    assert "outputs of the model" in make_plan(model).explanations["conv"]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: [layers.Conv1D(6, 3, padding="causal", name="a"), layers.Conv1D(3, 5, name="b")],
         (9, 2)),
        (lambda: [layers.Conv3D(6, 3, padding="same", name="a"), layers.Conv3D(3, 3, name="b")],
         (5, 5, 5, 2)),
        (lambda: [layers.Dense(6, name="a"), layers.Dense(3, name="b")], (4, 5)),
    ],
)  # fmt: skip
def test_other_ranks(make, shape):
    model = chain(*make(), shape=shape)
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    zero_kernels(model.get_layer("a"), [1, 4])
    kernel, bias = model.get_layer("b").get_weights()
    if kernel.ndim > 2:
        kernel[0] = 0
    model.get_layer("b").set_weights([kernel, bias])
    smaller = check(model, random_images(rng, shape))
    assert smaller.get_layer("b").kernel.shape[-2] == 4
    if kernel.ndim > 2:
        assert smaller.get_layer("b").kernel.shape[0] == kernel.shape[0] - 1


def test_channels_first():
    if keras.config.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolution on a CPU")
    options = {"data_format": "channels_first"}
    model = chain(
        layers.Conv2D(6, 3, padding="same", name="a", **options),
        layers.BatchNormalization(axis=1),
        layers.ReLU(),
        layers.MaxPooling2D(2, **options),
        layers.Conv2D(5, 3, name="b", **options),
        layers.GlobalAveragePooling2D(**options),
        layers.Dense(2),
        shape=(3, 8, 8),
    )
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    zero_kernels(model.get_layer("a"), [1, 4])
    kernel, bias = model.get_layer("b").get_weights()
    kernel[0] = 0
    model.get_layer("b").set_weights([kernel, bias])
    smaller = check(model, random_images(rng, (3, 8, 8)))
    assert smaller.get_layer("b").kernel.shape == (2, 3, 4, 5)


def test_free_spatial_sizes():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    x = layers.Conv2D(5, 5, padding="same", name="b")(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    zero_kernels(model.get_layer("a"), [0, 2])
    kernel, bias = model.get_layer("b").get_weights()
    kernel[:2] = 0
    kernel[:, :2] = 0
    model.get_layer("b").set_weights([kernel, bias])
    smaller = compact(model)
    assert smaller.get_layer("b").kernel.shape == (3, 3, 4, 5)
    for size in (7, 10):
        images = random_images(np.random.default_rng(0), (size, size, 3))
        assert relative_difference(model, smaller, images) <= TOLERANCE


@keras.saving.register_keras_serializable(package="tests")
class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


def test_an_unknown_layer_is_an_error_that_names_it():
    model = chain(layers.Conv2D(4, 3, name="a"), Doubled(name="odd"), layers.Conv2D(2, 3))
    zero_kernels(model.get_layer("a"), [0])
    with pytest.raises(ValueError, match=r"'odd' of type Doubled is unknown.*opaque"):
        compact(model)
    images = random_images(np.random.default_rng(0), (8, 8, 3))
    for opaque in (("odd",), (Doubled,)):
        smaller = compact(model, opaque=opaque)
        assert relative_difference(model, smaller, images) <= TOLERANCE
        assert smaller.get_layer("a").filters == 4


def squared(x):
    return x * x


def test_an_unknown_activation_or_operation_is_an_error_that_names_it():
    model = chain(layers.Conv2D(4, 3, name="a", activation=squared))
    with pytest.raises(ValueError, match="'a' has an activation"):
        compact(model)
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, ops.fft2((inputs, inputs)))
    with pytest.raises(ValueError, match="of type FFT2 is unknown"):
        compact(model)


def test_a_subclassed_model_is_an_error():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"must be a functional model"):
        compact(Own())


def test_the_result_is_plain_keras_and_trains_on():
    model = StructuredBase(
        ((4, 3),) * 3, input_shape=(8, 8, 3), kernel_regularizer=KernelNumber(1e-3)
    )
    zero_kernels(model.get_layer("conv2"), [0])
    zero_kernels(model.get_layer("conv2_bn"), [0])
    smaller = compact(model)
    assert "tfconvbias" not in str(smaller.get_config())
    assert smaller.get_layer("conv2").filters == 3
    rng = np.random.default_rng(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    smaller.compile("adam", loss)
    images, labels = random_images(rng, (8, 8, 3), 16), rng.integers(0, 10, 16)
    history = smaller.fit(images, labels, epochs=12, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.filterwarnings("ignore:No live kernel is left")
def test_folding_normalizations():
    rng = np.random.default_rng(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, use_bias=False)(inputs)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(layers.ReLU()(x))
    x = layers.BatchNormalization(center=False)(x)
    x = layers.SeparableConv2D(5, 3, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2DTranspose(4, 3)(x)
    x = layers.BatchNormalization()(x)
    kept = layers.BatchNormalization(name="kept")(layers.Conv2D(4, 3, activation="relu")(x))
    x = layers.Dense(7)(layers.GlobalAveragePooling2D()(kept))
    model = keras.Model(inputs, layers.BatchNormalization()(x))
    scramble(model, rng)
    images = random_images(rng, (8, 8, 3))
    folded = compact(model, fold_normalization=True)
    assert relative_difference(model, folded, images) <= TOLERANCE
    left = [one.name for one in folded.layers if isinstance(one, layers.BatchNormalization)]
    assert left == ["kept"]
    assert len(compact(model).layers) > len(folded.layers)


def test_mixed_precision_model():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = StructuredBase(((4, 3),) * 3, input_shape=(8, 8, 3))
    finally:
        keras.config.set_dtype_policy(policy)
    zero_kernels(model.get_layer("conv2"), [0])
    zero_kernels(model.get_layer("conv2_bn"), [0])
    smaller = compact(model)
    assert smaller.get_layer("conv2").compute_dtype == "bfloat16"
    images = random_images(np.random.default_rng(0), (8, 8, 3))
    left, right = outputs_of(model, images)[0], outputs_of(smaller, images)[0]
    np.testing.assert_allclose(left, right, atol=0.05 * np.abs(left).max())


@pytest.mark.parametrize("join", ["Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"])
def test_two_tensors_of_two_channels(join):
    inputs = keras.Input((3,))
    outputs = getattr(layers, join)()([layers.Dense(2)(inputs), layers.Dense(2)(inputs)])
    check(keras.Model(inputs, outputs), random_images(np.random.default_rng(0), (3,)))


@pytest.mark.parametrize("width", [2, 4])
def test_a_vector_among_the_arguments_of_an_operation(width):
    inputs = keras.Input((4, 4, 3))
    conv = layers.Conv2D(width, 1)
    x = ops.multiply(conv(inputs), np.arange(1, width + 1, dtype="float32"))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    zero_kernels(conv, [0])
    smaller = check(model, random_images(np.random.default_rng(0), (4, 4, 3)))
    assert smaller.layers[1].filters == width - 1


def test_a_reshape_that_is_called_on_tensors_of_different_widths():
    first, second = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    reshape = layers.Reshape((16, 4), name="rows")
    a, b = layers.Conv2D(4, 1, name="a")(first), layers.Conv2D(4, 1, name="b")(second)
    heads = [layers.Dense(2)(layers.Flatten()(reshape(x))) for x in (a, b)]
    model = keras.Model([first, second], heads)
    zero_kernels(model.get_layer("a"), [0, 1, 3])
    zero_kernels(model.get_layer("b"), [2])
    images = [random_images(np.random.default_rng(0), (4, 4, 3)) for _ in range(2)]
    smaller = check(model, images)
    assert [smaller.get_layer(name).filters for name in "ab"] == [1, 3]


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_outputs_keep_their_names(bias):
    inputs = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(4, 1, name="a")(inputs)
    dead = layers.Conv2D(4, 1, name="dead")(x)
    joined = layers.Concatenate(name="joined")([x, layers.Conv2D(2, 1, name="none")(inputs)])
    model = keras.Model(inputs, [layers.Add(name="sum")([x, dead]), joined])
    zero_kernels(model.get_layer("dead"), slice(None))
    model.get_layer("dead").bias.assign([bias] * 4)
    smaller = check(model, random_images(np.random.default_rng(0), (4, 4, 3)))
    assert "dead" not in {layer.name for layer in smaller.layers}
    assert smaller.output_names == model.output_names


def test_outputs_keep_their_names_where_a_normalization_is_folded():
    model = chain(layers.Conv2D(4, 1, name="a"), layers.BatchNormalization(name="norm"))
    smaller = compact(model, fold_normalization=True)
    assert smaller.output_names == ["norm"]
