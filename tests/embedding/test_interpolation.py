import keras
import numpy as np
import pytest
from keras import layers as L

from tfconvbias.analysis import LossDerivatives
from tfconvbias.embedding import embed, interpolate, relax_string, string_residual
from tfconvbias.layers import LocallyConnected2D

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _cnn(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            L.Conv2D(2, 3, padding="same", name="conv"),
            L.BatchNormalization(),
            L.ReLU(),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def _data(seed, num=24):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, 5, 5, 1)).astype("float32"), rng.integers(0, 3, size=num)


def _score(model, x, y):
    outputs = model.predict(x, verbose=0)
    return float(LOSS(y, outputs)), float(np.mean(outputs.argmax(-1) == y))


@pytest.mark.parametrize("target", ["dense", "local"])
@pytest.mark.parametrize("padding", ["folded", "explicit"])
def test_linear_path_embeds_the_first_model(target, padding):
    cnn, other = _cnn(0), embed(_cnn(1), target, padding)
    data = {"train": _data(0), "test": _data(1)}
    weights = [w.copy() for w in other.get_weights()]
    path = interpolate(cnn, other, data, num_points=3)
    for name, (x, y) in data.items():
        for index, model in ((0, cnn), (-1, other)):
            loss, accuracy = _score(model, x, y)
            assert path.loss[name][index] == pytest.approx(loss, rel=1e-5)
            assert path.accuracy[name][index] == accuracy
    middle = embed(cnn, target, padding)
    middle.set_weights(
        [(u + v) / 2 for u, v in zip(middle.get_weights(), other.get_weights(), strict=True)]
    )
    assert path.loss["test"][1] == pytest.approx(_score(middle, *data["test"])[0], rel=1e-5)
    for before, after in zip(weights, other.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def _two_convolutions(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5, 5, 1))
    x = L.Conv2D(2, 2, activation="relu", name="conv")(inputs)
    x = L.SeparableConv2D(2, 2, name="conv_1")(x)
    x = LocallyConnected2D(2, 2, name="local")(x)
    return keras.Model(inputs, L.Dense(3, name="head")(L.Flatten()(x)))


@pytest.mark.parametrize("target", ["dense", "local"])
@pytest.mark.parametrize("layers", [["conv"], ["conv_1"], ["conv", "conv_1"], None])
def test_the_first_model_is_embedded_in_the_same_layers(target, layers):
    cnn, other = _two_convolutions(0), embed(_two_convolutions(1), target, layers=layers)
    x, y = _data(0)
    path = interpolate(cnn, other, {"train": (x, y)}, num_points=3)
    for index, model in ((0, cnn), (-1, other)):
        assert path.loss["train"][index] == pytest.approx(_score(model, x, y)[0], rel=1e-5)


def test_labels_in_a_column():
    a, b = _cnn(0), _cnn(1)
    x, y = _data(0)
    row = interpolate(a, b, {"train": (x, y)}, num_points=3)
    column = interpolate(a, b, {"train": (x, y[:, None])}, num_points=3)
    np.testing.assert_array_equal(column.accuracy["train"], row.accuracy["train"])
    np.testing.assert_allclose(column.loss["train"], row.loss["train"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"labels of 'train'.*Received: shape \(24, 3\)"):
        interpolate(a, b, {"train": (x, np.eye(3)[y])})


def test_output_path_mixes_the_outputs():
    a, b = _cnn(0), _cnn(1)
    x, y = _data(0)
    path = interpolate(a, b, {"train": (x, y)}, "output", num_points=5)
    mixed = 0.75 * a.predict(x, verbose=0) + 0.25 * b.predict(x, verbose=0)
    assert path.loss["train"][1] == pytest.approx(float(LOSS(y, mixed)), rel=1e-5)


def test_string_lowers_the_training_loss_between_the_ends():
    a, b = _cnn(0), embed(_cnn(1))
    data = {"train": _data(0)}
    straight = interpolate(a, b, data, num_points=4)
    options = {"num_points": 4, "learning_rate": 0.05, "num_epochs": 4, "string_batch_size": 9}
    loose = interpolate(a, b, data, "string", stiffness=0.0, **options)
    stiff = interpolate(a, b, data, "string", stiffness=1e6, **options)
    np.testing.assert_allclose(stiff.loss["train"], straight.loss["train"], rtol=1e-3)
    assert (loose.loss["train"][1:-1] < straight.loss["train"][1:-1] - 0.01).all()
    for end in (0, -1):
        assert loose.loss["train"][end] == pytest.approx(straight.loss["train"][end], rel=1e-5)


def _with_statistics(model, seed):
    """Moving statistics far from those of another seed."""
    rng = np.random.default_rng(seed)
    for variable in model.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(rng.uniform(0.2, 3.0, variable.shape))
    return model


def test_the_string_follows_the_loss_with_the_statistics_of_each_point():
    a, b = _with_statistics(_cnn(0), 0), _with_statistics(embed(_cnn(1)), 1)
    x, y = _data(0)
    middle = embed(a)
    pairs = zip(middle.get_weights(), b.get_weights(), strict=True)
    middle.set_weights([(u + v) / 2 for u, v in pairs])
    gradient = LossDerivatives(middle, x, y, LOSS)
    slope = gradient.gradient()
    path = interpolate(
        a, b, {"train": (x, y)}, "string", 3, stiffness=0.0, learning_rate=0.05, num_epochs=1,
        string_batch_size=None,
    )  # fmt: skip
    np.testing.assert_allclose(path.residuals[0], np.linalg.norm(slope), rtol=1e-4)
    for variable, part in zip(middle.trainable_variables, gradient.split(slope), strict=True):
        variable.assign(keras.ops.convert_to_numpy(variable) - 0.05 * part)
    assert path.loss["train"][1] == pytest.approx(_score(middle, x, y)[0], rel=1e-4)
    np.testing.assert_allclose(path.residuals[1], np.linalg.norm(gradient.gradient()), rtol=1e-4)


def test_the_string_stops_at_its_tolerance():
    a, b = _cnn(0), embed(_cnn(1))
    options = {"learning_rate": 0.02, "num_epochs": 6, "string_batch_size": 8}
    whole = interpolate(a, b, {"train": _data(0)}, "string", 3, **options).residuals
    assert len(whole) == 7 and whole[-1] < whole[0]
    share = whole[2] / whole[0] * 1.001
    first = 1 + int(np.argmax(whole[1:] <= share * whole[0]))
    path = interpolate(a, b, {"train": _data(0)}, "string", 3, tolerance=share, **options)
    np.testing.assert_allclose(path.residuals, whole[: first + 1], rtol=1e-4)
    assert interpolate(a, b, {"train": _data(0)}, num_points=3).residuals is None


@pytest.mark.parametrize("stiffness", [0.0, 0.5, 5.0, 1e8])
def test_relaxed_string_reaches_the_minimum_of_the_elastic_energy(stiffness):
    # L = ½‖x − c‖²: the minimum solves (1 + k A) x = c + k (ends).
    rng = np.random.default_rng(0)
    points, center = rng.normal(size=(6, 3)), rng.normal(size=3)
    ends = points[[0, -1]].copy()
    relax_string(points, lambda x, _: x - center, stiffness, 0.5, 400)
    second_difference = 2 * points[1:-1] - points[:-2] - points[2:]
    force = points[1:-1] - center + stiffness * second_difference
    np.testing.assert_allclose(force / max(1, stiffness), 0, atol=1e-6)
    rms = np.sqrt(np.mean(np.sum(force**2, axis=1)))
    residual = string_residual(points, lambda x, _: x - center, stiffness)
    assert residual == pytest.approx(rms, rel=1e-6, abs=1e-12)
    np.testing.assert_array_equal(points[[0, -1]], ends)
    if stiffness == 1e8:
        line = np.linspace(ends[0], ends[1], 6)
        np.testing.assert_allclose(points, line, atol=1e-6)


def test_each_point_of_a_string_has_the_gradient_of_its_own_number():
    centers = np.arange(10.0).reshape(5, 2) ** 2
    points = np.zeros((5, 2))
    forces = centers[1:-1]
    residual = string_residual(points, lambda x, number: x - centers[number], 0.0)
    assert residual == pytest.approx(np.sqrt(np.mean(np.sum(forces**2, axis=1))))
    relax_string(points, lambda x, number: x - centers[number], 0.0, 1.0, 1)
    np.testing.assert_allclose(points, [[0, 0], *centers[1:-1], [0, 0]])


def test_errors():
    a, data = _cnn(0), {"train": _data(0)}
    with pytest.raises(ValueError, match="method"):
        interpolate(a, a, data, "curve")
    with pytest.raises(ValueError, match="num_points"):
        interpolate(a, a, data, num_points=2)
    with pytest.raises(ValueError, match="datasets"):
        interpolate(a, a, {})
    with pytest.raises(ValueError, match="weights like the second"):
        wider = keras.Sequential([keras.Input((5, 5, 1)), L.Conv2D(3, 3), L.Flatten(), L.Dense(3)])
        interpolate(a, embed(wider), data)
    for option in ({"num_epochs": -1}, {"tolerance": -0.1}, {"string_batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(option))):
            interpolate(a, a, data, "string", **option)
    with pytest.raises(ValueError, match="stiffness"):
        relax_string(np.zeros((3, 1)), lambda x, _: x, -1.0, 0.1, 1)
