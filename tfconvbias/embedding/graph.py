"""Rebuild a model's graph layer by layer."""

from collections.abc import Callable
from typing import Any

import keras

Transform = Callable[..., Any]


def rebuild(model: keras.Model, transform: Transform) -> keras.Model:
    """Call `transform` at each node of a model's graph and make a model of what it returns.

    Args:
        model: Built Sequential or functional model.
        transform: `(layer, *args, **kwargs) -> outputs`, called in the graph's order, once for each
            call of a layer, with the tensors that it returned before.

    Returns:
        An uncompiled functional model of the same inputs, outputs and name.

    Raises:
        ValueError: If the model is neither, or has no input shape yet.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            "The model must be a functional model, or a Sequential one with an input shape; the "
            f"layers of a subclassed model are not known. Received: model={model!r}"
        )
    if isinstance(model, keras.Sequential):
        ends = model.inputs[0], model.outputs[0]
    else:
        ends = model.input, model.output
    # A model around the same graph: uncompiled, and functional where the given one is Sequential.
    source = keras.Model(*ends, name=model.name)
    return keras.models.clone_model(
        source, clone_function=lambda layer: layer, call_function=transform
    )


class Copies:
    """Copies of layers with their weights, one a layer however often it is called."""

    def __init__(self):
        self._copies: dict[int, keras.layers.Layer] = {}

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the copy of a layer; an operation without state is called as it is."""
        if not isinstance(layer, keras.layers.Layer):
            return layer(*args, **kwargs)
        copy = self._copies.get(id(layer))
        if copy is not None:
            return copy(*args, **kwargs)
        copy = self._copies[id(layer)] = type(layer).from_config(layer.get_config())
        outputs = copy(*args, **kwargs)
        copy.set_weights(layer.get_weights())
        finalize(copy)
        return outputs


def finalize(layer: keras.layers.Layer) -> None:
    """Let what a layer derives from its weights follow them, after they were set."""
    # Normalization computes with constants that it makes of its adapted mean and variance.
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            finalize(inner)


class Aliases:
    """Tensors of a graph under construction that stand for another one, with a note on how."""

    def __init__(self):
        self._known: dict[int, tuple[Any, Any, Any]] = {}

    def set(self, tensor: Any, source: Any, note: Any = None) -> None:
        """Remember that `tensor` was made from `source`."""
        # The tensor is held too, so that its id isn't given to another one.
        self._known[id(tensor)] = (tensor, source, note)

    def get(self, tensor: Any) -> tuple[Any, Any] | None:
        """The source of a tensor and the note, or `None`."""
        found = self._known.get(id(tensor))
        return None if found is None else found[1:]
