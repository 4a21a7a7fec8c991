"""What is known of each class of layers: one table, which users extend with `register`."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked


@checked
@dataclasses.dataclass(frozen=True)
class Kernel:
    """One of a layer's kernels.

    Attributes:
        attribute: Name of the layer's attribute that holds it.
        argument: What the layer's constructor calls it, as in `depthwise_regularizer`.
        output_axes: Negative axes that together count the output channels.
        input_axis: Negative axis that counts the input channels (of one group).
    """

    attribute: str
    argument: str
    output_axes: tuple[int, ...]
    input_axis: int


_PLAIN = (Kernel("kernel", "kernel", (-1,), -2),)
KERNELS: dict[str, tuple[Kernel, ...]] = {
    "conv": _PLAIN,
    "dense": _PLAIN,
    "depthwise": (Kernel("kernel", "depthwise", (-2, -1), -2),),
    "local": _PLAIN,
    "separable": (
        Kernel("depthwise_kernel", "depthwise", (-2, -1), -2),
        Kernel("pointwise_kernel", "pointwise", (-1,), -2),
    ),
    "transposed": (Kernel("kernel", "kernel", (-2,), -1),),
}
"""The kernels of each kind of layer that has some."""

KERNEL_ARGUMENTS = tuple(dict.fromkeys(k.argument for ks in KERNELS.values() for k in ks))
"""All that constructors call their kernels."""

# Kind → (is it linear, what it does to a channel that holds one number everywhere).
_KINDS: dict[str, tuple[bool, str]] = {
    **dict.fromkeys(KERNELS, (True, "mixed")),
    "channelwise": (False, "zero"),
    "concatenate": (True, "kept"),
    "cropping": (True, "kept"),
    "elementwise": (False, "computed"),
    "input": (True, "mixed"),
    "merge": (False, "zero"),
    "mixing": (False, "mixed"),
    "normalization": (True, "computed"),
    "padding": (True, "zero"),
    "pooling": (False, "zero"),
    "reduction": (False, "kept"),
    "reshape": (True, "kept"),
}


@checked
@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """What `embed`, `compact`, `threshold`, `Complexity` and the analyses ask about a layer.

    Everything holds at inference. A layer with a kernel is described up to its `activation`, and
    names its attributes as Keras does: `kernel`, `bias`, `use_bias`, and for a window
    `kernel_size`, `strides`, `padding`, `dilation_rate`, `groups` and `data_format`.

    Attributes:
        kind: What the layer does. Layers with kernels: `"conv"`, `"depthwise"`, `"separable"`,
            `"transposed"`, `"local"` (a convolution without weight sharing), `"dense"`. Layers
            that keep channels apart: `"elementwise"` (the same function of every number),
            `"channelwise"` (any function of each channel; of its weights, if it has some, the last
            axis counts the channels), `"normalization"` (each channel scaled and shifted, as
            BatchNormalization does, with its attributes), `"pooling"` (over windows of
            `pool_size`), `"padding"` (zeros around the volume), `"cropping"`. Layers of several
            inputs: `"merge"`, `"concatenate"`. Others: `"reshape"` (in row-major order),
            `"reduction"` (over axes), `"input"`, and `"mixing"`: anything else.
        rank: Number of spatial axes of its inputs, if only one is possible; else `None`.
        is_linear: Whether the layer is linear, apart from a shift. Defaults to what holds for the
            kind.
        constants: What becomes of a channel that holds the same number everywhere: it is
            `"kept"`; it stays constant only if it is `"zero"`, which stays zero; the layer itself
            has to be `"computed"` on it; or channels are `"mixed"`. Defaults to what holds for
            the kind.
        merge: How a merging layer combines its inputs: `"add"`, `"average"`, `"divide"`,
            `"maximum"`, `"minimum"`, `"multiply"` or `"subtract"`.
        holds_convolution: Whether a `"mixing"` layer convolves somewhere inside, so that `embed`
            must not pass over it.
        applies: For a `"mixing"` layer that at inference does nothing but apply another layer:
            name of the attribute that holds it. `embed` looks through it.
        leading_axes: Axes between the batch and those of that layer, such as time: 0 or 1.
        is_resizable: Whether the layer can be made again with fewer channels, through `filters`,
            `units` or the number of channels that it is built on.

    Raises:
        ValueError: If an attribute has no such value.
    """

    kind: str
    rank: int | None = None
    is_linear: bool | None = None
    constants: str | None = None
    merge: str | None = None
    holds_convolution: bool = False
    applies: str | None = None
    leading_axes: int = 0
    is_resizable: bool = True

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise ValueError(f"`kind` must be one of {sorted(_KINDS)}. Received: kind={self.kind}")
        is_linear, constants = _KINDS[self.kind]
        if self.is_linear is None:
            object.__setattr__(self, "is_linear", is_linear)
        if self.constants is None:
            object.__setattr__(self, "constants", constants)
        if self.constants not in ("computed", "kept", "mixed", "zero"):
            raise ValueError(
                "`constants` must be 'computed', 'kept', 'mixed' or 'zero'. "
                f"Received: constants={self.constants}"
            )
        if (self.merge is None) == (self.kind == "merge"):
            raise ValueError(
                "`merge` must be given for kind='merge' and for no other. "
                f"Received: kind={self.kind}, merge={self.merge}"
            )
        if self.convolves and self.rank not in (1, 2, 3):
            raise ValueError(
                f"A layer of kind '{self.kind}' has a `rank` of 1, 2 or 3. "
                f"Received: rank={self.rank}"
            )

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The layer's kernels, in the order in which it computes."""
        return KERNELS.get(self.kind, ())

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution, with or without weight sharing."""
        return self.kind in KERNELS and self.kind != "dense"

    @property
    def mixes_channels(self) -> bool:
        """Whether an output channel depends on several input channels."""
        return self.kind == "mixing" or (self.kind in KERNELS and self.kind != "depthwise")


Facts = LayerFacts | Callable[[Any], LayerFacts]

_TABLE: dict[Any, Facts] = {}
_OPERATIONS: dict[str, LayerFacts] = {}
_CLASSES: dict[tuple[str, int | None], type] = {}
_OWN_LAYER = LayerFacts("mixing")


@checked
def register(layer: Any, facts: Facts) -> None:
    """Says what a layer class does, so that `embed`, `compact` and `Complexity` take it.

    The facts hold for objects of this very class: a subclass may do anything in its `call`, and is
    registered for itself. What is known of Keras' own layers stands in the same table.

    Args:
        layer: A subclass of `keras.layers.Layer`; or a function that is used as `activation`,
            which Keras has to know as well (`keras.saving.register_keras_serializable`).
        facts: `LayerFacts`, or a function from an object of the class to its `LayerFacts`, where
            they depend on its arguments.

    Raises:
        ValueError: If an argument is neither.

    Example:
        >>> from tfconvbias.surgery import compact
        >>> class Doubled(keras.layers.Layer):
        ...     def call(self, inputs):
        ...         return 2 * inputs
        >>> register(Doubled, LayerFacts("elementwise", is_linear=True))
        >>> model = keras.Sequential([keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, name="conv"), Doubled(), keras.layers.Conv2D(2, 3)])
        >>> kernel, bias = model.get_layer("conv").get_weights()
        >>> kernel[..., 1:3] = 0
        >>> model.get_layer("conv").set_weights([kernel, bias])
        >>> compact(model).get_layer("conv").filters
        2
    """
    if not callable(layer) or isinstance(layer, keras.layers.Layer):
        raise ValueError(
            "`layer` must be a class of layers or an activation function. "
            f"Received: layer={layer!r}"
        )
    if not isinstance(facts, LayerFacts) and not callable(facts):
        raise ValueError(
            f"`facts` must be LayerFacts or a function that returns them. Received: facts={facts!r}"
        )
    _TABLE[layer] = facts
    if isinstance(facts, LayerFacts) and isinstance(layer, type):
        _CLASSES.setdefault((facts.kind, facts.rank), layer)


def register_operation(name: str, facts: LayerFacts) -> None:
    """The same for what Keras puts into a graph itself: operations of `keras.ops` and the layers
    that its applications define.

    These classes are not public, but their names stand in saved files.
    """
    _OPERATIONS[name] = facts


@checked
def facts_of(layer: Any) -> LayerFacts | None:
    """What is known of a layer, of an operation in a graph or of an activation function.

    Args:
        layer: The object.

    Returns:
        Its facts; `None` if it is not in the table.

    Example:
        >>> facts_of(keras.layers.Conv3D(2, 3)).kind
        'conv'
        >>> facts_of(keras.layers.Activation("softmax")).kind
        'mixing'
        >>> facts_of(keras.layers.Lambda(abs)) is None
        True
    """
    is_layer = isinstance(layer, keras.layers.Layer)
    # Exact classes: a subclass may do anything in its call.
    found = _TABLE.get(type(layer)) or (None if is_layer else _TABLE.get(layer))
    if found is not None:
        return found if isinstance(found, LayerFacts) else found(layer)
    package = type(layer).__module__.split(".")[0]
    if is_layer and package == "tfconvbias":
        # Layers of this package without facts of their own, such as augmentations, are left whole.
        return _OWN_LAYER
    return _OPERATIONS.get(type(layer).__name__) if package == "keras" else None


def applied(layer: Any) -> tuple[Any, int]:
    """The layer that does a layer's work at inference, and the number of axes in front of its own.

    Returns:
        The layer that a wrapper holds, where the table says so; else the layer itself, and 0.

    Example:
        >>> wrapper = keras.layers.TimeDistributed(keras.layers.Conv2D(2, 3))
        >>> found, leading_axes = applied(wrapper)
        >>> found is wrapper.layer, leading_axes
        (True, 1)
    """
    facts = facts_of(layer)
    if facts is None or facts.applies is None:
        return layer, 0
    return getattr(layer, facts.applies), facts.leading_axes


def known_facts(layer: Any) -> LayerFacts:
    """The facts of a layer that has to be in the table.

    Raises:
        ValueError: If it is not.
    """
    facts = facts_of(layer)
    if facts is None:
        raise ValueError(
            f"Layer '{layer.name}' of class {type(layer).__name__} is not known. Say what its "
            "class does with `tfconvbias.graph.register`."
        )
    return facts


def kind_of(layer: Any) -> str | None:
    """The kind of a layer, `None` if it is not known."""
    facts = facts_of(layer)
    return None if facts is None else facts.kind


def layer_class(kind: str, rank: int) -> Callable[..., keras.layers.Layer]:
    """The class of layers of a kind and rank that was registered first: Keras' or this package's.

    Example:
        >>> layer_class("transposed", 2).__name__
        'Conv2DTranspose'
    """
    return _CLASSES[kind, rank]


def channel_axis(layer: Any, num_axes: int) -> int:
    """The axis of a layer's inputs that it takes for the channels, negative.

    Args:
        layer: Layer with `data_format`, a normalization with `axis`, or any other.
        num_axes: Number of axes of its inputs, with that of the batch.
    """
    if kind_of(layer) == "normalization":
        return layer.axis if layer.axis < 0 else layer.axis - num_axes
    return 1 - num_axes if getattr(layer, "data_format", None) == "channels_first" else -1


def is_pointwise(function: Any) -> bool | None:
    """Whether an activation acts on every number by itself; `None` if it is not known."""
    if function is None:
        return True
    facts = facts_of(function)
    # An activation that is a layer with weights would lose them where a layer is made again.
    if facts is None or (isinstance(function, keras.layers.Layer) and function.weights):
        return None
    return facts.kind == "elementwise"


def is_linear_layer(layer: Any) -> bool:
    """Whether a layer with a kernel is linear as a whole, its activation included."""
    facts = facts_of(layer)
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return facts is not None and bool(facts.kernels) and linear


def keeps_zero(layer: Any) -> bool:
    """Whether a layer that reads zeros alone puts out zeros alone; its bias is taken for zero."""
    facts = facts_of(layer)
    if facts is None or facts.kind in ("mixing", "input", "normalization"):
        return False
    if facts.kernels:
        activation = getattr(layer, "activation", None)
        return activation is None or not np.any(ops.convert_to_numpy(activation(ops.zeros((1, 1)))))
    if facts.constants == "computed":
        return not np.any(ops.convert_to_numpy(call_at_inference(layer, ops.zeros((1, 1)))))
    return facts.constants in ("kept", "zero")


def call_at_inference(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer computes at inference, without a check of the inputs' shape."""
    if "training" in inspect.signature(layer.call).parameters:
        kwargs["training"] = False
    return layer.call(*args, **kwargs)
