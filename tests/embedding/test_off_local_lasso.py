import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.embedding import OffLocalBetaLasso, embed, off_local_mask, penalized_layers


def _model(target):
    cnn = keras.Sequential([keras.Input((4, 1)), L.Conv1D(1, 2, use_bias=False, name="c")])
    return embed(cnn, target)


@pytest.mark.parametrize("threshold", ["hard", "soft"])
@pytest.mark.parametrize("target", ["dense", "wide"])
def test_one_step_by_hand(target, threshold):
    model = _model(target)
    layer = model.get_layer("c")
    # Output o of three reads the inputs o and o + 1; of the 6 wide taps numbers 2 and 3 are old.
    if target == "dense":
        local = np.array([[i in (o, o + 1) for o in range(3)] for i in range(4)])
    else:
        local = np.array([False, False, True, True, False, False]).reshape(6, 1, 1)
    np.testing.assert_array_equal(off_local_mask(layer), ~local)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=local.shape).astype("float32")
    gradient = rng.normal(size=local.shape).astype("float32")
    rate, l1, beta = 0.1, 0.02, 20.0
    optimizer = OffLocalBetaLasso(rate, l1, beta, penalized_layers(model), threshold)
    layer.kernel.assign(weights)
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], model.trainable_variables)

    plain = weights - rate * gradient
    pulled = plain - rate * l1 * np.sign(weights)
    if threshold == "hard":
        penalized = np.where(np.abs(pulled) < beta * l1, 0.0, pulled)
    else:
        penalized = np.sign(pulled) * np.maximum(np.abs(pulled) - beta * l1, 0.0)
    expected = np.where(local, plain, penalized)
    assert 0 < np.sum(expected == 0) < np.sum(~local) and np.any(np.abs(plain[local]) < beta * l1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.kernel), expected, rtol=1e-5)


def test_a_high_penalty_keeps_the_support(tmp_path):
    model = _model("dense")
    model.compile(OffLocalBetaLasso(0.1, 1.0, 50, penalized_layers(model)), "mse")
    x = np.random.default_rng(0).normal(size=(8, 4, 1)).astype("float32")
    before = model.get_layer("c").get_weights()[0]
    model.fit(x, np.ones((8, 3, 1)), verbose=0)
    after = model.get_layer("c").get_weights()[0]
    np.testing.assert_array_equal(after != 0, before != 0)
    assert np.any(after != before)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.penalized_layers == model.optimizer.penalized_layers
    again.fit(x, np.ones((8, 3, 1)), verbose=0)
    np.testing.assert_array_equal(again.get_layer("c").get_weights()[0] != 0, before != 0)


def test_errors():
    with pytest.raises(ValueError, match="no embedded dense or wide layer"):
        penalized_layers(_model("local"))
    with pytest.raises(ValueError, match="`momentum` is not possible here"):
        OffLocalBetaLasso(0.1, 1.0, 50, penalized_layers(_model("dense")), momentum=0.9)
