import keras
import numpy as np
import pytest
from keras import layers, ops

from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import KernelNumber, KernelSize, following_gammas, proximal_optimizer


def small_model(name="conv"):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name=name),
            layers.Flatten(),
            layers.Dense(3, name="fc"),
        ]
    )


def data(count=8):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(count, 6, 6, 2)).astype("float32"),
        rng.normal(size=(count, 3)).astype("float32"),
    )


def kernel_of(model, name="conv"):
    return model.get_layer(name).get_weights()[0]


def test_one_step_is_the_inner_step_followed_by_the_proximal_operator():
    penalty = KernelSize(0.0)
    plain, model = small_model(), small_model()
    model.set_weights(plain.get_weights())
    x, y = data()
    plain.compile(keras.optimizers.SGD(0.1), "mse")
    plain.fit(x, y, batch_size=8, verbose=0)
    model.compile(Proximal(keras.optimizers.SGD(0.1), penalty, alpha=2.0), "mse")
    model.fit(x, y, batch_size=8, verbose=0)
    expected = ops.convert_to_numpy(
        penalty.proximal(ops.convert_to_tensor(kernel_of(plain)), 0.1 * 2.0)
    )
    np.testing.assert_allclose(kernel_of(model), expected, rtol=1e-5, atol=1e-7)
    for mine, theirs in zip(model.get_weights()[1:], plain.get_weights()[1:], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_whole_groups_become_exactly_zero(inner):
    model = small_model()
    optimizer = Proximal(keras.optimizers.get(inner), KernelNumber(0.0), alpha=2.0)
    optimizer.learning_rate = 0.05
    model.compile(optimizer, "mse")
    model.fit(*data(), epochs=30, batch_size=4, verbose=0)
    dead = (kernel_of(model) == 0).reshape(-1, 4)
    assert dead.all(axis=0).any()
    assert (dead.all(axis=0) == dead.any(axis=0)).all()
    assert (kernel_of(model, "fc") != 0).all()


def test_alpha_changes_inside_a_compiled_step():
    model = small_model()
    optimizer = Proximal(keras.optimizers.SGD(0.01), KernelNumber(0.0), alpha=0.0)
    jit = keras.config.backend() != "torch"
    model.compile(optimizer, "mse", jit_compile=jit)
    x, y = data()
    model.fit(x, y, verbose=0)
    assert (kernel_of(model) != 0).all()
    optimizer.alpha = 1e4
    model.fit(x, y, verbose=0)
    assert (kernel_of(model) == 0).all()


def test_alpha_follows_a_schedule():
    model = small_model()
    alpha = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.0, 1e4])
    model.compile(Proximal(keras.optimizers.SGD(0.01), KernelNumber(0.0), alpha), "mse")
    x, y = data()
    model.fit(x, y, batch_size=4, verbose=0)
    assert (kernel_of(model) != 0).all()
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert (kernel_of(model) == 0).all()


def test_gradient_accumulation_shrinks_on_real_updates_only():
    model = small_model()
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model.compile(Proximal(inner, KernelNumber(0.0), alpha=1.0), "mse")
    x, y = data(4)
    before = kernel_of(model)
    model.fit(x, y, batch_size=4, verbose=0)
    np.testing.assert_array_equal(kernel_of(model), before)
    model.fit(x, y, batch_size=4, verbose=0)
    norms = [np.sqrt((k**2).sum(axis=(0, 1, 2))) for k in (before, kernel_of(model))]
    assert (norms[1] < norms[0] - 0.02).all()


def test_loss_scaling():
    plain, scaled = small_model(), small_model()
    scaled.set_weights(plain.get_weights())
    x, y = data()
    for model, factor in ((plain, None), (scaled, 128.0)):
        inner = keras.optimizers.SGD(0.1, loss_scale_factor=factor)
        model.compile(Proximal(inner, KernelSize(0.0), alpha=0.5), "mse")
        model.fit(x, y, verbose=0)
    np.testing.assert_allclose(kernel_of(plain), kernel_of(scaled), rtol=1e-4, atol=1e-6)


def test_dynamic_loss_scaling_wraps_it():
    model = small_model()
    inner = Proximal(keras.optimizers.SGD(0.1), KernelNumber(0.0), alpha=1e4)
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0), "mse")
    model.fit(*data(), verbose=0)
    assert (kernel_of(model) == 0).all()


def test_save_and_resume_equals_uninterrupted(tmp_path):
    x, y = data()

    def compiled():
        model = small_model()
        inner = keras.optimizers.SGD(0.05, momentum=0.9)
        model.compile(Proximal(inner, KernelSize(0.0, groups="ring"), alpha=0.3), "mse")
        return model

    whole, halves = compiled(), compiled()
    halves.set_weights(whole.get_weights())
    whole.fit(x, y, epochs=4, shuffle=False, verbose=0)
    halves.fit(x, y, epochs=2, shuffle=False, verbose=0)
    halves.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    assert isinstance(resumed.optimizer.penalty, KernelSize)
    resumed.fit(x, y, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(kernel_of(resumed), kernel_of(whole), rtol=1e-5, atol=1e-7)


def test_choice_of_variables():
    model = small_model()
    optimizer = Proximal("sgd", KernelNumber(0.0), alpha=1e6, penalized="fc/kernel")
    model.compile(optimizer, "mse")
    model.fit(*data(), verbose=0)
    assert (kernel_of(model, "fc") == 0).all()
    assert (kernel_of(model) != 0).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`penalty` must have a method `proximal"):
        Proximal("sgd", keras.regularizers.L2(0.1), alpha=0.1)
    with pytest.raises(ValueError, match="`use_ema` must be given to `Proximal`"):
        Proximal(keras.optimizers.SGD(use_ema=True), KernelNumber(0.0), alpha=0.1)
    with pytest.raises(ValueError, match="alpha=-1"):
        Proximal("sgd", KernelNumber(0.0), alpha=-1)
    model = small_model()
    with pytest.raises(ValueError, match="matches none"):
        Proximal("sgd", KernelNumber(0.0), 0.1, penalized="nothing").build(
            model.trainable_variables
        )
    with pytest.raises(ValueError, match=r"fc/kernel.*spatial axes"):
        Proximal("sgd", KernelSize(0.0), 0.1, penalized="fc").build(model.trainable_variables)
    with pytest.raises(ValueError, match="can be saved only"):
        Proximal("sgd", KernelSize(0.0), 0.1, penalized=lambda v: True).get_config()


def _normalized_model():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    outputs = layers.Dense(2, name="fc")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    gamma = np.array([1.0, -0.5, 0.02, 0.3], "float32")
    model.get_layer("norm").gamma.assign(gamma)
    return model, gamma


def test_gammas_shrink_in_place_of_the_kernels_they_scale():
    model, _ = _normalized_model()
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    gammas = following_gammas(model)
    assert gammas == {"conv/kernel": "norm/gamma"}
    optimizer = Proximal(keras.optimizers.SGD(0.5), KernelNumber(0.0), 0.1, gammas=gammas)
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros_like(v.value) for v in model.trainable_variables])
    found = keras.ops.convert_to_numpy(model.get_layer("norm").gamma)
    np.testing.assert_allclose(found, [0.95, -0.45, 0.0, 0.25], rtol=1e-5)
    left = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    np.testing.assert_allclose(left[..., [0, 1, 3]], kernel[..., [0, 1, 3]], rtol=1e-5)
    assert not left[..., 2].any()


def test_a_kernel_removed_with_its_gamma_stays_removed():
    model, _ = _normalized_model()
    inner = keras.optimizers.SGD(0.5, momentum=0.9)
    optimizer = Proximal(inner, KernelNumber(0.0), 0.1, gammas=following_gammas(model))
    optimizer.build(model.trainable_variables)
    push = [ops.ones_like(v.value) for v in model.trainable_variables]
    still = [ops.zeros_like(v.value) for v in model.trainable_variables]
    model.get_layer("norm").gamma.assign([3.0, 3.0, 0.52, 3.0])
    optimizer.apply(push)  # takes the third γ to zero, with a velocity that leads on
    optimizer.alpha = 0.0
    for _ in range(2):
        optimizer.apply(still)
    gamma = ops.convert_to_numpy(model.get_layer("norm").gamma)
    assert gamma[2] == 0
    assert not kernel_of(model)[..., 2].any()
    assert (gamma[[0, 1, 3]] != 0).all()


def test_gammas_with_sizes_are_the_operator_on_the_unit_kernel_times_gamma():
    model, gamma = _normalized_model()
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    penalty = KernelSize(0.0)
    optimizer = Proximal("sgd", penalty, 5.0, gammas=following_gammas(model))
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros_like(v.value) for v in model.trainable_variables])
    lengths = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    folded = ops.convert_to_tensor(kernel / lengths * gamma)
    expected = keras.ops.convert_to_numpy(penalty.proximal(folded, 0.05))
    left = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    scale = keras.ops.convert_to_numpy(model.get_layer("norm").gamma)
    np.testing.assert_allclose(left / lengths * scale, expected, atol=1e-6)
    assert (np.sign(scale) * np.sign(gamma) >= 0).all()
    alive = scale != 0
    assert 0 < alive.sum() < 4
    new_lengths = np.sqrt((left**2).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose(new_lengths[alive], lengths[alive], rtol=1e-5)


def test_gammas_survive_saving_and_bad_paths_are_refused():
    model, _ = _normalized_model()
    optimizer = Proximal("sgd", KernelNumber(0.0), 0.1, gammas=following_gammas(model))
    again = Proximal.from_config(optimizer.get_config())
    assert again.gammas == optimizer.gammas
    wrong = Proximal("sgd", KernelNumber(0.0), 0.1, gammas={"conv/kernel": "other/gamma"})
    with pytest.raises(ValueError, match="other/gamma"):
        wrong.build(model.trainable_variables)


def test_a_shared_kernel_has_no_single_gamma():
    inputs = keras.Input((6, 6, 2))
    conv = keras.layers.Conv2D(2, 3, padding="same")
    x = keras.layers.BatchNormalization()(conv(inputs))
    outputs = keras.layers.BatchNormalization()(conv(x))
    assert following_gammas(keras.Model(inputs, outputs)) == {}


def test_a_gamma_that_starts_at_zero_keeps_its_kernel():
    model, _ = _normalized_model()
    kernel = kernel_of(model)
    model.get_layer("norm").gamma.assign([0.0, 1.0, 0.02, 0.0])
    optimizer = Proximal(
        keras.optimizers.SGD(0.5), KernelNumber(0.0), 0.1, gammas=following_gammas(model)
    )
    variables = model.trainable_variables
    optimizer.build(variables)
    pull = {"norm/gamma": np.array([-0.01, 0.0, 0.0, -1.0], "float32")}
    for _ in range(2):
        optimizer.apply(
            [
                ops.convert_to_tensor(pull.get(v.path, np.zeros(v.shape, "float32")))
                for v in variables
            ]
        )
    gamma = ops.convert_to_numpy(model.get_layer("norm").gamma)
    # The pull has to exceed α = 0.1; then each step of 0.5 adds 0.5 and takes away 0.05.
    np.testing.assert_allclose(gamma, [0.0, 0.9, 0.0, 0.9], atol=1e-6)
    left = kernel_of(model)
    np.testing.assert_allclose(left[..., [0, 1, 3]], kernel[..., [0, 1, 3]], rtol=1e-5)
    assert not left[..., 2].any()


def _every_kind():
    inputs = keras.Input((9, 9, 2))
    x = layers.Conv2D(4, (1, 3), use_bias=False, name="uneven")(inputs)
    x = layers.BatchNormalization(name="a")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="b")(x)
    x = layers.Conv2DTranspose(3, 3, use_bias=False, name="transposed")(x)
    x = layers.BatchNormalization(name="c")(x)
    x = layers.SeparableConv2D(5, 3, name="separable")(x)
    return keras.Model(inputs, layers.Dense(2, name="fc")(layers.GlobalAveragePooling2D()(x)))


def test_axes_and_gammas_come_from_the_layers():
    model = _every_kind()
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    optimizer = proximal_optimizer(model, keras.optimizers.SGD(1.0), KernelNumber(0.0), 0.25)
    again = Proximal.from_config(optimizer.get_config())
    assert again.penalties.keys() == optimizer.penalties.keys()
    again.build(model.trainable_variables)
    again.apply([ops.zeros(v.shape) for v in model.trainable_variables])
    after = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    for name in "abc":
        old = before[f"{name}/gamma"]
        expected = np.sign(old) * np.maximum(np.abs(old) - 0.25, 0)
        np.testing.assert_allclose(after[f"{name}/gamma"], expected, atol=1e-6)
    dead = after["b/gamma"] == 0
    assert 0 < dead.sum() < dead.size
    kernels = after["depthwise/kernel"].reshape(9, -1)
    np.testing.assert_array_equal((kernels == 0).all(axis=0), dead)
    lengths = np.sqrt((before["separable/depthwise_kernel"] ** 2).sum(axis=(0, 1), keepdims=True))
    expected = before["separable/depthwise_kernel"] * np.maximum(1 - 0.25 / lengths, 0)
    np.testing.assert_allclose(after["separable/depthwise_kernel"], expected, atol=1e-6)
    np.testing.assert_array_equal(after["fc/kernel"], before["fc/kernel"])
    proximal_optimizer(model, "sgd", KernelSize(0.0), 0.25).build(model.trainable_variables)


def test_a_gamma_that_does_not_count_the_kernels_is_refused():
    model = _every_kind()
    optimizer = Proximal("sgd", KernelNumber(0.0), 0.1, gammas=following_gammas(model))
    with pytest.raises(ValueError, match=r"sees 2 kernels in 'depthwise/kernel'.*\(8,\)"):
        optimizer.build(model.trainable_variables)
    wrong = Proximal("sgd", KernelNumber(0.0), 0.1, penalties={"none/kernel": KernelNumber(0.0)})
    with pytest.raises(ValueError, match="none/kernel"):
        wrong.build(model.trainable_variables)


def test_gammas_are_the_models_variables_and_not_the_optimizers():
    """JAX would be handed the same buffer twice, and a checkpoint would hold γ twice."""
    x, _ = data()
    inputs = keras.Input((6, 6, 2))
    norm = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(norm))
    optimizer = Proximal("sgd", KernelNumber(0.0), alpha=0.1, gammas=following_gammas(model))
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    gamma = model.get_layer("norm").gamma
    assert not any(variable is gamma for variable in optimizer.variables)
    before = ops.convert_to_numpy(gamma)
    model.fit(x, np.zeros((len(x), 4)), batch_size=4, epochs=2, verbose=0)
    assert np.all(ops.convert_to_numpy(gamma) < before)
