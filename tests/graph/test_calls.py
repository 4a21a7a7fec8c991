import keras
import pytest
from keras import layers

from tfconvbias.graph import read_graph
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
