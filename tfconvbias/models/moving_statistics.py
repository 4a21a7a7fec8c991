"""Moving statistics that keep up with short trainings."""

import keras

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.graph import leaf_layers

_WINDOWS = 10
"""Parts into which a training is cut: the statistics average over about one of them."""


@checked
def match_statistics_momentum(model: keras.Model, steps: PositiveInt) -> None:
    """Let the moving statistics of normalizations average over a tenth of a training at most.

    A BatchNormalization evaluates with moving averages of its batches' mean and variance, which
    start at 0 and 1 and of which a step replaces the share 1 − m. With Keras' m = 0.99 a tenth of
    the start is left after 230 steps, and the weights of the last 100 steps count alike: a network
    trained for fewer steps is evaluated with statistics that are not its own. This sets, in the
    model and the models inside it,

        m = min(m, 1 − 10 / steps)

    so that exp(−10) of the start is left at the end. From 1,000 steps on 0.99 stays.

    Args:
        model: A model that was not trained yet: a compiled step would keep the old value.
        steps: Steps of the whole training.

    Raises:
        ValueError: If there are no steps.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        >>> match_statistics_momentum(model, steps=200)
        >>> model.layers[0].momentum
        0.95
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
    most = max(0.0, 1 - _WINDOWS / steps)
    for layer in leaf_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, most)
