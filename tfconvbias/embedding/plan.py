"""What `embed` decides about each call of a model: which layers change, and what they connect."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.connectivity import explicit_padding, patch_indices
from tfconvbias.embedding import kernels
from tfconvbias.embedding.wide import widened
from tfconvbias.graph.calls import Call, LayerGraph, TensorRef
from tfconvbias.graph.facts import KERNEL_ARGUMENTS, Kernel, channel_axis, facts_of, kind_of
from tfconvbias.graph.geometry import ConvGeometry, Pairs
from tfconvbias.graph.windows import add_pairs, layer_geometries, zero_padding

TARGETS = ("dense", "local", "wide")
PADDINGS = ("folded", "explicit")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One connection that a layer becomes: what it connects, and with which weights.

    Attributes:
        suffix: What the new layer is called after the name of the old.
        geometry: What it connects.
        kernel: Gives the value of the old layer's kernel.
        bias: Gives the value of the bias as `(*output, filters)`; `None` without one.
        is_local: Whether the kernel has one copy for each position already.
        argument: What the old layer calls this kernel in its arguments.
        rim: Zeros to put around the inputs first; `None` for none.
    """

    suffix: str
    geometry: ConvGeometry
    kernel: Callable[[], np.ndarray]
    bias: Callable[[], np.ndarray] | None = None
    is_local: bool = False
    argument: str = "kernel"
    rim: Pairs | None = None


def is_embeddable(layer: Any, target: str = "dense") -> bool:
    """Whether a layer can be embedded: a convolution, or average pooling where it is named."""
    facts = facts_of(layer)
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
            facts = facts_of(call.operation)
            return facts is not None and facts.convolves
        return not self._layers.isdisjoint((call.name, call.operation.name))

    def _check(self, layer: Any) -> None:
        if self.target != "dense" and kind_of(layer) == "transposed":
            form = "locally connected" if self.target == "local" else "wide"
            raise ValueError(
                f"Layer '{layer.name}' is a transposed convolution, which has no {form} "
                "layer of its form. Use target='dense', or name the other layers in `layers`."
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
        layer = call.operation
        source, padded = in_front_of_padding(self.graph, inputs, layer)
        margin = None
        # Zeros in front of an average count in it, unlike the pooling's own padding.
        is_explicit = self._is_explicit and self.target == "dense"
        if self.target == "local" or is_explicit or kind_of(layer) == "pooling":
            source, padded, margin = inputs, None, padded
        shape = self.graph.shapes[source]
        found = layer_geometries(layer, shape, padded)
        if kind_of(layer) == "pooling":
            stages = [_average(layer, found[0][1])]
        else:
            stages = [
                _stage(layer, kernel, geometry, len(found) > 1, number == len(found) - 1)
                for number, (kernel, geometry) in enumerate(found)
                if kernel is not None
            ]
        if is_explicit:
            stages = [
                _explicit(stage, margin if number == 0 else None)
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


def _stage(
    layer: Any, kernel: Kernel, geometry: ConvGeometry, is_one_of_several: bool, is_last: bool
) -> Stage:
    is_local = kind_of(layer) == "local"

    def bias() -> np.ndarray:
        value = ops.convert_to_numpy(layer.bias)
        return value if is_local else kernels.bias_to_positions(value, geometry)

    return Stage(
        f"_{kernel.argument}" if is_one_of_several else "",
        geometry,
        lambda: ops.convert_to_numpy(getattr(layer, kernel.attribute)),
        bias if layer.use_bias and is_last else None,
        is_local,
        kernel.argument,
    )


def _average(layer: Any, geometry: ConvGeometry) -> Stage:
    pads = _own_padding(geometry)
    if keras.config.backend() == "torch" and any(before != after for before, after in pads):
        raise ValueError(
            f"Average pooling layer '{layer.name}' pads its inputs {pads}: with an odd total Keras "
            "repeats the border on PyTorch instead of leaving it out of the mean. Embed it on "
            "another backend, or put a ZeroPadding layer in front."
        )
    dtype = keras.backend.standardize_dtype(layer.variable_dtype)
    return Stage("", geometry, lambda: _average_kernel(geometry, dtype), is_local=True)


def _average_kernel(geometry: ConvGeometry, dtype: Any) -> np.ndarray:
    """Average pooling as a locally connected kernel: one over the number of inputs under a window.

    With padding "same" a window at the border holds fewer inputs and so larger weights.
    """
    taps = patch_indices(
        geometry.spatial_shape, geometry.kernel_size, geometry.strides, geometry.padding
    )
    weights = 1.0 / np.maximum((taps >= 0).sum(axis=1), 1)
    per_position = weights.reshape((*geometry.output_spatial_shape, *(1,) * (geometry.rank + 2)))
    kernel = np.broadcast_to(per_position, geometry.local_kernel_shape)
    return np.ascontiguousarray(kernel, dtype=dtype)


def _own_padding(geometry: ConvGeometry) -> Pairs:
    return explicit_padding(
        geometry.spatial_shape,
        geometry.kernel_size,
        geometry.strides,
        geometry.padding,
        geometry.dilation_rate,
    )


def padded_shape(geometry: ConvGeometry) -> tuple[int, ...]:
    """The spatial lengths of a convolution's inputs with its own padding around them."""
    if geometry.kind == "transposed":
        return geometry.spatial_shape
    lengths = zip(geometry.spatial_shape, _own_padding(geometry), strict=True)
    return tuple(n + before + after for n, (before, after) in lengths)


def _explicit(stage: Stage, margin: Pairs | None) -> Stage:
    """Turn a convolution's own padding into a rim of its input volume."""
    geometry = stage.geometry
    if geometry.kind == "transposed":
        return stage
    own = _own_padding(geometry)
    return dataclasses.replace(
        stage,
        geometry=dataclasses.replace(
            geometry,
            spatial_shape=padded_shape(geometry),
            padding="valid",
            margin=own if margin is None else add_pairs(margin, own),
        ),
        rim=own if any(map(any, own)) else None,
    )


def stage_size(stage: Stage, target: str, kernel_size: int | Sequence[int] | None = None) -> int:
    """Number of parameters of the layer that a stage becomes."""
    geometry = stage.geometry
    if target == "wide":
        wide, _ = widened(geometry, kernel_size)
        return math.prod(wide.kernel_shape) + (stage.bias is not None) * geometry.filters
    shape = geometry.matrix_shape if target == "dense" else geometry.local_kernel_shape
    return math.prod(shape) + (stage.bias is not None) * geometry.matrix_shape[1]
