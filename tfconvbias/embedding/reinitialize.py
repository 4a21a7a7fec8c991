"""Fresh weights for a model of any connectivity: the standard network of the same shape."""

import math
from typing import Literal

import keras

from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.stages import padded_shape
from tfconvbias.graph import facts_of, leaf_layers

_WITH_FANS = ("conv", "dense", "local")
_WITH_OWN_INITIALIZERS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
)


@checked
def reinitialize(
    model: keras.Model,
    seed: NonNegativeInt = 0,
    *,
    fan_in: Literal["explicit", "folded"] = "explicit",
) -> None:
    r"""Draw every kernel and bias anew from PyTorch's default, $U(\pm 1/\sqrt{\text{fan in}})$.

    The fan-in of a dense layer is the number of its inputs, also where it stands for a convolution:
    this turns an embedded model into the standard fully connected network of the same shape. Inputs
    that are padding count, also where they are folded away and have no row: the network is then the
    one with `padding="explicit"`, of which such rows never mattered. Without them the logits of
    VanillaCNN's FCN would start 2.8 times as large. Normalizations and PReLU go back to their own
    initializers.

    Args:
        model: Built model, changed in place. Other layers must have no trainable weights.
        seed: Seed of the draws.
        fan_in: `"explicit"`: inputs of an embedded layer that are padding count; `"folded"`: only
            its rows do.

    Raises:
        ValueError: If `fan_in` is unknown, or a layer with trainable weights has no known fan-in.

    Example:
        >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)])
        >>> reinitialize(model)
        >>> bool(abs(model.get_weights()[0]).max() <= 0.25)
        True

    Reference:
        d'Ascoli et al., 2019, section 4, step 5. Their code pads explicitly.
    """
    if fan_in not in ("explicit", "folded"):
        raise ValueError(f"`fan_in` must be 'explicit' or 'folded'. Received: fan_in={fan_in!r}")
    generator = keras.random.SeedGenerator(seed)
    for layer in leaf_layers(model):
        if type(layer) in _WITH_OWN_INITIALIZERS:
            for variable in layer.weights:
                initializer = getattr(layer, f"{variable.name}_initializer")
                variable.assign(initializer(variable.shape, dtype=variable.dtype))
        elif layer.trainable_variables:
            _draw_uniform(layer, generator, fan_in)


def _draw_uniform(
    layer: keras.layers.Layer, generator: keras.random.SeedGenerator, fan_in: str
) -> None:
    facts = facts_of(layer)
    if facts is None or facts.kind not in _WITH_FANS:
        raise ValueError(
            f"The fan-in of layer '{layer.name}' of class {type(layer).__name__} is not known."
        )
    shape = tuple(layer.kernel.shape)
    first = facts.rank if facts.kind == "local" else 0
    num_inputs = math.prod(shape[first:-1])
    if fan_in == "explicit" and isinstance(layer, EmbeddedDense):
        num_inputs = math.prod(padded_shape(layer.geometry)) * layer.geometry.in_channels
    limit = 1 / math.sqrt(num_inputs)
    for variable in layer.trainable_variables:
        variable.assign(
            keras.random.uniform(
                variable.shape, -limit, limit, dtype=variable.dtype, seed=generator
            )
        )
