import keras
import numpy as np
import pytest

from tfconvbias.callbacks import Snapshots
from tfconvbias.callbacks.snapshots import log_spaced_epochs


def test_epochs_of_the_paper():
    paper = (0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, 40, 52, 67, 88, 115, 150)
    assert log_spaced_epochs(150) == paper
    for epochs in range(1, 200):
        found = log_spaced_epochs(epochs, 7)
        assert found[0] == 0 and found[-1] == epochs and list(found) == sorted(set(found))
    with pytest.raises(ValueError, match="epochs"):
        log_spaced_epochs(0)


def test_snapshots_hold_the_weights_of_their_epoch(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    seen = [model.get_weights()[0].copy()]

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(keras.ops.convert_to_numpy(self.model.weights[0]).copy())

    snapshots = Snapshots(tmp_path / "kept", [0, 2, 3])
    x = np.eye(3, dtype="float32")
    model.fit(x, np.ones((3, 1)), epochs=3, verbose=0, callbacks=[snapshots, Watch()])
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "epoch-0.weights.h5",
        "epoch-2.weights.h5",
        "epoch-3.weights.h5",
    ]
    for epoch in (0, 2, 3):
        model.load_weights(snapshots.path(epoch))
        np.testing.assert_array_equal(model.get_weights()[0], seen[epoch])
    with pytest.raises(ValueError, match="negative"):
        Snapshots(tmp_path, [-1])
