"""The layers of a model and of the models inside it, each once."""

from collections.abc import Iterator

import keras

from tfconvbias.arguments import checked


@checked
def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers that a model and the models inside it are made of, each once.

    A layer may occur more than once: in a nested model that two others hold, or both inside a
    nested model and outside.

    Args:
        model: Any model; of a subclassed one, the layers that are its attributes.

    Example:
        >>> dense = keras.layers.Dense(3, name="dense")
        >>> block = keras.Sequential([keras.Input((3,)), dense])
        >>> model = keras.Sequential([keras.Input((3,)), block, dense])
        >>> [layer.name for layer in leaf_layers(model)]
        ['dense']
    """
    seen: set[int] = set()

    def walk(outer: keras.Model) -> Iterator[keras.layers.Layer]:
        for layer in outer.layers:
            if id(layer) not in seen:
                seen.add(id(layer))
                if isinstance(layer, keras.Model):
                    yield from walk(layer)
                else:
                    yield layer

    return walk(model)
