"""α as tracked state: it changes inside compiled steps, and is no weight."""

import keras
import numpy as np
import pytest

from tfconvbias.regularizers import KernelNumber, KernelSize, set_alpha


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def model_with(regularizer, **kwargs):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, kernel_regularizer=regularizer, **kwargs),
            keras.layers.Conv2D(3, 3, kernel_regularizer=regularizer),
            keras.layers.Flatten(),
        ]
    )


class AlphaIsEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        set_alpha(self.model, epoch)


def test_a_compiled_step_reads_the_present_alpha():
    regularizer = KernelSize(0.0)
    model = model_with(regularizer)
    jit = keras.config.backend() != "torch"
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit)
    data = np.zeros((4, 6, 6, 2)), np.zeros((4, 12))
    history = model.fit(*data, epochs=3, verbose=0, callbacks=[AlphaIsEpoch()]).history["loss"]
    measure = sum(to_numpy(regularizer.measure(layer.kernel)).sum() for layer in model.layers[:2])
    np.testing.assert_allclose(history, [0.0, measure, 2 * measure], rtol=1e-5)


def test_alpha_is_state_and_no_weight():
    plain, penalized = model_with(None), model_with(KernelNumber(0.1))
    assert penalized.count_params() == plain.count_params()
    assert len(penalized.get_weights()) == len(plain.get_weights())
    plain.set_weights(penalized.get_weights())
    extra = len(penalized.non_trainable_variables) - len(plain.non_trainable_variables)
    assert extra == 1, "one variable for the one regularizer that both layers share"


@pytest.mark.parametrize("make", [KernelNumber, KernelSize])
def test_save_and_load(tmp_path, make):
    regularizer = make(0.25, norm="scaled")
    model = model_with(regularizer)
    regularizer.alpha = 0.5
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for layer in loaded.layers[:2]:
        assert isinstance(layer.kernel_regularizer, make)
        assert layer.kernel_regularizer.norm == "scaled"
        assert float(layer.kernel_regularizer.alpha) == 0.5
    losses = [sum(to_numpy(loss) for loss in one.losses) for one in (model, loaded)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    model.save_weights(tmp_path / "saved.weights.h5")
    other = model_with(make(0.0, norm="scaled"))
    other.load_weights(tmp_path / "saved.weights.h5")
    assert float(other.layers[0].kernel_regularizer.alpha) == 0.5


def test_weights_of_a_model_without_regularizers_can_be_loaded(tmp_path):
    model_with(None).save_weights(tmp_path / "plain.weights.h5")
    penalized = model_with(KernelNumber(0.1))
    penalized.load_weights(tmp_path / "plain.weights.h5")
    assert float(penalized.layers[0].kernel_regularizer.alpha) == pytest.approx(0.1)


def test_config_round_trip():
    regularizer = KernelSize(0.3, groups="ring", norm="linf", kernel_axes=(-2, -1))
    copy = keras.regularizers.deserialize(keras.regularizers.serialize(regularizer))
    assert copy.get_config() == regularizer.get_config()


def test_mixed_precision_step():
    model = model_with(KernelSize(1e-2), dtype="mixed_bfloat16")
    model.compile("sgd", "mse")
    history = model.fit(np.ones((2, 6, 6, 2)), np.zeros((2, 12)), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_set_alpha_errors():
    model = model_with(KernelNumber(0.1))
    assert set_alpha(model, 0.2) == 1
    with pytest.raises(ValueError, match="alpha=-1"):
        set_alpha(model, -1)
    with pytest.raises(ValueError, match="holds no structured sparsity regularizer"):
        set_alpha(model_with(None), 0.2)


def test_assignment_is_checked():
    regularizer = KernelNumber(0.1)
    with pytest.raises(ValueError, match="alpha=-2"):
        regularizer.alpha = -2
