import keras
import numpy as np
import pytest
from keras import layers, ops

from tfconvbias.regularizers import Complexity, KernelSize, set_alpha


def chain():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(3, 3, name="first"),
            layers.Conv2D(4, 3, strides=2, padding="same", name="second"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


def sizes(model, name, norm="l2"):
    kernel = model.get_layer(name).kernel
    return np.asarray(ops.convert_to_numpy(KernelSize(0.0, norm=norm).measure(kernel)))


def widths(model, name):
    kernel = np.asarray(ops.convert_to_numpy(model.get_layer(name).kernel))
    return np.sqrt((kernel**2).sum(axis=(0, 1, 2)))


def measured(model):
    return float(ops.convert_to_numpy(model.measure()))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("number", lambda m: widths(m, "first").sum() + widths(m, "second").sum()),
        ("number_squared", lambda m: sum(widths(m, n).sum() ** 2 for n in ("first", "second"))),
        ("size", lambda m: sizes(m, "first").sum() + sizes(m, "second").sum()),
        ("size_squared", lambda m: sum((sizes(m, n) ** 2).sum() for n in ("first", "second"))),
        (
            "multiply_adds",
            lambda m: (
                36 * 2 * (sizes(m, "first") ** 2).sum()
                + 9 * widths(m, "first").sum() * (sizes(m, "second") ** 2).sum()
            ),
        ),
    ],
)
def test_forms_on_a_chain(form, expected):
    base = chain()
    assert measured(Complexity(base, 1.0, form=form)) == pytest.approx(expected(base), rel=1e-5)


def test_input_widths_where_branches_meet():
    inputs = keras.Input((4, 4, 1))
    a = layers.Conv2D(2, 1, name="a")(inputs)
    b = layers.Conv2D(2, 1, name="b")(inputs)
    added = layers.ReLU()(layers.Add()([a, b]))
    joined = layers.Concatenate()([added, a])
    outputs = layers.Conv2D(3, 3, name="c")(layers.BatchNormalization()(joined))
    base = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(outputs)))
    wa, wb = widths(base, "a"), widths(base, "b")
    width = np.maximum(wa, wb).sum() + wa.sum()
    expected = 16 * ((wa**2).sum() + (wb**2).sum()) + 4 * width * (sizes(base, "c") ** 2).sum()
    assert measured(Complexity(base, 1.0)) == pytest.approx(expected, rel=1e-5)


def test_a_kernel_of_a_group_reads_the_channels_of_its_group_only():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(6, 1, name="a")(inputs)
    x = layers.Conv2D(9, 3, groups=3, name="b")(x)
    base = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    # All kernels of `a` have the norm 2, so that each group reads two channels of norm 2.
    kernel, bias = base.get_layer("a").get_weights()
    base.get_layer("a").set_weights([kernel * 0 + np.sqrt(2), bias])
    expected = 16 * 2 * 6 * 2**2 + 4 * (2 * 2) * (sizes(base, "b") ** 2).sum()
    assert measured(Complexity(base, 1.0)) == pytest.approx(expected, rel=1e-5)


def test_folded_norms_ignore_the_scale_that_batch_normalization_undoes():
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(3, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm", epsilon=0.0)(x)
    base = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    gamma, beta = np.array([0.5, 2.0, 1.0]), np.zeros(3)
    variance = np.array([4.0, 1.0, 0.25])
    base.get_layer("norm").set_weights([gamma, beta, beta, variance])
    expected = (gamma / np.sqrt(variance) * widths(base, "conv")).sum()
    folded = Complexity(base, 1.0, form="number", fold_normalization=True)
    assert measured(folded) == pytest.approx(expected, rel=1e-5)
    kernel = base.get_layer("conv").get_weights()[0]
    base.get_layer("conv").set_weights([kernel * 10])
    base.get_layer("norm").set_weights([gamma, beta, beta, variance * 100])
    assert measured(folded) == pytest.approx(expected, rel=1e-5)


def test_folded_norms_of_a_transposed_kernel_are_those_of_its_outputs():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2DTranspose(3, 3, use_bias=False, name="up")(inputs)
    x = layers.BatchNormalization(name="norm", epsilon=0.0)(x)
    base = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    gamma, variance = np.array([0.5, 2.0, 1.0]), np.array([4.0, 1.0, 0.25])
    base.get_layer("norm").set_weights([gamma, 0 * gamma, 0 * gamma, variance])
    (kernel,) = base.get_layer("up").get_weights()
    # The kernel's shape is (rows, columns, outputs, inputs).
    norms = np.sqrt((kernel**2).sum(axis=(0, 1, 3)))
    folded = Complexity(base, 1.0, form="number", fold_normalization=True)
    expected = (gamma / np.sqrt(variance) * norms).sum()
    assert measured(folded) == pytest.approx(expected, rel=1e-5)


def test_training_step_adds_alpha_times_the_penalty():
    base = chain()
    model = Complexity(base, 0.0, form="size", fold_normalization=True)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    penalty = measured(model)

    class AlphaIsEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            assert set_alpha(self.model, epoch) == 1

    data = np.zeros((4, 8, 8, 2)), np.zeros((4, 5))
    history = model.fit(*data, epochs=3, verbose=0, callbacks=[AlphaIsEpoch()]).history["loss"]
    np.testing.assert_allclose(np.diff(history), penalty, rtol=1e-4)


def test_training_the_wrapper_trains_the_base():
    base = chain()
    before = base.get_layer("first").get_weights()[0]
    model = Complexity(base, 1e-3)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(4, 8, 8, 2)), np.zeros((4, 5)), epochs=2, verbose=0)
    after = base.get_layer("first").get_weights()[0]
    assert np.linalg.norm(after) < np.linalg.norm(before)
    assert model.count_params() == base.count_params()


def test_save_and_load(tmp_path):
    model = Complexity(chain(), 0.1, form="size_squared", groups="ring")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32")
    expected = ops.convert_to_numpy(model(images))
    model.alpha = 0.2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(images)), expected, rtol=1e-6)
    assert float(loaded.alpha) == pytest.approx(0.2)
    assert measured(loaded) == pytest.approx(measured(model))


def test_bad_arguments():
    with pytest.raises(ValueError, match="alpha=-1"):
        Complexity(chain(), -1)
    with pytest.raises(ValueError, match="`form` must be one of"):
        Complexity(chain(), 1.0, form="depth")
    with pytest.raises(ValueError, match="no convolution or dense layer to penalize"):
        Complexity(keras.Sequential([keras.Input((4,)), layers.Dense(2)]), 1.0)
    inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 3, name="open")(inputs)
    free = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match=r"known spatial sizes.*'open'"):
        Complexity(free, 1.0)
    Complexity(free, 1.0, form="size")
    x = layers.Conv2D(2, (1, 3), name="flat")(inputs)
    uneven = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match=r"'flat'.*spatial axes of one size"):
        Complexity(uneven, 1.0, form="size")


def test_a_subclassed_model_cannot_be_read():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"functional `keras.Model`"):
        Complexity(Own(), 1.0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("form", ["number", "size"])
def test_the_folded_penalty_pulls_at_no_kernels_length(form):
    import tensorflow as tf

    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    base = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model = Complexity(base, 1.0, form=form, fold_normalization=True)
    kernel, gamma = base.get_layer("conv").kernel, base.get_layer("norm").gamma
    with tf.GradientTape() as tape:
        penalty = model.measure()
    of_kernel, of_gamma = tape.gradient(penalty, [kernel.value, gamma.value])
    along = np.sum(of_kernel.numpy() * kernel.numpy(), axis=(0, 1, 2))
    np.testing.assert_allclose(along, 0, atol=1e-5)
    # Sizes pull at the taps against each other; the number of kernels at γ alone.
    assert (np.abs(of_kernel.numpy()).max() > 1e-2) == (form == "size")
    assert (of_gamma.numpy() > 0.1).all()
