"""From a model with zeroed channels to a model without them."""

from collections import Counter
from typing import Any

import keras
import numpy as np

from tfconvbias.regularizers.complexity import following_batch_normalization
from tfconvbias.regularizers.layer_graph import map_tensors
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.plan import Plan, make_plan, warn_of_last_kernels
from tfconvbias.surgery.rules import PassRule

_OWN_PREFIX = "tfconvbias>"


def compact(model, opaque: tuple[Any, ...] = (), fold_normalization: bool = False):
    """Returns a plain Keras model that computes the same function with fewer channels.

    Channels that are zero, or that nothing reads, are cut out of every layer: a channel of a
    residual stream when it is dead in all that write to it, a residual branch whose first or
    second convolution is dead as a whole. Constants that dead channels emit (a BatchNormalization
    of zeros gives β − γμ/√(σ²+ε)) are added to the bias of the layers that read them where that is
    exact, and the channel is kept where it is not, next to zero padding. Kernels are cut to the
    largest live size in their layer, with the padding made explicit. Models nested in the model
    are dissolved into it. The result has no custom code: penalties of this package are left out of
    its layers; it is not compiled (train on with a fresh optimizer).

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`; it is not modified.
        opaque: Names or classes of layers that the walk does not know, to be kept as they are with
            all channels that they read and write.
        fold_normalization: Whether a BatchNormalization that follows a convolution or dense layer
            directly is multiplied into its kernel, as it stands at inference. That model is for
            inference: what it would learn next is no longer normalized.

    Returns:
        A functional `keras.Model`: its outputs differ from the model's by rounding only.

    Raises:
        ValueError: If the model's graph can't be read, or a layer is unknown; the message names
            the layer.

    Warns:
        UserWarning: If a layer has no live kernel left but no shortcut goes around it.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="first"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2)])
    >>> kernel, bias = model.get_layer("first").get_weights()
    >>> kernel[..., 1:3] = 0
    >>> model.get_layer("first").set_weights([kernel, bias])
    >>> compact(model).get_layer("first").filters
    2
    """
    plan = make_plan(model, opaque=opaque)
    warn_of_last_kernels(plan)
    return build_model(plan, model.name, fold_normalization)


def build_model(plan: Plan, name: str, fold_normalization: bool = False):
    """Makes the calls of a plan again, on what is kept."""
    builder = _Builder(_foldable(plan) if fold_normalization else {})
    tensors: dict = {}
    for rule in plan.rules:
        if rule.number not in plan.used and rule.call.inputs:
            continue
        made = rule.rebuild(plan.kept, tensors, builder)
        tensors.update(zip(rule.outputs, made, strict=True))
    inputs, outputs = (
        map_tensors(tensors.__getitem__, structure)
        for structure in (plan.graph.inputs, plan.graph.outputs)
    )
    model = keras.Model(inputs, outputs, name=name)
    builder.set_weights()
    return model


def _foldable(plan: Plan) -> dict[int, Any]:
    """The BatchNormalization that can be multiplied into each call of a kernel layer."""
    calls = Counter(id(call.operation) for call in plan.graph.calls)
    found = {}
    for rule in plan.kernel_rules():
        normalization = following_batch_normalization(plan.graph, rule.number)
        if normalization is None or rule.number not in plan.used:
            continue
        reader = plan.rules[plan.graph.consumers()[rule.output][0]]
        shared = max(calls[id(rule.operation)], calls[id(normalization)]) > 1
        if isinstance(reader, PassRule) and not shared:
            found[rule.number] = normalization
    return found


class _Builder:
    """Makes layers from configurations, one for each layer of the old model.

    Args:
        folded: By number of a call, the BatchNormalization that its kernel takes up.
    """

    def __init__(self, folded: dict[int, Any]):
        self._folded = folded
        self._folded_layers = {id(normalization) for normalization in folded.values()}
        self._made: dict[int, Any] = {}
        self._pending: list[tuple[Any, list]] = []
        self._names: set[str] = set()

    def is_folded(self, operation) -> bool:
        """Whether the layer is taken up by the kernel before it."""
        return id(operation) in self._folded_layers

    def normalization_after(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and shift of the BatchNormalization that a call takes up, in float64."""
        layer = self._folded.get(number)
        if layer is None:
            return None
        mean, variance = (
            to_numpy(part).astype("float64") for part in (layer.moving_mean, layer.moving_variance)
        )
        scale = 1 / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            scale = scale * to_numpy(layer.gamma)
        shift = -mean * scale
        if layer.center:
            shift = shift + to_numpy(layer.beta)
        return scale, shift

    def name(self, wanted: str) -> str:
        """A name that no layer has yet."""
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name

    def layer(self, call, config: dict, weights: list):
        """A new layer like the call's own, with another configuration and other weights."""
        operation = call.operation
        if id(operation) not in self._made:
            config = {**without_penalties(config), "name": self.name(call.name)}
            layer = type(operation).from_config(config)
            self._made[id(operation)] = layer
            self._pending.append((layer, weights))
        return self._made[id(operation)]

    def set_weights(self) -> None:
        """Gives the layers their weights, once all calls have built them."""
        for layer, weights in self._pending:
            if weights:
                layer.set_weights(weights)


def without_penalties(config: dict) -> dict:
    """A layer's configuration without this package's regularizers, which a plain model lacks."""
    return {
        key: None
        if isinstance(value, dict)
        and str(value.get("registered_name", "")).startswith(_OWN_PREFIX)
        and key.endswith("_regularizer")
        else value
        for key, value in config.items()
    }
