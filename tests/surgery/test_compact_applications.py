"""Models that were not written with surgery in mind: those of keras.applications.

On TensorFlow only: the walk is NumPy, and what it decides does not hang on the backend; running
hundreds of layers one by one, each with shapes of its own, takes minutes where each is compiled.
"""

import keras
import numpy as np
import pytest
from random_models import random_images, relative_difference

from tfconvbias.surgery import compact, make_plan

pytestmark = pytest.mark.tensorflow

NAMES = ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0"]


def zeroed(name, rng, silent):
    """The model with 40 % of the kernels of every convolution zero.

    Args:
        silent: Whether the normalization after them is cleared too, as `threshold` does; if not,
            dead channels emit constants.
    """
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=7)
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            weights[0] = rng.uniform(0.5, 1.5, weights[0].shape)
            weights[1:3] = [rng.normal(0, 0.3, weight.shape) for weight in weights[1:3]]
            weights[3] = rng.uniform(0.5, 1.5, weights[3].shape)
        if weights:
            layer.set_weights(weights)
    by_output = {id(layer.output): layer for layer in model.layers}
    dead = np.zeros(0, bool)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            writer = by_output.get(id(layer.input))
            if type(writer) is keras.layers.Conv2D:
                dead = rng.random(writer.filters) < 0.4
                writer.set_weights([np.where(dead, 0, weight) for weight in writer.get_weights()])
                silence(layer, dead, silent)
            elif isinstance(writer, keras.layers.DepthwiseConv2D):
                # It goes on with the channels of the convolution before it.
                silence(layer, dead, silent and dead.size == writer.output.shape[-1])
    return model


def silence(normalization, dead, silent):
    if silent:
        *scales, variance = normalization.get_weights()
        normalization.set_weights([*(np.where(dead, 0, w) for w in scales), variance])


@pytest.mark.parametrize("name", NAMES)
def test_compact_equals_masked(name, tmp_path):
    rng = np.random.default_rng(0)
    model = zeroed(name, rng, silent=name != "MobileNetV2")
    images = random_images(rng, (32, 32, 3), 2)
    plan = make_plan(model)
    smaller = compact(model)
    assert relative_difference(model, smaller, images) <= 1e-5
    predicted = plan.multiply_adds()
    counted = sum(rule.multiply_adds() for rule in make_plan(smaller).kernel_rules())
    full = sum(rule.multiply_adds() for rule in plan.kernel_rules())
    assert counted == predicted < full
    assert smaller.count_params() < model.count_params()
    if name in ("ResNet50", "DenseNet121", "EfficientNetB0"):
        assert predicted < 0.75 * full
    # What stays although it is zero is explained, layer by layer.
    held = [
        rule.call.name
        for rule in plan.kernel_rules()
        if (plan.kept[rule.output] & ~np.isnan(plan.states[rule.output].constants)).any()
    ]
    assert set(held) == set(plan.explanations)
    if name == "ResNet50":
        smaller.save(tmp_path / "small.keras")
        loaded = keras.models.load_model(tmp_path / "small.keras")
        assert relative_difference(model, loaded, images) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_constants_of_dead_channels_are_carried_or_kept(name):
    rng = np.random.default_rng(1)
    model = zeroed(name, rng, silent=False)
    images = random_images(rng, (32, 32, 3), 2)
    assert relative_difference(model, compact(model), images) <= 1e-5
