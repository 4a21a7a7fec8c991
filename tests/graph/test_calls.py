from collections import OrderedDict

import keras
import numpy as np
import pytest
from keras import layers

from tfconvbias.graph import Rebuilder, read_graph
from tfconvbias.graph.calls import tensors_in


def names(graph):
    return [call.name for call in graph.calls]


def test_shared_layers_and_operations():
    inputs = keras.Input((4, 4, 2))
    conv = layers.Conv2D(2, 1, name="conv")
    outputs = keras.ops.relu(conv(inputs) + conv(inputs * 2.0))
    graph = read_graph(keras.Model(inputs, outputs))
    assert names(graph).count("conv") == 2
    kinds = [type(call.operation).__name__ for call in graph.calls]
    assert kinds.count("Multiply") == kinds.count("Add") == kinds.count("Relu") == 1
    assert all(t.call < number for number, c in enumerate(graph.calls) for t in c.inputs)
    multiply = graph.calls[kinds.index("Multiply")]
    assert multiply.args[1] == 2.0


def test_nested_models_are_read_through():
    inner = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(2, 1, name="in")], name="box")
    middle_input = keras.Input((4, 4, 2))
    middle = keras.Model(middle_input, inner(layers.ReLU(name="act")(middle_input)), name="mid")
    inputs = keras.Input((4, 4, 2), name="image")
    outputs = middle(middle(inputs))
    model = keras.Model(inputs, outputs)
    graph = read_graph(model)
    assert names(graph) == ["image", "mid_act", "mid_box_in", "mid_act", "mid_box_in"]
    assert graph.calls[2].operation is graph.calls[4].operation is inner.layers[0]
    assert graph.shapes[graph.flat_outputs()[0]] == (None, 4, 4, 2)
    assert graph.flat_outputs()[0].call == 4


def test_structures_of_inputs_and_outputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    total = layers.Add(name="sum")([a, b])
    model = keras.Model({"a": a, "b": b}, {"x": total, "y": [a, layers.Dense(2)(total)]})
    graph = read_graph(model)
    assert set(graph.inputs) == {"a", "b"}
    assert len(list(tensors_in(graph.outputs))) == 3
    assert graph.outputs["y"][0] == graph.inputs["a"]


def test_a_layer_of_which_only_some_calls_belong_to_the_model():
    inputs = keras.Input((3,))
    dense = layers.Dense(3, name="dense")
    dense(keras.Input((3,)))
    model = keras.Model(inputs, dense(inputs))
    assert names(read_graph(model)).count("dense") == 1


def test_reading_leaves_the_model_alone():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="conv")(inputs))
    before = model.get_config()
    read_graph(model)
    assert model.get_config() == before


def test_unbuilt_sequential():
    with pytest.raises(ValueError, match="built"):
        read_graph(keras.Sequential([layers.Dense(2)]))


def outputs_of(model, data):
    found = model(data, training=False)
    return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(found)]


def same_as_its_copy(model, data):
    copy = Rebuilder(read_graph(model)).model()
    for expected, found in zip(outputs_of(model, data), outputs_of(copy, data), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("keys", [("z", "a"), ("a", "z")])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_nested_models_are_wired_by_key(keys, kind):
    """Written in the order of `keys`, while Keras numbers by the sorted keys."""
    rng = np.random.default_rng(0)
    inner_inputs = kind((key, keras.Input((3,), name=key)) for key in keys)
    weights = {"a": 2.0, "z": -3.0}
    results = {key: inner_inputs[key] * weights[key] for key in keys}
    inner = keras.Model(inner_inputs, kind((key, results[key]) for key in reversed(keys)))
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    found = inner(kind([(keys[0], first), (keys[1], second)]))
    model = keras.Model([first, second], [found["a"] + 10.0, found["z"]])
    same_as_its_copy(model, [rng.normal(size=(2, 3)).astype("float32") for _ in range(2)])


def test_a_nested_model_with_a_list_of_inputs_may_be_called_by_name():
    a, z = keras.Input((3,), name="a"), keras.Input((3,), name="z")
    inner = keras.Model([z, a], layers.Subtract()([a, z]))
    first, second = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([first, second], inner({"a": first, "z": second}))
    rng = np.random.default_rng(0)
    same_as_its_copy(model, [rng.normal(size=(2, 3)).astype("float32") for _ in range(2)])


def test_outputs_in_a_dict_that_is_not_sorted():
    inputs = keras.Input((3,), name="x")
    model = keras.Model({"x": inputs}, {"z": inputs * 2.0, "a": inputs * 3.0})
    copy = Rebuilder(read_graph(model)).model()
    ones = {"x": np.ones((1, 3), "float32")}
    assert {key: float(value[0, 0]) for key, value in copy(ones).items()} == {"z": 2, "a": 3}
