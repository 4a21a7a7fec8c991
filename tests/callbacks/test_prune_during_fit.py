"""Zeros that grow by a schedule, stay zero, and survive saving."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfconvbias.callbacks import PruneDuringFit, SparsitySchedule
from tfconvbias.surgery import channel_groups, compact


def data(count=32, shape=(8,)):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)).astype("float32"), rng.normal(size=(count, 2))


def dense_model():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", name="a"),
            layers.Dense(2, name="b"),
        ]
    )
    # Momentum would move weights that only a gradient of zero holds.
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def kernel(model, name="a"):
    return ops.convert_to_numpy(model.get_layer(name).kernel)


class Watcher(keras.callbacks.Callback):
    """Remembers a kernel after every step."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(kernel(self.model).copy())


def test_the_share_of_zeros_follows_the_cubic_schedule():
    x, y = data()
    watcher = Watcher()
    schedule = SparsitySchedule(0.75, begin_step=2, end_step=6, initial_sparsity=0.25, frequency=1)
    model = dense_model()
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=1,
        verbose=0,
        callbacks=[PruneDuringFit(schedule, "a/kernel"), watcher],
    )
    found = [float((one == 0).mean()) for one in watcher.kernels]
    # 0.75 − 0.5 (1 − (t − 2) / 4)³ for t = 1, …, 8, in whole weights of 128.
    shares = [0, 0.25, 0.5390625, 0.6875, 0.7421875, 0.75, 0.75, 0.75]
    assert found == [int(128 * share) / 128 for share in shares]
    assert history.history["sparsity"] == [0.75]
    for before, after in zip(watcher.kernels[1:], watcher.kernels[2:], strict=False):
        assert (after[before == 0] == 0).all()
        assert (after[after != 0] != before[after != 0]).any()
    assert (kernel(model, "b") != 0).all()


def test_the_smallest_weights_go():
    x, y = data(4)
    model = dense_model()
    model.optimizer.learning_rate = 0.0
    before = kernel(model).copy()
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[PruneDuringFit(0.5)])
    after = kernel(model)
    assert (after == 0).sum() == 64
    assert np.abs(before[after == 0]).max() <= np.abs(before[after != 0]).min()
    np.testing.assert_array_equal(after[after != 0], before[after != 0])


def test_masks_survive_saving_and_further_training(tmp_path):
    x, y = data()
    model = dense_model()
    schedule = SparsitySchedule(0.5, begin_step=0, end_step=4, frequency=1)
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[PruneDuringFit(schedule)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = kernel(loaded).copy()
    loaded.fit(x, y, batch_size=4, verbose=0, callbacks=[PruneDuringFit(schedule)])
    after = kernel(loaded)
    # The schedule is at its end, so that the very same weights stay zero while others move.
    np.testing.assert_array_equal(before == 0, after == 0)
    assert (before == 0).sum() == 64
    assert (before != after).sum() > 32


def test_two_of_four():
    x, y = data()
    model = dense_model()
    callback = PruneDuringFit(0.5, pattern=(2, 4))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
    # Blocks of four rows, the input channels.
    zeros = (kernel(model) == 0).reshape(2, 4, 16).sum(axis=1)
    assert (zeros == 2).all()


def test_a_pattern_is_approached_one_weight_at_a_time():
    x, y = data(4)
    model = dense_model()
    schedule = SparsitySchedule(0.75, begin_step=1, end_step=4, power=1, frequency=1)
    watcher = Watcher()
    model.fit(
        x, y, batch_size=1, verbose=0,
        callbacks=[PruneDuringFit(schedule, pattern=(1, 4)), watcher],
    )  # fmt: skip
    blocks = [(one == 0).reshape(2, 4, 16).sum(axis=1) for one in watcher.kernels]
    assert [(zeros.min(), zeros.max()) for zeros in blocks] == [(0, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.tensorflow
def test_channels_that_compact_removes():
    x, y = data(16, (4, 4, 3))
    inputs = keras.Input((4, 4, 3))
    stem = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    norm = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", name="branch")(stem))
    z = layers.GlobalAveragePooling2D()(layers.Add()([stem, layers.ReLU()(norm)]))
    model = keras.Model(inputs, layers.Dense(2, name="head")(z))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    schedule = SparsitySchedule(0.5, begin_step=0, end_step=3, frequency=1)
    groups = channel_groups(model)
    model.fit(
        x, y, batch_size=4, epochs=2, verbose=0, callbacks=[PruneDuringFit(schedule, groups=groups)]
    )
    smaller = compact(model)
    assert [smaller.get_layer(name).filters for name in ("stem", "branch")] == [4, 4]
    np.testing.assert_allclose(
        ops.convert_to_numpy(smaller(x)), ops.convert_to_numpy(model(x)), rtol=1e-4, atol=1e-5
    )


def test_one_channel_of_a_group_is_left():
    x, y = data(4)
    model = dense_model()
    groups = channel_groups(model)
    # 0.99 of 16 channels, rounded, would be all of them.
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[PruneDuringFit(0.99, groups=groups)])
    # What reads a channel is zero where the channel is cut.
    assert (kernel(model, "b") != 0).any(axis=1).sum() == 1


def test_moving_averages_are_masked_too():
    x, y = data()
    model = dense_model()
    model.compile(keras.optimizers.SGD(0.05, use_ema=True), "mse")
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[PruneDuringFit(0.5)])
    assert (kernel(model) == 0).sum() == 64


def test_a_kernel_of_zeros_is_not_taken_for_pruned():
    x, y = data()
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(2, kernel_initializer="zeros", name="a")]
    )
    model.compile("sgd", "mse")
    schedule = SparsitySchedule(0.5, begin_step=100, end_step=200)
    model.fit(x, y, verbose=0, callbacks=[PruneDuringFit(schedule)])
    assert (kernel(model) != 0).all()


def test_errors():
    for options, message in (
        ({"schedule": 0.5, "pattern": (1, 4)}, "a schedule that ends at 1 − n/m"),
        ({"schedule": 0.5, "pattern": (2, 4), "groups": []}, "`groups` chooses"),
        ({"schedule": 1.0}, "`initial_sparsity` and `final_sparsity`"),
    ):
        with pytest.raises(ValueError, match=message):
            PruneDuringFit(**options)
    for arguments, message in (
        ({"begin_step": 3, "end_step": 2}, "`begin_step` must be"),
        ({"begin_step": 0, "end_step": 2, "frequency": 0}, "`power` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            SparsitySchedule(0.5, **arguments)
    x, y = data()
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")]
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"b/kernel' of the shape \(3, 2\) are no multiple"):
        model.fit(x, y, verbose=0, callbacks=[PruneDuringFit(0.5, pattern=(2, 4))])
    with pytest.raises(ValueError, match="`groups` must be made of the model that is trained"):
        model.fit(
            x, y, verbose=0, callbacks=[PruneDuringFit(0.5, groups=channel_groups(dense_model()))]
        )
