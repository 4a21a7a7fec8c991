"""The trainer without a run around it: as studies call it, measured on test images."""

import keras
import numpy as np
import pytest

from tfconvbias import training


def _model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 128, -1.0),
            keras.layers.Conv2D(2, 4, strides=4, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def _fit(model, optimizer, dataset, folder, **options):
    training.compile_classifier(model, optimizer)
    return training.fit(
        model,
        dataset,
        training.RunFolder(folder),
        **{"batch_size": 32, "seed": 3, "measured_on": "test", "measure_start": True} | options,
    )


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tiny_dataset, tmp_path):
    def momentum():
        return keras.optimizers.SGD(0.02, momentum=0.9)

    options = {"epochs": 4, "execution": training.Execution(checkpoint_every=2, verbose="silent")}
    whole = _model()
    expected = _fit(whole, momentum(), tiny_dataset, tmp_path / "a", **options)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(_model(), momentum(), tiny_dataset, tmp_path / "b", watchers=[Stop()], **options)
    resumed = _model()
    got = _fit(resumed, momentum(), tiny_dataset, tmp_path / "b", **options)
    assert got["epoch"] == [0, 1, 2, 3, 4]
    for column in ("loss", "accuracy", "test_loss", "test_accuracy"):
        np.testing.assert_allclose(got[column], expected[column], rtol=1e-5)
    for first, second in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_row_of_epoch_0_is_the_untrained_model(tiny_dataset, tmp_path):
    model = _model()
    training.compile_classifier(model, keras.optimizers.SGD(0.1))
    test = model.evaluate(*tiny_dataset.split("test"), return_dict=True, verbose=0)
    silent = training.Execution(verbose="silent")
    options = {"epochs": 1, "execution": silent}
    history = _fit(model, keras.optimizers.SGD(0.1), tiny_dataset, tmp_path, **options)
    assert history["test_loss"][0] == pytest.approx(test["loss"], rel=1e-5)
    assert history["test_accuracy"][0] == pytest.approx(test["accuracy"])
    assert not any(name.startswith("val_") for name in history)


@pytest.mark.parametrize("epochs", [1, 2])
def test_divergence_is_told(tiny_dataset, tmp_path, epochs):
    # After one epoch the harm of the last step shows in the test loss alone.
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    options = {
        "epochs": epochs,
        "batch_size": 96,
        "execution": training.Execution(verbose="silent"),
    }
    with pytest.raises(training.TrainingDivergedError, match="NaN or infinite in epoch 1"):
        _fit(
            keras.Sequential(layers), keras.optimizers.SGD(1e38), tiny_dataset, tmp_path, **options
        )
