"""Non-zeros in the logs."""

import keras
import numpy as np

from tfconvbias import callbacks


def test_counts_reach_the_history():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fc", use_bias=False)])
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0))
    kernel = np.ones((4, 3), "float32")
    kernel[2] = 0
    model.get_layer("fc").kernel.assign(kernel)
    history = model.fit(
        np.ones((2, 4)), np.ones((2, 3)), verbose=0, epochs=2, callbacks=[callbacks.NonZeros()]
    )
    assert history.history["nonzeros/fc"] == [9, 9]
