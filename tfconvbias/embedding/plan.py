"""What `embed` decides about each call of a model: which layers change, and what they connect."""

from collections.abc import Sequence
from typing import Any

import keras

from tfconvbias.embedding.stages import (
    Stage,
    as_convolution,
    average_stage,
    stage_of,
    with_explicit_padding,
    with_leading_axis,
)
from tfconvbias.graph.calls import Call, LayerGraph, TensorRef
from tfconvbias.graph.facts import (
    KERNEL_ARGUMENTS,
    applied,
    channel_axis,
    facts_of,
    kind_of,
)
from tfconvbias.graph.geometry import Pairs
from tfconvbias.graph.windows import add_pairs, layer_geometries, zero_padding

TARGETS = ("dense", "local", "wide")
PADDINGS = ("folded", "explicit")


def is_embeddable(layer: Any, target: str = "dense") -> bool:
    """Whether a layer can be embedded: a convolution, or average pooling where it is named.

    A wrapper that applies one at inference counts as that one.
    """
    inner, _ = applied(layer)
    facts = facts_of(inner)
    if inner is not layer and (facts is None or not facts.convolves):
        return False
    if facts is None or (facts.kind == "local" and target != "dense"):
        return False
    if target == "wide":
        return facts.convolves
    return facts.convolves or (facts.kind == "pooling" and bool(facts.is_linear))


class EmbeddingPlan:
    """The stages that each chosen call of a graph becomes; made without calling anything.

    Args:
        graph: The model's graph.
        target: `"dense"`, `"local"` or `"wide"`.
        padding: `"folded"` or `"explicit"`.
        layers: Names of the layers to embed; `None` for every convolution.
        kernel_size: Of wide convolutions; `None` for all taps that meet an input.

    Attributes:
        graph: The model's graph.
        target: `"dense"`, `"local"` or `"wide"`.
        kernel_size: As given.
        stages: Number of a call → the tensor that the first stage reads, and the stages.

    Raises:
        ValueError: If an argument is out of range, or a chosen layer cannot be embedded.
        NotImplementedError: For a layer that is not known.
    """

    def __init__(
        self,
        graph: LayerGraph,
        target: str,
        padding: str,
        layers: Sequence[str] | None,
        kernel_size: int | Sequence[int] | None = None,
    ):
        for name, value, allowed in (("target", target, TARGETS), ("padding", padding, PADDINGS)):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={value}")
        if isinstance(layers, str):
            raise ValueError(f"`layers` must be a sequence of names. Received: layers={layers!r}")
        if kernel_size is not None and target != "wide":
            raise ValueError(
                "`kernel_size` is for target='wide' only. "
                f"Received: kernel_size={kernel_size}, target={target!r}"
            )
        self.graph = graph
        self.target = target
        self.kernel_size = kernel_size
        self._is_explicit = padding == "explicit"
        self._layers = None if layers is None else frozenset(layers)
        self.stages: dict[int, tuple[TensorRef, list[Stage]]] = {}
        seen: set[str] = set()
        for number, call in enumerate(graph.calls):
            if self._is_chosen(call):
                self._check(call.operation)
                seen |= {call.name, call.operation.name}
                self.stages[number] = self._stages(call)
            elif layers is None:
                _check_that_it_may_stay(call)
        unknown = set(layers or ()) - seen
        if unknown:
            raise ValueError(
                "`layers` must name convolutions, locally connected or average pooling layers of "
                f"the model. Received: layers={list(layers or ())}, of which unknown: "
                f"{sorted(unknown)}"
            )

    def _is_chosen(self, call: Call) -> bool:
        if not is_embeddable(call.operation, self.target):
            return False
        if self._layers is None:
            facts = facts_of(applied(call.operation)[0])
            return facts is not None and facts.convolves
        return not self._layers.isdisjoint((call.name, call.operation.name))

    def _check(self, operation: Any) -> None:
        layer, num_leading = applied(operation)
        if num_leading:
            _check_leading(operation, layer, self.target)
        is_transposed = kind_of(layer) == "transposed"
        if self.target != "dense" and is_transposed and set(layer.strides) != {1}:
            form = "locally connected" if self.target == "local" else "wide"
            raise ValueError(
                f"Layer '{layer.name}' is a transposed convolution with a stride above 1, which "
                f"has no {form} layer of its form. Use target='dense', or name the other layers in "
                "`layers`."
            )
        for argument in (*KERNEL_ARGUMENTS, "bias"):
            constraint = getattr(layer, f"{argument}_constraint", None)
            if constraint is not None:
                raise ValueError(
                    "A constraint on a convolution's weights has no counterpart on the larger "
                    f"kernel. Received: layer '{layer.name}' with "
                    f"{argument}_constraint={constraint}"
                )

    def _stages(self, call: Call) -> tuple[TensorRef, list[Stage]]:
        """The tensor that a chosen layer is to read, and the connections that it becomes."""
        (inputs,) = call.inputs
        layer, num_leading = applied(call.operation)
        if num_leading:
            # Padding layers in front may pad the leading axis as well.
            source, padded = inputs, None
        else:
            source, padded = in_front_of_padding(self.graph, inputs, layer)
        margin = None
        # Zeros in front of an average count in it, unlike the pooling's own padding.
        is_explicit = self._is_explicit and self.target == "dense"
        if self.target == "local" or is_explicit or kind_of(layer) == "pooling":
            source, padded, margin = inputs, None, padded
        shape = self.graph.shapes[source]
        if num_leading and shape[1] is None:
            raise ValueError(
                f"The inputs of layer '{call.operation.name}' must be fully defined, with its "
                f"leading axis. Received: input_shape={tuple(shape)}"
            )
        found = layer_geometries(layer, (shape[0], *shape[1 + num_leading :]), padded)
        if kind_of(layer) == "pooling":
            stages = [average_stage(layer, found[0][1])]
        else:
            stages = [
                stage_of(layer, kernel, geometry, len(found) > 1, number == len(found) - 1)
                for number, (kernel, geometry) in enumerate(found)
                if kernel is not None
            ]
        if num_leading:
            stages = [with_leading_axis(stage, shape[1]) for stage in stages]
        if self.target != "dense" and kind_of(layer) == "transposed":
            stages = [as_convolution(stage) for stage in stages]
            if self.target == "local":
                stages = [with_explicit_padding(stage, None) for stage in stages]
        if is_explicit:
            stages = [
                with_explicit_padding(stage, margin if number == 0 else None)
                for number, stage in enumerate(stages)
            ]
        return source, stages


def in_front_of_padding(
    graph: LayerGraph, tensor: TensorRef, layer: Any
) -> tuple[TensorRef, Pairs | None]:
    """The tensor in front of the ZeroPadding layers whose output a layer reads, and their zeros.

    Several of them in a row count as one.
    """
    pairs = None
    num_axes = len(graph.shapes[tensor])
    while kind_of(layer) != "transposed":
        call = graph.calls[tensor.call]
        axes = {channel_axis(one, num_axes) for one in (call.operation, layer)}
        if kind_of(call.operation) != "padding" or len(axes) > 1:
            break
        own = zero_padding(call.operation)
        pairs = own if pairs is None else add_pairs(own, pairs)
        (tensor,) = call.inputs
    return tensor, pairs


def activation_call(layer: Any) -> Call | None:
    """A call of the layer that another one holds as its activation; `None` if that is a function.

    Such a layer may have weights, so that a new model needs a copy of it.
    """
    activation = getattr(layer, "activation", None)
    if not isinstance(activation, keras.layers.Layer):
        return None
    return Call(activation, f"{layer.name}_activation", (), {}, ())


def margins(graph: LayerGraph) -> dict[int, Pairs]:
    """For each locally connected layer by id, the rim of its inputs that always holds zeros.

    It stems from ZeroPadding layers in front. A layer that is called several times has what all of
    its calls have in common.
    """
    found: dict[int, Pairs] = {}
    for call in graph.calls:
        if kind_of(call.operation) == "local":
            (tensor,) = call.inputs
            _, pairs = in_front_of_padding(graph, tensor, call.operation)
            pairs = pairs or ((0, 0),) * (len(graph.shapes[tensor]) - 2)
            known = found.get(id(call.operation), pairs)
            found[id(call.operation)] = tuple(
                (min(b, before), min(a, after))
                for (b, a), (before, after) in zip(pairs, known, strict=True)
            )
    return found


def _check_that_it_may_stay(call: Call) -> None:
    layer, facts = call.operation, facts_of(call.operation)
    kept = "To keep it as it is, name the layers to embed in `layers`"
    kind = type(layer).__name__
    if not isinstance(layer, keras.layers.Layer):
        if facts is not None and facts.holds_convolution:
            raise NotImplementedError(
                f"How to embed operation '{layer.name}' of class {kind} is not known, as its "
                f"kernel belongs to no layer: use a layer. {kept}."
            )
    elif facts is None:
        raise NotImplementedError(
            f"How to embed layer '{layer.name}' of class {kind} is not known. {kept}, or say what "
            "its class does with `tfconvbias.graph.register`."
        )
    elif facts.holds_convolution:
        raise NotImplementedError(
            f"Layer '{layer.name}' of class {kind} holds a convolution inside, which cannot be "
            f"embedded. {kept}."
        )


def _check_leading(operation: Any, layer: Any, target: str) -> None:
    """What cannot be written as a convolution of one axis more."""
    facts, reason = facts_of(layer), None
    if facts is not None and facts.rank == 3:
        reason = "has three axes already"
    elif layer.data_format != "channels_last":
        reason = "has data_format='channels_first'"
    elif target == "local" and layer.padding == "causal":
        reason = "has padding='causal'"
    if reason is not None:
        raise ValueError(
            f"Layer '{operation.name}' applies a convolution at each step of a further axis, which "
            f"is embedded as a convolution with that axis; but '{layer.name}' {reason}."
        )
