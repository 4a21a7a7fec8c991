"""What a loss may be made of: the compiled loss, data sets, several outputs."""

import keras
import numpy as np
import pytest
from keras import layers

from tfconvbias.analysis import LossDerivatives, gradient_norm, top_hessian_eigenvalues

RNG = np.random.default_rng(1)
X = RNG.standard_normal((11, 3)).astype("float32")
Y = RNG.standard_normal((11, 1)).astype("float32")
WEIGHTS = RNG.uniform(0.1, 2.0, 11).astype("float32")
ROWS = np.concatenate([X, np.ones((11, 1))], axis=1).astype("float64")


def _model(optimizer="sgd", loss="mse", **options):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(optimizer, loss, **options)
    return model


class _Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return X[part], Y[part], WEIGHTS[part]


def _tf_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y, WEIGHTS)).batch(4)


class _Loader:
    """Anything that can be read again, as PyTorch's DataLoader can."""

    def __iter__(self):
        data = _Batches()
        return iter([data[2], data[0], data[1]])


@pytest.mark.parametrize("data_set", [_Batches, _tf_data, _Loader])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
def test_a_data_set_equals_its_arrays(data_set, reduction):
    model = _model(loss=keras.losses.MeanSquaredError(reduction=reduction))
    total = WEIGHTS.sum() if reduction == "mean_with_sample_weight" else 11
    expected = np.linalg.eigvalsh(2 * (ROWS * WEIGHTS[:, None]).T @ ROWS / total)[-1]
    derivatives = LossDerivatives(model, data_set())
    assert derivatives.num_samples == 11
    found = top_hessian_eigenvalues(derivatives)
    assert found.values[0] == pytest.approx(expected, rel=1e-5)


def test_the_compiled_loss_is_the_default():
    model = _model()
    assert gradient_norm(model, X, Y) == gradient_norm(model, X, Y, "mse")
    assert gradient_norm(model, X, Y, "mae") != gradient_norm(model, X, Y)
    bare = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="`loss` must be given"):
        gradient_norm(bare, X, Y)


def _two_outputs(form, **options):
    inputs = keras.Input((3,))
    outputs = [
        layers.Dense(1, use_bias=False, name="value")(inputs),
        layers.Dense(2, use_bias=False, name="classes")(inputs),
    ]
    if form is dict:
        outputs = dict(zip(("value", "classes"), outputs, strict=True))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", **options)
    return model


CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LABELS = RNG.integers(0, 2, 11)


@pytest.mark.parametrize(
    ("form", "targets", "losses", "factors"),
    [
        (list, [Y, LABELS], ["mse", CROSSENTROPY], [0.5, 3.0]),
        (
            list,
            {"classes": LABELS, "value": Y},
            {"classes": CROSSENTROPY, "value": "mse"},
            {"classes": 3.0, "value": 0.5},
        ),
        (
            dict,
            {"classes": LABELS, "value": Y},
            {"classes": CROSSENTROPY, "value": "mse"},
            {"classes": 3.0, "value": 0.5},
        ),
    ],
)
def test_several_outputs_add_up_as_compile_says(form, targets, losses, factors):
    model = _two_outputs(form, loss=losses, loss_weights=factors)
    derivatives = LossDerivatives(model, X, targets, batch_size=4)
    expected = model.evaluate(X, targets, batch_size=11, verbose=0, return_dict=True)["loss"]
    assert derivatives.value() == pytest.approx(expected, rel=1e-5)
    # The outputs share no weights: the squared error's block stands alone.
    block = 0.5 * 2 * X.T.astype("float64") @ X / 11
    first = 0 if "value" in derivatives.variables[0].path else 6
    own = np.arange(first, first + 3)
    vector = np.eye(9)[first]
    for curvature in ("hessian", "ggn", "fisher"):
        found = derivatives.product(vector, curvature)
        np.testing.assert_allclose(found[own], block[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.delete(found, own), 0, atol=1e-6)


def test_an_output_without_a_loss_does_not_count():
    model = _two_outputs(list, loss=["mse", None])
    derivatives = LossDerivatives(model, X, [Y, LABELS])
    gradient = derivatives.gradient()
    assert np.abs(gradient[:3]).max() > 0
    np.testing.assert_array_equal(gradient[3:], 0)


def test_sample_weights_may_differ_by_output():
    model = _two_outputs(list, loss=["mse", CROSSENTROPY])
    derivatives = LossDerivatives(
        model, X, [Y, LABELS], sample_weight=[WEIGHTS, np.zeros(11, "float32")], batch_size=4
    )
    expected = 2 * (X * WEIGHTS[:, None]).T @ X / 11
    np.testing.assert_allclose(
        derivatives.product(np.eye(9)[0])[:3], expected[0], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(derivatives.gradient()[3:], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": iter([(X, Y)])}, "an iterator"),
        ({"x": "mse"}, "x='mse'"),
        ({"x": 3.0}, "x=3.0"),
        ({"x": X}, "y=None"),
        ({"x": _Batches(), "y": Y}, "`y` must be left out"),
        ({"x": _Batches(), "batch_size": 4}, "batch_size=4"),
        ({"x": X, "y": Y, "loss": [None]}, "one loss at least"),
        ({"x": X, "y": Y, "loss": X}, "a name, a loss or a function.*ndarray"),
        ({"x": X, "y": Y, "batch_size": 2.5}, "batch_size=2.5"),
        ({"x": X, "y": Y, "batch_size": True}, "batch_size=True"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossDerivatives(_model(), **arguments)


def test_structures_that_do_not_fit_are_refused():
    model = _two_outputs(list, loss=["mse", CROSSENTROPY])
    with pytest.raises(ValueError, match="`y` must have the structure"):
        LossDerivatives(model, X, [Y, Y, Y]).value()
    with pytest.raises(ValueError, match="`loss` must have the structure"):
        LossDerivatives(model, X, [Y, LABELS], {"values": "mse"}).value()


def test_an_endless_data_set_is_refused():
    with pytest.raises(ValueError, match="must have an end"):
        LossDerivatives(_model(), _tf_data().repeat())
