"""A model made again, with calls of its graph replaced."""

from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph.calls import Call, LayerGraph, TensorRef, map_tensors

_INITIALIZERS = ("kernel_initializer", "depthwise_initializer", "pointwise_initializer")


@checked
class Rebuilder:
    """Makes the calls of a graph again, in their order; a subclass says in `make` what becomes of
    each.

    As it stands it copies a model with its weights. Layers are copied once, however often they are
    called, and never called themselves; models nested in the model are dissolved into it.

    Args:
        graph: What `read_graph` has read.

    Example:
        >>> from tfconvbias.graph import read_graph
        >>> class WithoutDropout(Rebuilder):
        ...     def make(self, number, call):
        ...         if isinstance(call.operation, keras.layers.Dropout):
        ...             return self.tensors[call.inputs[0]]
        ...         return super().make(number, call)
        >>> model = keras.Sequential([
        ...     keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.ReLU(name="last")])
        >>> [layer.name for layer in WithoutDropout(read_graph(model)).model().layers[1:]]
        ['last']
    """

    def __init__(self, graph: LayerGraph):
        self.graph = graph
        self.tensors: dict[TensorRef, Any] = {}
        self._made: dict[int, dict[str, Any]] = {}
        self._pending: list[tuple[Any, list[np.ndarray]]] = []
        self._initializers: list[tuple[Any, str, Any]] = []
        self._names: set[str] = set()

    def model(self) -> keras.Model:
        """The new model: functional, uncompiled, with the inputs, outputs and name of the old."""
        outputs_of = {tensor.call for tensor in self.graph.flat_outputs()}
        for number, call in enumerate(self.graph.calls):
            made = keras.tree.flatten(self.make(number, call))
            if number in outputs_of and any(made[0] is one for one in self.tensors.values()):
                # The model's outputs keep the names of layers that are left out.
                made = [keras.layers.Identity(name=self.name_for(call))(made[0])]
            for index, tensor in enumerate(made):
                self.tensors[TensorRef(number, index)] = tensor
        inputs, outputs = (
            map_tensors(self.tensors.__getitem__, structure)
            for structure in (self.graph.inputs, self.graph.outputs)
        )
        model = keras.Model(inputs, outputs, name=self.graph.name)
        for layer, weights in self._pending:
            if weights:
                layer.set_weights(weights)
                recompute_constants(layer)
        for layer, name, initializer in self._initializers:
            setattr(layer, name, initializer)
        return model

    def make(self, number: int, call: Call) -> Any:
        """The outputs of a call, as a structure of tensors; `()` where nothing is left of it."""
        if not call.inputs:
            return self.layer(call).output
        args, kwargs = self.arguments(call)
        return self.layer(call)(*args, **kwargs)

    def arguments(self, call: Call) -> tuple[Any, dict[str, Any]]:
        """The arguments of a call with the new tensors in place of the old."""
        args = map_tensors(self.tensors.__getitem__, call.args)
        kwargs = map_tensors(self.tensors.__getitem__, call.kwargs)
        return args, {key: value for key, value in kwargs.items() if value is not None}

    def layer(
        self,
        call: Call,
        config: dict[str, Any] | None = None,
        weights: list[np.ndarray] | None = None,
    ) -> Any:
        """The layer that stands for that of a call; made when first asked for.

        One without weights is made once for each configuration.

        Args:
            call: The call.
            config: Its configuration; by default that of the old layer. The name is set here.
            weights: Its weights, set at the end; by default those of the old layer.
        """
        old = call.operation
        config = old.get_config() if config is None else config
        made = self._made.setdefault(id(old), {})
        # A layer without weights may be made in several sizes, one for each size of its inputs.
        key = "" if getattr(old, "weights", ()) else repr(config)
        if key not in made:
            made[key] = type(old).from_config({**config, "name": self.name_for(call)})
            self._draw_nothing(made[key])
            if weights is None:
                weights = old.get_weights() if isinstance(old, keras.layers.Layer) else []
            self._pending.append((made[key], weights))
        return made[key]

    def _draw_nothing(self, layer: Any) -> None:
        """Has the kernel begin with zeros: it is replaced, and to draw 100 million weights is slow.

        `model` gives the layer its initializer back, which is part of its configuration.
        """
        for name in _INITIALIZERS:
            own = vars(layer).get(name)
            if isinstance(own, keras.initializers.Initializer):
                self._initializers.append((layer, name, own))
                setattr(layer, name, keras.initializers.Zeros())

    def name_for(self, call: Call) -> str:
        """The name of the layer that stands for that of a call."""
        # Those around it are added only where two nested models have layers of one name.
        own = call.operation.name
        return self.name(call.name if own in self._names else own)

    def new_name(self, wanted: str) -> str:
        """A name for a layer that is added: none of the old model's and none that is taken."""
        old = {name for call in self.graph.calls for name in (call.name, call.operation.name)}
        name, number = wanted, 1
        while name in self._names or name in old:
            number += 1
            name = f"{wanted}_{number}"
        return self.name(name)

    def name(self, wanted: str) -> str:
        """A name that no layer has yet."""
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name


def recompute_constants(layer: keras.layers.Layer) -> None:
    """Recomputes the constants that a layer derives from its weights, after they were set."""
    # Normalization computes with constants that it makes of its adapted mean and variance.
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in getattr(layer, "layers", ()):
        recompute_constants(inner)
