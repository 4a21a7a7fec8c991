import keras
import pytest

from tfconvbias.optimizers import choose_penalized, is_kernel
from tfconvbias.optimizers.penalized import match_overrides, variable_path


def model_variables():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Reshape((-1, 4))(x)
    x = layers.LSTM(3, name="lstm")(x)
    tokens = keras.Input((5,), dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(7, 2, name="embedding")(tokens))
    outputs = layers.Dense(2, name="dense")(layers.Concatenate()([x, embedded]))
    return keras.Model([inputs, tokens], outputs).trainable_variables


def test_kernels_of_all_kinds_are_recognised():
    kernels = {variable_path(v) for v in model_variables() if is_kernel(v)}
    assert kernels == {
        "conv/kernel",
        "depthwise/kernel",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "lstm/lstm_cell/kernel",
        "lstm/lstm_cell/recurrent_kernel",
        "dense/kernel",
    }


def test_locally_connected_kernels_are_kernels():
    from tfconvbias.layers import LocallyConnected2D

    layer = LocallyConnected2D(2, 3)
    layer.build((None, 5, 5, 1))
    assert [is_kernel(v) for v in layer.trainable_variables] == [True, False]


def test_choice_by_pattern_and_callable():
    variables = model_variables()
    by_pattern = choose_penalized(variables, "^embedding/|dense/k")
    by_callable = choose_penalized(variables, lambda v: v.ndim == 4)
    assert [variable_path(v) for v, c in zip(variables, by_pattern, strict=True) if c] == [
        "embedding/embeddings",
        "dense/kernel",
    ]
    assert sum(by_callable) == 4


@pytest.mark.tensorflow
def test_backend_variables_are_known_by_their_name():
    import tensorflow as tf

    assert is_kernel(tf.Variable([1.0], name="fc1/kernel"))
    assert not is_kernel(tf.Variable([1.0], name="fc1/bias"))


@pytest.mark.parametrize("penalized", ["conv9", lambda variable: False])
def test_nothing_chosen_is_an_error(penalized):
    with pytest.raises(ValueError, match=r"`penalized` matches none.*'conv/kernel', 'conv/bias'"):
        choose_penalized(model_variables(), penalized)


def test_no_kernel_is_an_error():
    variables = [v for v in model_variables() if not is_kernel(v)]
    with pytest.raises(ValueError, match=r"None \(kernels\).*'conv/bias'"):
        choose_penalized(variables)


def test_overrides_match_penalized_variables_only():
    variables = model_variables()
    chosen = choose_penalized(variables)
    matched = match_overrides(variables, chosen, {"conv/": 1.0, "dense": 2.0})
    found = {variable_path(v): m for v, m in zip(variables, matched, strict=True) if m}
    assert found == {"conv/kernel": "conv/", "dense/kernel": "dense"}


def test_override_that_matches_nothing():
    variables = model_variables()
    chosen = choose_penalized(variables)
    for pattern in ("conv9", "norm/gamma"):
        with pytest.raises(ValueError, match=rf"'{pattern}'.*matches none.*'conv/kernel'"):
            match_overrides(variables, chosen, {pattern: 1.0})


def test_overrides_in_conflict():
    variables = model_variables()
    with pytest.raises(ValueError, match=r"'conv' and 'kernel'.*'conv/kernel'"):
        match_overrides(variables, choose_penalized(variables), {"conv": 1.0, "kernel": 2.0})
