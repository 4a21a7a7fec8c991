import keras
import numpy as np

from tfconvbias.analysis import layer_locality
from tfconvbias.callbacks import LocalityScore


def test_logs_hold_the_layers_numbers_every_epoch():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.Flatten(), keras.layers.Dense(4, name="fc1")]
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype("float32")
    history = model.fit(
        x,
        x[:, 0, :2].reshape(16, 4),
        epochs=2,
        verbose=0,
        callbacks=[LocalityScore("fc1", window=2, min_nonzeros=1)],
    ).history
    found = layer_locality(model, "fc1", window=2, min_nonzeros=1, num_permutations=4)
    assert history["locality/spread"][-1] == found.spread
    assert history["locality/spread_ratio"][-1] == found.spread_ratio
    assert history["locality/window_share"][-1] == found.window_share
    assert history["locality/window_share_ratio"][-1] == found.window_share_ratio
    assert history["locality/spread"][0] != history["locality/spread"][1]
