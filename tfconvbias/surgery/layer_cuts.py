"""How a layer is made narrower: which axes of which weights count the channels that it handles.

A layer names *spaces*, each a row of channels: what it reads, what it writes, or something inside
it such as attention heads. A `LayerCut` says which space every input, output and weight axis counts
and which channels of two spaces can only go together. That is all that is needed to find the groups
of a whole model and to cut them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph import Call, LayerGraph, TensorRef
from tfconvbias.surgery.layer_cost import whole_multiply_adds

ROLES = ("reads", "writes", "filters", "scales", "shifts", "other")

Kept = Mapping[str, np.ndarray]


@checked
@dataclass(frozen=True)
class Axis:
    """An axis of a weight that counts the channels of a space.

    Attributes:
        weight: The variable.
        axis: Which of its axes, negative or not.
        space: Name of the space.
        role: What the weight does to these channels: it `"reads"` them into others, `"writes"` them
            from others, `"filters"` each by itself (a depthwise kernel), `"scales"` each by a
            number (γ), `"shifts"` each (a bias, β), or `"other"` (moving statistics).
    """

    weight: Any
    axis: int
    space: str
    role: str = "other"

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"`role` must be one of {ROLES}. Received: role={self.role!r}")


@checked
@dataclass(frozen=True)
class Tie:
    """Channels of two spaces of a layer that stay or go together, pairwise."""

    first: str
    first_channels: np.ndarray
    second: str
    second_channels: np.ndarray


@checked
@dataclass(frozen=True)
class LayerCut:
    """How one call of a layer can be cut.

    Attributes:
        inputs: The space that each input's channels are, in the order of the call's tensors; `None`
            for an input that the layer needs whole.
        outputs: Likewise for the outputs. A layer that keeps channels apart names one space for
            its input and its output.
        axes: The axes of weights that count channels; weights without one stay whole.
        ties: Which channels of two spaces go together.
        narrow: Function of the layer's configuration and, by space, of the boolean array of what is
            kept, that returns the configuration of the narrower layer. Defaults to no change.
        locked: Space → why it must stay whole.
        channel_axes: Negative axis of the tensors that counts channels, for inputs and for outputs.
        widths: Numbers of elements that one channel stands for where it is not one, such as the
            size of a head: widths are rounded with them.
        multiply_adds: Function of the number of kept channels by space, that gives the
            multiply-adds per image beyond those of the kernels among `axes`; `None` if the number
            of places is not known.
        places: For each kernel (`id` of the variable) at how many places of an image it is applied,
            `None` if that is not known; kernels without an entry are applied where the layer
            writes.
        arguments: Function of the call's arguments and of what is kept, that cuts the constants
            among the arguments.
    """

    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    axes: tuple[Axis, ...] = ()
    ties: tuple[Tie, ...] = ()
    narrow: Callable[[dict, Kept], dict] | None = None
    locked: Mapping[str, str] = field(default_factory=dict)
    channel_axes: tuple[int, int] = (-1, -1)
    widths: Mapping[str, int] = field(default_factory=dict)
    multiply_adds: Callable[[Mapping[str, int]], int | None] | None = None
    places: Mapping[int, int | None] = field(default_factory=dict)
    arguments: Callable[[Any, Kept], Any] | None = None


@dataclass
class Site:
    """A call in its graph, as far as the walk has come.

    Attributes:
        number: Number of the call.
        call: The call.
        graph: The graph.
        axes: The channel axis of every tensor that is known by now, negative.
    """

    number: int
    call: Call
    graph: LayerGraph
    axes: Mapping[TensorRef, int]

    @property
    def layer(self) -> Any:
        """The layer or operation that is called."""
        return self.call.operation

    @property
    def outputs(self) -> list[TensorRef]:
        """The call's output tensors."""
        count = max(1, len(keras.tree.flatten(self.layer.output)))
        return [TensorRef(self.number, index) for index in range(count)]

    def input_shapes(self) -> list[tuple]:
        """Static shapes of the inputs."""
        return [self.graph.shapes[tensor] for tensor in self.call.inputs]

    def input_axes(self) -> list[int]:
        """Channel axes of the inputs."""
        return [self.axes[tensor] for tensor in self.call.inputs]

    def input_widths(self) -> list[int | None]:
        """Numbers of channels of the inputs."""
        pairs = zip(self.input_shapes(), self.input_axes(), strict=True)
        return [shape[axis] if len(shape) > 1 else None for shape, axis in pairs]

    def output_shape(self) -> tuple:
        """Static shape of the first output."""
        shape = self.graph.shapes.get(self.outputs[0])
        if shape is None:
            shape = keras.tree.flatten(self.layer.output)[0].shape
        return tuple(shape)

    def whole(self) -> LayerCut:
        """A cut that keeps all that the call reads and writes."""
        inputs, outputs = (None,) * len(self.call.inputs), (None,) * len(self.outputs)
        if not inputs:
            return LayerCut(inputs, outputs)
        cost = whole_multiply_adds(self.layer, self.input_shapes()[0], self.output_shape())
        return LayerCut(inputs, outputs, multiply_adds=lambda counts: cost)

    def apart(self, axes: tuple[Axis, ...] = (), **fields) -> LayerCut:
        """A cut of a call with one input and one output of the same channels."""
        fields.setdefault("channel_axes", (self.input_axes()[0],) * 2)
        return LayerCut(("channels",), ("channels",), axes, **fields)


_OWN: dict[type, Callable[[Any], LayerCut]] = {}


@checked
def register_cut(layer: type, cut: Callable[[Any], LayerCut]) -> None:
    """Says how the layers of a class are cut by `prune`, where `graph.register` cannot say it.

    A layer that is registered with `tfconvbias.graph.register` under a kind that keeps channels
    apart, or that has a kernel like Keras' own, needs this only if its configuration holds its
    width.

    Args:
        layer: A subclass of `keras.layers.Layer`; objects of this very class are meant.
        cut: Function of a layer that returns its `LayerCut`.

    Raises:
        ValueError: If an argument is neither.

    Example:
        >>> class Scaled(keras.layers.Layer):
        ...     def __init__(self, width, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.width = width
        ...         self.gamma = self.add_weight(shape=(width,), initializer="ones")
        ...     def call(self, inputs):
        ...         return inputs * self.gamma
        ...     def get_config(self):
        ...         return {**super().get_config(), "width": self.width}
        >>> register_cut(Scaled, lambda layer: LayerCut(
        ...     inputs=("channels",), outputs=("channels",),
        ...     axes=(Axis(layer.gamma, 0, "channels", "scales"),),
        ...     narrow=lambda config, kept: {**config, "width": int(kept["channels"].sum())}))
    """
    if not isinstance(layer, type) or not issubclass(layer, keras.layers.Layer):
        raise ValueError(f"`layer` must be a class of layers. Received: layer={layer!r}")
    if not callable(cut):
        raise ValueError(
            f"`cut` must be a function from a layer to its LayerCut. Received: cut={cut!r}"
        )
    _OWN[layer] = cut


def own_cut(layer: Any) -> LayerCut | None:
    """The cut that a user registered for the class of a layer."""
    maker = _OWN.get(type(layer))
    return None if maker is None else maker(layer)
