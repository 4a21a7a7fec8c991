import keras
import numpy as np
from keras import layers as L

from tfconvbias.graph import Rebuilder, read_graph


def outputs(model, x):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def two_boxes():
    def box(name):
        return keras.Sequential(
            [keras.Input((4, 4, 2)), L.Conv2D(2, 1, name="conv"), L.Dropout(0.5)], name=name
        )

    inputs = keras.Input((4, 4, 2), name="image")
    first = box("first")
    x = keras.ops.relu(box("second")(first(first(inputs)))) * np.full((2,), 3.0, "float32")
    return keras.Model(inputs, {"x": x, "mean": [L.GlobalAveragePooling2D()(x)]}, name="boxes")


def test_a_copy_computes_the_same_with_layers_of_its_own():
    model = two_boxes()
    copy = Rebuilder(read_graph(model)).model()
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype("float32")
    expected = outputs(model, x)
    for first, second in zip(expected, outputs(copy, x), strict=True):
        np.testing.assert_array_equal(first, second)
    assert copy.name == "boxes"
    assert set(copy(x)) == {"x", "mean"}
    # A layer that is called twice stays one; two of one name are told apart.
    names = [layer.name for layer in copy.layers if isinstance(layer, L.Conv2D)]
    assert sorted(names) == ["conv", "second_conv"]
    for variable in copy.variables:
        variable.assign(np.zeros(variable.shape))
    for first, second in zip(expected, outputs(model, x), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_call_may_be_left_out_or_replaced():
    class Changed(Rebuilder):
        def make(self, number, call):
            if isinstance(call.operation, L.Dropout):
                return self.tensors[call.inputs[0]]
            if isinstance(call.operation, L.GlobalAveragePooling2D):
                return L.GlobalMaxPooling2D()(self.tensors[call.inputs[0]])
            return super().make(number, call)

    changed = Changed(read_graph(two_boxes())).model()
    kinds = {type(layer) for layer in changed.layers}
    assert L.GlobalMaxPooling2D in kinds
    assert not kinds & {L.Dropout, L.GlobalAveragePooling2D}


def test_a_functional_model_in_a_class_of_its_own():
    class Own(keras.Model):
        def __init__(self):
            inputs = keras.Input((3,))
            super().__init__(inputs, L.Dense(2)(inputs))

    model = Own()
    x = np.ones((1, 3), "float32")
    copy = Rebuilder(read_graph(model)).model()
    np.testing.assert_array_equal(outputs(copy, x)[0], outputs(model, x)[0])


@keras.saving.register_keras_serializable(package="test")
class Counting(keras.initializers.Initializer):
    """Zeros; counts how often it was asked for them."""

    drawn = 0

    def __call__(self, shape, dtype=None):
        Counting.drawn += 1
        return keras.ops.zeros(shape, dtype)

    def get_config(self):
        return {}


def test_kernels_that_are_replaced_are_not_drawn():
    layer = keras.layers.Dense(3, kernel_initializer=Counting(), name="dense")
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.kernel.assign(np.arange(6.0).reshape(2, 3))
    Counting.drawn = 0
    copy = Rebuilder(read_graph(model)).model()
    assert Counting.drawn == 0
    np.testing.assert_array_equal(copy.get_layer("dense").kernel, layer.kernel)
    # The initializer is part of what is saved and of what a clone begins with.
    assert copy.get_layer("dense").get_config() == layer.get_config()
