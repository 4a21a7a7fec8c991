import keras
import numpy as np
import pytest

from tfconvbias.analysis import pairwise_correlation
from tfconvbias.callbacks import KernelCorrelation, LiveKernels
from tfconvbias.regularizers import KernelNumber


@pytest.fixture
def model():
    layers = [
        keras.layers.Conv2D(4, 1, use_bias=False, name="conv1"),
        keras.layers.Conv2D(2, 1, use_bias=False, name="conv2"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, name="fc"),
    ]
    model = keras.Sequential([keras.Input((2, 2, 2)), *layers])
    layers[0].set_weights([np.array([[0, 0.3, 3, 1], [0, 0.4, 4, 2]], "float32")[None, None]])
    layers[1].set_weights([np.zeros((1, 1, 4, 2), "float32")])
    return model


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 3),
        ({"tau": 0.5}, 2),
        ({"tau": 0.2, "relative": True}, 2),
        ({"penalty": KernelNumber(0.0, norm="linf"), "tau": 0.4}, 2),
    ],
)
def test_live_kernels(model, options, expected):
    watcher = LiveKernels(**options)
    watcher.set_model(model)
    assert watcher.measure({}) == {"live_kernels": expected}


def test_correlation_is_the_mean_over_layers_with_two_live_kernels(model):
    watcher = KernelCorrelation()
    watcher.set_model(model)
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
    assert watcher.measure({})["kernel_correlation"] == pairwise_correlation(kernel)
    model.get_layer("conv1").set_weights([np.zeros((1, 1, 2, 4), "float32")])
    assert np.isnan(watcher.measure({})["kernel_correlation"])


def test_the_numbers_reach_the_history(model):
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2, 2, 2)), np.ones((4, 3))
    watchers = [LiveKernels(every=2), KernelCorrelation()]
    found = model.fit(x, y, epochs=2, verbose=0, callbacks=watchers).history
    assert np.isnan(found["live_kernels"][0])
    assert found["live_kernels"][1] >= 3
    assert len(found["kernel_correlation"]) == 2
