"""Fresh weights for a model of any connectivity: the standard network of the same shape."""

import math

import keras

from tfconvbias.graph import facts_of, leaf_layers

_WITH_FANS = ("conv", "dense", "local")
_WITH_OWN_INITIALIZERS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
)


def reinitialize(model: keras.Model, seed: int = 0) -> None:
    r"""Draw every kernel and bias anew from PyTorch's default, $U(\pm 1/\sqrt{\text{fan in}})$.

    The fan-in of a dense layer is the number of its inputs, also where it stands for a convolution:
    this turns an embedded model into the standard fully connected network of the same shape.
    Normalizations and PReLU go back to their own initializers.

    Args:
        model: Built model, changed in place. Other layers must have no trainable weights.
        seed: Seed of the draws.

    Raises:
        ValueError: If a layer with trainable weights has no known fan-in.

    Example:
        >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)])
        >>> reinitialize(model)
        >>> bool(abs(model.get_weights()[0]).max() <= 0.25)
        True

    Reference:
        d'Ascoli et al., 2019, section 4, step 5.
    """
    generator = keras.random.SeedGenerator(seed)
    for layer in leaf_layers(model):
        if type(layer) in _WITH_OWN_INITIALIZERS:
            for variable in layer.weights:
                initializer = getattr(layer, f"{variable.name}_initializer")
                variable.assign(initializer(variable.shape, dtype=variable.dtype))
        elif layer.trainable_variables:
            _draw_uniform(layer, generator)


def _draw_uniform(layer: keras.layers.Layer, generator: keras.random.SeedGenerator) -> None:
    facts = facts_of(layer)
    if facts is None or facts.kind not in _WITH_FANS:
        raise ValueError(
            f"The fan-in of layer '{layer.name}' of class {type(layer).__name__} is not known."
        )
    shape = tuple(layer.kernel.shape)
    first = facts.rank if facts.kind == "local" else 0
    limit = 1 / math.sqrt(math.prod(shape[first:-1]))
    for variable in layer.trainable_variables:
        variable.assign(
            keras.random.uniform(
                variable.shape, -limit, limit, dtype=variable.dtype, seed=generator
            )
        )
