import keras
import numpy as np
import pytest
from keras import layers, ops
from random_models import outputs_of, random_images, relative_difference, scramble

from tfconvbias.models import StructuredBase
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import KernelNumber, KernelSize, following_gammas
from tfconvbias.surgery import compact, threshold


def one_convolution(regularizer, size=3, filters=4, **kwargs):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(filters, size, kernel_regularizer=regularizer, name="a", **kwargs),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="fc"),
        ]
    )


def kernel_of(model, name="a"):
    return model.get_layer(name).get_weights()[0]


def scaled(model, factors):
    kernel, bias = model.get_layer("a").get_weights()
    kernel /= np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    model.get_layer("a").set_weights([kernel * np.array(factors, "float32"), bias + 1.0])
    return model


@pytest.mark.parametrize(
    ("shifts", "expected"), [("keep", [1.0] * 4), ("drop", [0.0, 1.0, 0.0, 1.0])]
)
def test_kernels_at_or_below_tau_go_with_their_bias_if_that_is_asked_for(shifts, expected):
    model = scaled(one_convolution(KernelNumber(0.1)), [0.01, 0.5, 0.09, 2.0])
    before = [w.copy() for w in model.get_weights()]
    zeroed = threshold(model, 0.1, shifts=shifts)
    kernel, bias = zeroed.get_layer("a").get_weights()
    assert (kernel == 0).all(axis=(0, 1, 2)).tolist() == [True, False, True, False]
    assert bias.tolist() == expected
    np.testing.assert_array_equal(kernel[..., [1, 3]], before[0][..., [1, 3]])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_relative_tau_is_a_fraction_of_the_largest_kernel():
    model = scaled(one_convolution(KernelNumber(0.1)), [0.01, 0.5, 0.09, 2.0])
    dead = (kernel_of(threshold(model, 0.3, relative=True)) == 0).all(axis=(0, 1, 2))
    assert dead.tolist() == [True, True, True, False]


@pytest.mark.parametrize("norm", ["l2", "normalized", "scaled", "linf"])
@pytest.mark.parametrize("groups", ["half_ring", "ring"])
def test_rings_by_the_norm_that_the_penalty_used(groups, norm):
    penalty = KernelSize(0.1, groups=groups, norm=norm)
    model = one_convolution(penalty, size=5, filters=8)
    kernel, bias = model.get_layer("a").get_weights()
    kernel[[0, -1]] *= 0.02
    kernel[:, [0, -1]] *= 0.02
    model.get_layer("a").set_weights([kernel, bias])
    norms = np.asarray(ops.convert_to_numpy(penalty.group_norms(ops.convert_to_tensor(kernel))))
    tau = float(np.median(norms[:2]))
    zeroed = kernel_of(threshold(model, tau))
    left = np.asarray(ops.convert_to_numpy(penalty.group_norms(ops.convert_to_tensor(zeroed))))
    assert (left[norms <= tau] == 0).all()
    assert (zeroed == 0).any()
    touched = zeroed != kernel
    assert (zeroed[touched] == 0).all()


def test_folded_norms():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(3, 3, use_bias=False, kernel_regularizer=KernelNumber(0.1), name="a")(inputs)
    x = layers.BatchNormalization(name="norm", epsilon=0.0)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    kernel = kernel_of(model)
    kernel /= np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    model.get_layer("a").set_weights([kernel])
    ones = np.ones(3)
    gamma, variance = np.array([0.1, 1.0, 1.0]), np.array([1.0, 100.0, 1.0])
    model.get_layer("norm").set_weights([gamma, ones, ones, variance])
    zeroed = threshold(model, 0.2, fold_normalization=True, shifts="drop")
    assert (kernel_of(zeroed) == 0).all(axis=(0, 1, 2)).tolist() == [True, True, False]
    gamma, beta, mean, variance = zeroed.get_layer("norm").get_weights()
    for cleared in (gamma, beta, mean):
        assert (cleared == 0).tolist() == [True, True, False]
    assert variance.tolist() == [1.0, 100.0, 1.0]


def test_a_dead_channel_is_silent_without_a_scale_or_shift():
    for options in ({"scale": False}, {"center": False}, {"scale": False, "center": False}):
        inputs = keras.Input((8, 8, 2))
        x = layers.Conv2D(3, 3, kernel_regularizer=KernelNumber(0.1), name="a")(inputs)
        x = layers.BatchNormalization(**options)(x)
        model = keras.Model(inputs, x)
        scramble(model, np.random.default_rng(0), dead_share=0.0)
        scaled(model, [0.01, 1.0, 1.0])
        images = random_images(np.random.default_rng(0), (8, 8, 2))
        assert (outputs_of(threshold(model, 0.1, shifts="drop"), images)[0][..., 0] == 0).all()


def test_any_model_with_a_regularizer_given():
    model = scaled(one_convolution(None), [0.01, 0.5, 0.09, 2.0])
    zeroed = threshold(model, 0.1, regularizer=KernelNumber(0.0))
    assert (kernel_of(zeroed) == 0).all(axis=(0, 1, 2)).sum() == 2
    np.testing.assert_array_equal(kernel_of(threshold(model, 0.1)), kernel_of(zeroed))
    np.testing.assert_array_equal(kernel_of(zeroed, "fc"), kernel_of(model, "fc"))


def test_without_regularizer_and_tau_kernels_of_zero_norm_go():
    """As a model that the `Proximal` optimizer trained has them, with no penalty in its layers."""
    model = scaled(one_convolution(None), [0.0, 0.5, 0.0, 2.0])
    zeroed = threshold(model)
    np.testing.assert_array_equal(kernel_of(zeroed), kernel_of(model))
    assert compact(zeroed).get_layer("a").filters == 2
    dense = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="fc")])
    with pytest.raises(ValueError, match="nothing to apply the threshold to"):
        threshold(dense)


def test_depthwise_kernels():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.DepthwiseConv2D(
                3,
                depth_multiplier=2,
                depthwise_regularizer=KernelNumber(0.1, kernel_axes=(-2, -1)),
                name="a",
            ),
            layers.Conv2D(2, 1),
        ]
    )
    kernel, bias = model.get_layer("a").get_weights()
    kernel[:, :, 1, 0] *= 1e-6
    model.get_layer("a").set_weights([kernel, bias + 1])
    zeroed, bias = threshold(model, 1e-3, shifts="drop").get_layer("a").get_weights()
    assert np.argwhere((zeroed == 0).all(axis=(0, 1))).tolist() == [[1, 0]]
    assert np.flatnonzero(bias == 0).tolist() == [2]


def test_a_plain_network_keeps_its_largest_kernel_with_a_warning():
    model = StructuredBase(
        ((4, 3),) * 3, residual=False, input_shape=(8, 8, 3), kernel_regularizer=KernelNumber(0.1)
    )
    kernel = kernel_of(model, "conv2") * 1e-4
    kernel[..., 2] *= 2
    model.get_layer("conv2").set_weights([kernel])
    with pytest.warns(UserWarning, match=r"every kernel of \['conv2'\].*largest kernel of each"):
        zeroed = threshold(model, 1e-2)
    dead = (kernel_of(zeroed, "conv2") == 0).all(axis=(0, 1, 2))
    assert dead.tolist() == [True, True, False, True]
    assert compact(zeroed).get_layer("conv2").filters == 1


def test_layers_of_a_residual_network_vanish():
    model = StructuredBase(
        ((4, 3),) * 5,
        input_shape=(8, 8, 3),
        strides=(1,) * 5,
        kernel_regularizer=KernelSize(0.1),
    )
    scramble(model, np.random.default_rng(0), dead_share=0.0)
    model.get_layer("conv4").set_weights([kernel_of(model, "conv4") * 1e-5])
    model.get_layer("conv5").set_weights([kernel_of(model, "conv5") * 1e-5])
    smaller = compact(threshold(model, 1e-3))
    names = {layer.name for layer in smaller.layers}
    assert not names & {"conv4", "conv5"}
    assert {"conv1", "conv2", "conv3"} <= names


def test_branches_that_are_dead_together_leave_one():
    model = StructuredBase(
        ((4, 3), (6, 3), (6, 3)), input_shape=(8, 8, 3), kernel_regularizer=KernelNumber(0.1)
    )
    # The one with the largest kernel is left, though its other kernels are smaller than all others.
    for name, factor in (("conv2_shortcut", [2e-4] + [1e-7] * 5), ("conv3", 1e-5)):
        model.get_layer(name).set_weights([kernel_of(model, name) * factor])
    with pytest.warns(UserWarning, match="conv2_shortcut"):
        zeroed = threshold(model, 1e-2)
    assert (kernel_of(zeroed, "conv2_shortcut") != 0).any()
    assert (kernel_of(zeroed, "conv3") == 0).all()


def test_bad_tau():
    model = scaled(one_convolution(KernelNumber(0.1)), [0.01, 0.5, 0.09, 2.0])
    for tau in (-1, float("nan"), "a"):
        with pytest.raises(ValueError, match=f"`tau` must be .* Received: tau={tau}"):
            threshold(model, tau)
    with pytest.raises(ValueError, match=r"removes every kernel.*tau=100.*'a': 2\.0"):
        threshold(model, 100)
    with pytest.raises(ValueError, match=r"`shifts` must be 'keep' or 'drop'.*'fold'"):
        threshold(model, 0.1, shifts="fold")


@pytest.mark.parametrize("dead", ["conv2", "conv3"])
def test_a_branch_with_one_dead_layer_goes_whole(dead):
    model = StructuredBase(((4, 3), (4, 3), (4, 3)), input_shape=(8, 8, 3))
    scramble(model, np.random.default_rng(0))
    layer = model.get_layer(dead)
    layer.set_weights([layer.get_weights()[0] * 1e-6])
    zeroed = threshold(model, 1e-3, regularizer=KernelNumber(0.0), shifts="drop")
    small = compact(zeroed)
    assert not {"conv2", "conv3"} & {layer.name for layer in small.layers}
    images = random_images(np.random.default_rng(1), (8, 8, 3))
    np.testing.assert_allclose(outputs_of(small, images), outputs_of(zeroed, images), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_zeros_go_on_through_activations_that_keep_them(activation):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(3, 3, padding="same", name="first")(inputs)
    x = layers.Activation(activation)(x)
    x = layers.Conv2D(3, 3, padding="same", name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([inputs, x]))
    model = keras.Model(inputs, layers.Dense(2)(x))
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * 1e-6, bias])
    zeroed = threshold(model, 1e-3, regularizer=KernelNumber(0.0), shifts="drop")
    assert not kernel_of(zeroed, "first").any()
    # sigmoid(0) is no zero: what the second layer makes of it stays.
    assert kernel_of(zeroed, "second").any() == (activation == "sigmoid")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dead_branches_go_whole_in_every_rank(rank):
    """Zeros pass through padding, pooling, cropping, upsampling, dropout and joins alike."""
    convolution = getattr(layers, f"Conv{rank}D")
    inputs = keras.Input((6,) * rank + (3,))
    x = convolution(3, 3, padding="same", name="first")(inputs)
    x = getattr(layers, f"ZeroPadding{rank}D")(1)(x)
    x = getattr(layers, f"Cropping{rank}D")(1)(x)
    x = layers.LeakyReLU()(layers.Dropout(0.5)(x))
    x = getattr(layers, f"MaxPooling{rank}D")(2)(x)
    x = getattr(layers, f"UpSampling{rank}D")(2)(x)
    x = getattr(layers, f"AveragePooling{rank}D")(1)(x)
    x = layers.Concatenate()([x, layers.ELU()(x)])
    x = convolution(3, 3, padding="same", name="second")(x)
    x = layers.Add()([inputs, x])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * 1e-6, bias])
    zeroed = threshold(model, 1e-3, regularizer=KernelNumber(0.0), shifts="drop")
    assert not kernel_of(zeroed, "second").any()


def test_a_constant_in_an_operation_is_no_zero():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(3, 3, padding="same", name="first")(inputs) + 1.0
    x = layers.Conv2D(3, 3, padding="same", name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([inputs, x]))
    model = keras.Model(inputs, layers.Dense(2)(x))
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel * 1e-6, bias])
    zeroed = threshold(model, 1e-3, regularizer=KernelNumber(0.0), shifts="drop")
    assert kernel_of(zeroed, "second").any()


def penalized_network(residual=True):
    """Zero kernels under normalizations that shift, as the proximal optimizer leaves them."""
    model = StructuredBase(
        ((8, 3),) * 5, residual=residual, input_shape=(8, 8, 3), strides=(1, 1, 1, 2, 1), classes=3
    )
    rng = np.random.default_rng(0)
    scramble(model, rng, dead_share=0.0)
    for name, dead in (("conv1", 2), ("conv2", 5), ("conv4", 8), ("conv5", 3)):
        kernel = kernel_of(model, name)
        kernel[..., :dead] = 0
        model.get_layer(name).set_weights([kernel])
    return model


@pytest.mark.parametrize("fold_normalization", [False, True])
def test_a_threshold_of_zero_changes_nothing(fold_normalization):
    model = penalized_network()
    images = random_images(np.random.default_rng(1), (8, 8, 3))
    penalty = KernelNumber(0.0)
    zeroed = threshold(model, 0, regularizer=penalty, fold_normalization=fold_normalization)
    assert relative_difference(model, zeroed, images) == 0
    smaller = compact(zeroed)
    assert relative_difference(model, smaller, images) <= 1e-5
    # conv4 is dead and conv5 reads its constants next to zero padding: one of them is left.
    widths = {name: smaller.get_layer(name).filters for name in ("conv2", "conv4")}
    assert widths == {"conv2": 3 + 1, "conv4": 1}
    silent = threshold(model, 0, regularizer=penalty, shifts="drop")
    assert relative_difference(model, silent, images) > 0.1


def test_a_trained_network_keeps_its_accuracy():
    """Classes that differ by their brightness, learned with the proximal step."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 240)
    images = rng.normal(labels[:, None, None, None] - 1.0, 1.0, (240, 8, 8, 1)).astype("float32")
    model = StructuredBase(((8, 3),) * 5, input_shape=(8, 8, 1), strides=(1, 1, 1, 2, 1), classes=3)
    inner = keras.optimizers.SGD(0.02, momentum=0.9)
    optimizer = Proximal(inner, KernelNumber(0.0), 0.5, gammas=following_gammas(model))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(images, labels, batch_size=24, epochs=16, verbose=0)
    accuracy = model.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"]
    assert accuracy > 0.9
    smaller = compact(threshold(model, 0, regularizer=KernelNumber(0.0)))
    assert smaller.count_params() < 0.7 * model.count_params()
    predicted = outputs_of(smaller, images)[0].argmax(axis=1)
    assert (predicted == labels).mean() == pytest.approx(accuracy)


def test_a_kernel_that_goes_leaves_its_mean():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(3, 3, activation="tanh", kernel_regularizer=KernelNumber(0.1), name="a")(
        inputs
    )
    model = keras.Model(inputs, layers.BatchNormalization(name="norm")(x))
    scramble(model, np.random.default_rng(0), dead_share=0.0)
    scaled(model, [0.01, 1.0, 0.0])
    before = outputs_of(model, np.zeros((1, 8, 8, 2), "float32"))[0]
    zeroed = threshold(model, 0.1)
    images = random_images(np.random.default_rng(1), (8, 8, 2))
    after = outputs_of(zeroed, images)[0]
    beta = model.get_layer("norm").get_weights()[1]
    np.testing.assert_allclose(after[..., 0], beta[0], rtol=1e-5)
    # One that was zero emits what it did before.
    np.testing.assert_allclose(after[..., 2], before[0, 0, 0, 2], rtol=1e-5)


@pytest.mark.parametrize("shifts", ["keep", "drop"])
def test_a_normalization_of_two_layers_keeps_what_the_live_one_needs(shifts):
    inputs = keras.Input((6, 6, 2))
    normalization = layers.BatchNormalization()
    first = layers.Conv2D(3, 3, use_bias=False, name="a")(inputs)
    second = layers.Conv2D(3, 3, use_bias=False, name="b")(inputs)
    model = keras.Model(inputs, [normalization(first), normalization(second)])
    scramble(model, np.random.default_rng(0), dead_share=0.0)
    model.get_layer("a").set_weights([kernel_of(model, "a") * np.array([1e-6, 1, 1e-6])])
    model.get_layer("b").set_weights([kernel_of(model, "b") * np.array([1, 1, 1e-6])])
    zeroed = threshold(model, 1e-3, regularizer=KernelNumber(0.0), shifts=shifts)
    images = random_images(np.random.default_rng(1), (6, 6, 2))
    expected, found = outputs_of(model, images)[1], outputs_of(zeroed, images)[1]
    np.testing.assert_allclose(found[..., :2], expected[..., :2], rtol=1e-5)
    assert (found[..., 2] == 0).all() == (shifts == "drop")


@pytest.mark.parametrize("shifts", ["keep", "drop"])
def test_a_normalization_of_rows_keeps_its_rows(shifts):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    model = keras.Model(inputs, layers.BatchNormalization(axis=1, name="norm")(x))
    scramble(model, np.random.default_rng(0), dead_share=0.0)
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., :3] = 0
    bias[:3] = 0
    model.get_layer("a").set_weights([kernel, bias])
    zeroed = threshold(model, 0, regularizer=KernelNumber(0.0), shifts=shifts)
    images = random_images(np.random.default_rng(1), (6, 6, 2))
    assert relative_difference(model, zeroed, images) == 0
    assert relative_difference(model, compact(zeroed), images) <= 1e-5


def test_separable_dense_and_uneven_kernels():
    inputs = keras.Input((9, 9, 2))
    x = layers.Conv2D(4, (1, 7), name="uneven")(inputs)
    x = layers.SeparableConv2D(3, 3, depth_multiplier=2, name="separable")(x)
    x = layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    kernel, bias = model.get_layer("uneven").get_weights()
    kernel[..., 1] *= 1e-6
    model.get_layer("uneven").set_weights([kernel, bias])
    depthwise, pointwise, bias = model.get_layer("separable").get_weights()
    depthwise[[0, -1]] *= 1e-6
    depthwise[:, [0, -1]] *= 1e-6
    depthwise[:, :, 2, 1] *= 1e-6
    pointwise[..., 2] *= 1e-6
    model.get_layer("separable").set_weights([depthwise, pointwise, bias])
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[:, [0, 3]] *= 1e-6
    model.get_layer("dense").set_weights([kernel, bias])
    penalty = KernelSize(0.0)
    zeroed = threshold(model, 1e-3, regularizer=penalty)
    dead = (kernel_of(zeroed, "uneven") == 0).all(axis=(0, 1, 2))
    assert dead.tolist() == [False, True, False, False]
    rings, columns, _ = zeroed.get_layer("separable").get_weights()
    alive = np.zeros((3, 3, 4, 2), bool)
    alive[1, 1] = True
    alive[1, 1, 2, 1] = False
    np.testing.assert_array_equal(rings != 0, alive)
    assert (columns == 0).all(axis=(0, 1, 2)).tolist() == [False, False, True]
    np.testing.assert_array_equal(kernel_of(zeroed, "dense"), kernel)
    for chosen in (("dense",), (layers.Dense,)):
        zeroed = threshold(model, 1e-3, regularizer=penalty, layers=chosen)
        dead = (kernel_of(zeroed, "dense") == 0).all(axis=0)
        assert dead.tolist() == [True, False, False, True, False]
        assert (kernel_of(zeroed, "uneven") != 0).all()
    with pytest.raises(ValueError, match=r"nothing to apply.*layers=\('other',\)"):
        threshold(model, 1e-3, regularizer=penalty, layers=("other",))


def quantized(model):
    model.get_layer("dense").quantize("int8")


def with_lora(model):
    model.get_layer("dense").enable_lora(2)


def with_nan(model):
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[0, 0] = np.nan
    model.get_layer("dense").set_weights([kernel, bias])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quantized, "'dense' is quantized to int8"),
        (with_lora, "'dense' has LoRA weights"),
        (with_nan, "'dense' has NaN or infinite weights in its `kernel`"),
    ],
)
def test_kernels_that_cannot_be_judged_are_refused(change, message):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="dense"), layers.Dense(2, name="last")]
    )
    change(model)
    with pytest.raises(ValueError, match=message):
        threshold(model, 0.1, regularizer=KernelNumber(0.0), layers=(layers.Dense,))
    with pytest.raises(ValueError, match=message):
        compact(model)
