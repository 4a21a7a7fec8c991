"""What a layer with kernels costs as it is."""

import math
from typing import Any

from tfconvbias.graph.facts import KERNELS, channel_axis, facts_of


def kernels_of(layer: Any) -> dict[str, Any]:
    """The kernels of a layer that multiply its inputs, by the name of the attribute; may be empty.

    Args:
        layer: Any operation of a graph.
    """
    facts = facts_of(layer)
    if facts is None or facts.kind not in KERNELS:
        return {}
    return {kernel.attribute: getattr(layer, kernel.attribute) for kernel in facts.kernels}


def whole_multiply_adds(layer: Any, input_shape: tuple, output_shape: tuple) -> int | None:
    """Multiply-adds per image of one call of a layer, with all of its weights.

    Args:
        layer: Any operation of a graph; one without kernels costs nothing.
        input_shape: Static shape of its first input.
        output_shape: Static shape of its output.

    Returns:
        The number; `None` where a layer's number of places is not known.
    """
    facts, kernels = facts_of(layer), kernels_of(layer)
    if facts is None or not kernels:
        return 0
    kind = facts.kind
    # The kernel of a locally connected layer has the places among its axes.
    shape = input_shape if kind == "transposed" else output_shape
    places = 1 if kind == "local" else places_of(shape, channel_axis(layer, len(shape)))
    if places is None:
        return None
    return sum(places * math.prod(kernel.shape) for kernel in kernels.values())


def places_of(shape: tuple, axis: int = -1) -> int | None:
    """Number of places in a tensor with batch and channels, `None` if a length is not known.

    Args:
        shape: Static shape.
        axis: The channel axis, negative.

    Example:
        >>> places_of((None, 8, 4, 3))
        32
    """
    lengths = [n for i, n in enumerate(shape) if i not in (0, len(shape) + axis)]
    return None if None in lengths else math.prod(lengths)


def unknown_places(name: str, shape: tuple) -> str:
    """The message of an error: a layer's multiply-adds can't be counted."""
    return (
        "Multiply-adds can be counted only where the spatial sizes are known. Received: "
        f"layer {name!r} at shape {tuple(shape)}"
    )
