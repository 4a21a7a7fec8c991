"""A model's layers as a graph of calls, read from its public configuration.

Keras keeps the nodes of a functional model private, but `get_config()` writes every call of every
layer (and of every `keras.ops` function) with its tensors: that is the file format, which has to
stay readable, so it is what is read here. Nothing is called and the model is not touched.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, NamedTuple

import keras

from tfconvbias.arguments import checked


class TensorRef(NamedTuple):
    """Output number `output` of the call number `call` of a graph."""

    call: int
    output: int


@dataclass
class Call:
    """One call of a layer or of a `keras.ops` function.

    Attributes:
        operation: The layer or operation of the user's model (never modified).
        name: Its name, prefixed with the names of the nested models around it.
        args: Positional arguments, `TensorRef` in place of tensors.
        kwargs: Keyword arguments, likewise.
        inputs: The tensors among the arguments, in order.
    """

    operation: Any
    name: str
    args: Any
    kwargs: Any
    inputs: tuple[TensorRef, ...]


@dataclass
class LayerGraph:
    """Calls in an order in which they can be computed, and the tensors between them.

    Attributes:
        calls: The calls; nested models are replaced by their own calls.
        inputs: The model's inputs, in the model's own structure (list, dict, single tensor).
        outputs: The model's outputs, likewise.
        shapes: Static shape of every tensor that is used, batch axis first.
        name: Name of the model.
    """

    calls: list[Call] = field(default_factory=list)
    inputs: Any = None
    outputs: Any = None
    shapes: dict[TensorRef, tuple] = field(default_factory=dict)
    name: str = ""

    def is_shared(self, call: Call) -> bool:
        """Whether the layer of a call is called anywhere else in the graph."""
        return sum(other.operation is call.operation for other in self.calls) > 1

    def consumers(self) -> dict[TensorRef, list[int]]:
        """Numbers of the calls that read each tensor."""
        readers: dict[TensorRef, list[int]] = {}
        for number, call in enumerate(self.calls):
            for tensor in call.inputs:
                readers.setdefault(tensor, []).append(number)
        return readers

    def is_connected(self, blocked: Set[int]) -> bool:
        """Whether an output depends on an input without certain calls, given by their numbers."""
        reached: set[TensorRef] = set()
        for number, call in enumerate(self.calls):
            if number not in blocked and (not call.inputs or reached & set(call.inputs)):
                count = len(keras.tree.flatten(call.operation.output))
                reached |= {TensorRef(number, index) for index in range(count)}
        return any(tensor in reached for tensor in self.flat_outputs())

    def flat_outputs(self) -> list[TensorRef]:
        """The output tensors as a flat list."""
        return list(tensors_in(self.outputs))


def tensors_in(structure) -> Iterator[TensorRef]:
    """Every `TensorRef` in nested lists, tuples and dicts."""
    if isinstance(structure, TensorRef):
        yield structure
    elif isinstance(structure, Mapping):
        for value in _values(structure):
            yield from tensors_in(value)
    elif isinstance(structure, list | tuple):
        for value in structure:
            yield from tensors_in(value)


def _keys(mapping: Mapping) -> list:
    """A dict's keys in the order in which Keras numbers a layer's inputs and outputs."""
    return list(mapping) if isinstance(mapping, OrderedDict) else sorted(mapping)


def _values(mapping: Mapping) -> Iterator:
    return (mapping[key] for key in _keys(mapping))


def map_tensors(function, structure):
    """The structure with `function` applied to every `TensorRef`."""
    if isinstance(structure, TensorRef):
        return function(structure)
    if isinstance(structure, Mapping):
        return _like(structure, [map_tensors(function, value) for value in structure.values()])
    if isinstance(structure, list | tuple):
        return type(structure)(map_tensors(function, value) for value in structure)
    return structure


def _like(mapping: Mapping, values: list) -> dict:
    """A dict with the keys of another one, in its order, and ordered if that one is."""
    kind = OrderedDict if isinstance(mapping, OrderedDict) else dict
    return kind(zip(mapping, values, strict=True))


def is_functional(operation) -> bool:
    """Whether it is a model whose graph can be read: functional, or a built `Sequential`."""
    if isinstance(operation, keras.Sequential):
        return operation.built
    return isinstance(operation, keras.Model) and isinstance(operation, keras.Function)


@checked
def read_graph(model: keras.Model) -> LayerGraph:
    """Reads the graph of calls of a functional or sequential model.

    Args:
        model: A built `keras.Sequential` or a functional `keras.Model`. Models nested in it are
            read through: their calls stand in the graph as if they had been written there. Of a
            built subclassed model, what its `call` does at inference on symbolic inputs, where
            Keras can follow it and all of its weights belong to layers that it calls.

    Returns:
        The `LayerGraph`.

    Raises:
        ValueError: If the model's graph cannot be read, or it is not built.

    Example:
    >>> inputs = keras.Input((8, 8, 3))
    >>> model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="first")(inputs))
    >>> [call.name for call in read_graph(model).calls][1:]
    ['first']
    """
    if not is_functional(model):
        model = _functional_form(model)
    graph = LayerGraph(name=model.name)
    graph.inputs, graph.outputs = _read_into(graph, model, prefix="", outer_inputs=None)
    return graph


def _functional_form(model) -> keras.Model:
    """A built subclassed model's `call` as a functional model of the same layers."""
    kind = type(model).__name__
    refusal = (
        "`model` must be a functional model: a functional `keras.Model`, a built "
        "`keras.Sequential`, or a built subclassed model whose `call` Keras can follow. "
        f"Received: model={model} of type {kind}"
    )
    is_subclassed = isinstance(model, keras.Model) and not isinstance(model, keras.Sequential)
    config = model.get_build_config() if is_subclassed and model.built else None
    shape = (config or {}).get("input_shape")
    if shape is None:
        raise ValueError(refusal)
    try:
        inputs = _symbolic(shape)
        # A False would stay with every layer that is told: they are to follow the new model.
        told = {"training": None} if "training" in signature(model.call).parameters else {}
        form = keras.Model(inputs, model.call(inputs, **told), name=model.name)
        form.get_config()
    except Exception as error:
        # Whatever the user's own code raises on tensors without values.
        raise ValueError(f"{refusal}. Keras could not follow it: {error}") from error
    missing = {id(v): v for v in model.weights}.keys() - {id(v) for v in form.weights}
    lost = sorted(v.path for v in model.weights if id(v) in missing and "seed" not in v.path)
    if lost:
        raise ValueError(f"{refusal}. These weights belong to no layer that it calls: {lost}")
    return form


def _symbolic(shape):
    """Inputs of a shape, or of a structure of shapes, with any number of samples."""
    if isinstance(shape, Mapping):
        return {key: _symbolic(value) for key, value in shape.items()}
    if all(n is None or isinstance(n, int) for n in shape):
        return keras.Input(tuple(shape[1:]))
    return [_symbolic(one) for one in shape]


def _read_into(graph: LayerGraph, model, prefix: str, outer_inputs: list[TensorRef] | None):
    """Appends the calls of `model`, with its inputs replaced by `outer_inputs` where nested."""
    if isinstance(model, keras.Sequential):
        # A functional view of the same layers: it has the configuration that is read below.
        model = keras.Model(model.inputs, model.outputs, name=model.name)
        if outer_inputs is None:
            # A sequential model takes and returns one tensor, not a list of one.
            model_inputs, model_outputs = _read_into(graph, model, prefix, None)
            return model_inputs[0], model_outputs[0]
    config = _config_of(model)
    operations = {operation.name: operation for operation in model.operations}
    known: dict[tuple[str, int, int], TensorRef] = {}
    input_keys = [tuple(key) for key in _keys_in(config["input_layers"])]
    if outer_inputs is not None:
        known.update(zip(input_keys, outer_inputs, strict=True))

    pending = []
    for layer in config["layers"]:
        operation = operations[layer["name"]]
        nodes = layer["inbound_nodes"]
        if not nodes and (operation.name, 0, 0) not in known:
            tensor = _append(graph, operation, prefix + operation.name, (), {}, 1)[0]
            known[operation.name, 0, 0] = tensor
            graph.shapes[tensor] = tuple(operation.batch_shape)
        pending += [(operation, number, node) for number, node in enumerate(nodes)]

    while pending:
        waiting = []
        for operation, number, node in pending:
            if any(key not in known for key in _tensor_keys(node)):
                waiting.append((operation, number, node))
                continue
            args = _decode(node["args"], known, graph.shapes)
            kwargs = _decode(node["kwargs"], known, graph.shapes)
            outputs = _call(graph, operation, prefix, args, kwargs)
            known.update(
                ((operation.name, number, index), tensor) for index, tensor in enumerate(outputs)
            )
        if len(waiting) == len(pending):
            names = sorted({operation.name for operation, _, _ in waiting})
            raise ValueError(f"The calls of these layers form a loop: {names}")
        pending = waiting

    def look_up(key):
        name, number, index = key
        nested = isinstance(operations[name], keras.Function)
        # Keras counts the calls of a nested functional model from one here, from zero elsewhere.
        return known[name, number - 1 if nested else number, index]

    inputs = _map_keys(look_up, config["input_layers"])
    outputs = _map_keys(look_up, config["output_layers"])
    for tensor, symbolic in zip(tensors_in(outputs), model.outputs, strict=True):
        graph.shapes.setdefault(tensor, tuple(symbolic.shape))
    return inputs, outputs


def _config_of(model) -> dict:
    try:
        config = model.get_config()
        if "layers" not in config:
            # A subclass of a functional model, with a configuration of its own.
            config = keras.Model(model.input, model.output, name=model.name).get_config()
        return config
    except NotImplementedError as error:
        kinds = sorted({type(operation).__name__ for operation in model.operations})
        raise ValueError(
            f"The graph of model {model.name!r} cannot be read, since one of its layers has no "
            f"configuration. Its layers are of the types {kinds}. {error}"
        ) from error


def _call(graph: LayerGraph, operation, prefix: str, args, kwargs) -> list[TensorRef]:
    if is_functional(operation):
        inputs = _inputs_of_nested(operation, args, kwargs)
        _, outputs = _read_into(graph, operation, f"{prefix}{operation.name}_", inputs)
        return list(tensors_in(outputs))
    count = len(keras.tree.flatten(operation.output))
    return _append(graph, operation, prefix + operation.name, args, kwargs, count)


def _inputs_of_nested(model, args, kwargs) -> list[TensorRef]:
    """The tensors that a nested model is called on, in the order of its own inputs."""
    given = args[0] if args else kwargs
    names = [tensor.name for tensor in model.inputs]
    by_name = isinstance(given, Mapping) and not isinstance(model.input, Mapping)
    if by_name and given.keys() >= set(names):
        # Keras takes them by the names of the inputs.
        return [given[name] for name in names]
    return list(_in_order_of(model.input, given))


def _in_order_of(structure, given) -> Iterator[TensorRef]:
    """The tensors of a structure in the order that Keras has for another one with its keys."""
    if isinstance(structure, Mapping) and isinstance(given, Mapping):
        for key in _keys(structure):
            yield from _in_order_of(structure[key], given[key])
    else:
        yield from tensors_in(given)


def _append(graph: LayerGraph, operation, name, args, kwargs, count: int) -> list[TensorRef]:
    inputs = tuple(tensors_in((args, kwargs)))
    graph.calls.append(Call(operation, name, args, kwargs, inputs))
    return [TensorRef(len(graph.calls) - 1, index) for index in range(count)]


def _keys_in(structure) -> Iterator[list]:
    """Every `[name, call, index]` of a model's serialized inputs or outputs."""
    if _is_key(structure):
        yield structure
    else:
        for value in _values(structure) if isinstance(structure, Mapping) else structure:
            yield from _keys_in(value)


def _map_keys(function, structure):
    if _is_key(structure):
        return function(structure)
    if isinstance(structure, Mapping):
        return _like(structure, [_map_keys(function, value) for value in structure.values()])
    return [_map_keys(function, value) for value in structure]


def _is_key(structure) -> bool:
    return (
        isinstance(structure, list | tuple)
        and len(structure) == 3
        and isinstance(structure[0], str)
        and isinstance(structure[1], int)
    )


def _tensor_keys(encoded) -> Iterator[tuple[str, int, int]]:
    """Keys of the tensors among a call's serialized arguments."""
    if isinstance(encoded, Mapping):
        if encoded.get("class_name") == "__keras_tensor__":
            name, number, index = encoded["config"]["keras_history"]
            yield name, number, index
        else:
            for value in encoded.values():
                yield from _tensor_keys(value)
    elif isinstance(encoded, list | tuple):
        for value in encoded:
            yield from _tensor_keys(value)


def _decode(encoded, known, shapes):
    """A call's serialized arguments with `TensorRef` in place of tensors."""
    if isinstance(encoded, Mapping):
        kind = encoded.get("class_name")
        if kind == "__keras_tensor__":
            tensor = known[tuple(encoded["config"]["keras_history"])]
            shapes.setdefault(tensor, tuple(encoded["config"]["shape"]))
            return tensor
        if kind == "__tuple__":
            return tuple(_decode(value, known, shapes) for value in encoded["config"]["value"])
        if kind is not None and "config" in encoded:
            return keras.saving.deserialize_keras_object(dict(encoded))
        return {key: _decode(value, known, shapes) for key, value in encoded.items()}
    if isinstance(encoded, list | tuple):
        return type(encoded)(_decode(value, known, shapes) for value in encoded)
    return encoded
