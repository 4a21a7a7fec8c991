import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfconvbias.analysis import (
    LossDerivatives,
    gradient_norm,
    hessian_vector_product,
    top_hessian_eigenvalues,
)


def _net(activation="tanh", regularizer=None):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation=activation, kernel_regularizer=regularizer),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def _data(n=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 6, 6, 2)).astype("float32"), rng.integers(0, 3, n)


def _dense_hessian(model, loss, x, y, epsilon=1e-2):
    """Central differences of the full gradient: an oracle without second derivatives."""
    variables = model.trainable_variables
    derivatives = LossDerivatives(model, x, y, loss, batch_size=len(x))
    theta = np.concatenate([np.ravel(ops.convert_to_numpy(v)) for v in variables])

    def gradient(point):
        for variable, part in zip(variables, derivatives.split(point), strict=True):
            variable.assign(part)
        return derivatives.gradient()

    rows = []
    for axis in np.eye(len(theta)):
        rows.append(gradient(theta + epsilon * axis) - gradient(theta - epsilon * axis))
    for variable, part in zip(variables, derivatives.split(theta), strict=True):
        variable.assign(part)
    hessian = np.stack(rows) / (2 * epsilon)
    return (hessian + hessian.T) / 2


CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def dense():
    """A model, its data and its dense Hessian, which takes hundreds of gradients."""
    keras.utils.set_random_seed(1234)
    model, (x, y) = _net(), _data()
    return model, x, y, _dense_hessian(model, CROSSENTROPY, x, y)


def test_eigenvalues_equal_those_of_the_dense_hessian(dense):
    model, x, y, hessian = dense
    expected = np.linalg.eigvalsh(hessian)[::-1][:3]
    found = top_hessian_eigenvalues(model, x, y, CROSSENTROPY, k=3, batch_size=4)
    np.testing.assert_allclose(found.values, expected, rtol=1e-3)
    assert found.converged
    assert found.residuals.max() < 1e-3 * expected[0]
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(3), atol=1e-6)


def test_products_equal_those_of_the_dense_hessian(dense):
    model, x, y, hessian = dense
    vector = np.random.default_rng(1).standard_normal(len(hessian))
    found = hessian_vector_product(model, x, y, CROSSENTROPY, vector=vector, batch_size=3)
    np.testing.assert_allclose(found, hessian @ vector, rtol=1e-2, atol=1e-3)


def test_a_list_of_arrays_gives_a_list_of_arrays():
    model, (x, y) = _net(), _data()
    parts = [np.ones(v.shape) for v in model.trainable_variables]
    flat = np.concatenate([np.ravel(part) for part in parts])
    found = hessian_vector_product(model, x, y, CROSSENTROPY, vector=parts)
    assert [part.shape for part in found] == [tuple(v.shape) for v in model.trainable_variables]
    expected = hessian_vector_product(model, x, y, CROSSENTROPY, vector=flat)
    np.testing.assert_allclose(np.concatenate([np.ravel(part) for part in found]), expected)
    with pytest.raises(ValueError, match="arrays of the variables' shapes"):
        hessian_vector_product(model, x, y, CROSSENTROPY, vector=parts[:-1])


def _saddle():
    """Loss −3a² + b² (for a constant input of 1 and the target 0): eigenvalues −6 and 2."""

    class Saddle(layers.Layer):
        scale = np.array([-3.0] + [1.0] * 29, "float32")

        def build(self, input_shape):
            self.a = self.add_weight(shape=(30,), initializer="zeros")

        def call(self, x):
            return x * ops.sum(ops.square(self.a) * ops.convert_to_tensor(self.scale))

    return keras.Sequential([keras.Input((1,)), Saddle()])


def test_the_largest_positive_eigenvalue_is_found_beside_a_larger_negative_one():
    model = _saddle()
    found = top_hessian_eigenvalues(model, np.ones((4, 1)), np.zeros((4, 1)), lambda y, z: z - y)
    np.testing.assert_allclose(found.values, [2.0], rtol=1e-4)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_batches_add_up_whatever_their_size(reduction):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.125)),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((11, 4)).astype("float32"), rng.integers(0, 3, 11)
    weights = rng.uniform(0.1, 2.0, 11).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    whole = LossDerivatives(model, x, y, loss, sample_weight=weights, batch_size=11)
    parts = LossDerivatives(model, x, y, loss, sample_weight=weights, batch_size=4)
    outputs = model(x, training=False)
    direct = loss(y, outputs, sample_weight=weights) + sum(model.losses)
    direct = float(ops.convert_to_numpy(direct))
    np.testing.assert_allclose(whole.value(), direct, rtol=1e-5)
    np.testing.assert_allclose(parts.value(), direct, rtol=1e-5)
    np.testing.assert_allclose(parts.gradient(), whole.gradient(), rtol=1e-4, atol=1e-5)
    vector = np.ones(whole.size)
    np.testing.assert_allclose(parts.product(vector), whole.product(vector), rtol=1e-3, atol=1e-4)


def test_penalties_can_be_left_out():
    model, (x, y) = _net(regularizer=keras.regularizers.L2(0.5)), _data()
    kernel = model.layers[0].kernel
    with_penalty, without = (
        LossDerivatives(
            model, x, y, CROSSENTROPY, variables=[kernel], include_penalties=include
        ).product(np.ones(54))
        for include in (True, False)
    )
    np.testing.assert_allclose(with_penalty - without, np.full(54, 1.0), rtol=1e-3, atol=1e-3)


def test_a_part_of_the_variables_gives_a_block_of_the_hessian():
    model, (x, y) = _net(), _data()
    everything = LossDerivatives(model, x, y, CROSSENTROPY)
    last = LossDerivatives(model, x, y, CROSSENTROPY, variables=model.trainable_variables[-2:])
    vector = np.random.default_rng(0).standard_normal(last.size)
    padded = np.concatenate([np.zeros(everything.size - last.size), vector])
    np.testing.assert_allclose(
        last.product(vector), everything.product(padded)[-last.size :], rtol=1e-4, atol=1e-5
    )


def test_gradient_norm_equals_that_of_finite_differences():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    x, y = np.array([[1.0, 2.0], [3.0, -1.0]], "float32"), np.array([[1.0], [0.0]], "float32")
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    error = x @ kernel - y
    expected = np.linalg.norm(np.append((x.T @ error).ravel(), error.sum()))
    np.testing.assert_allclose(gradient_norm(model, x, y, "mse"), expected, rtol=1e-5)


def test_training_mode_is_repeatable_and_leaves_the_model_alone():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    x, y = _data()
    before = [ops.convert_to_numpy(v) for v in model.variables]
    derivatives = LossDerivatives(model, x, y, CROSSENTROPY, batch_size=4, training=True)
    first, second = derivatives.gradient(), derivatives.gradient()
    np.testing.assert_array_equal(first, second)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))
    inference = LossDerivatives(model, x, y, CROSSENTROPY, batch_size=4).gradient()
    assert np.abs(first - inference).max() > 1e-3


def test_dictionaries_of_inputs_and_unused_variables():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    unused = layers.Dense(4, name="unused")
    hidden = layers.Concatenate()([a, b, unused(b) * 0.0])
    model = keras.Model({"a": a, "b": b}, layers.Dense(1)(hidden))
    rng = np.random.default_rng(0)
    x = {"a": rng.standard_normal((5, 2)), "b": rng.standard_normal((5, 3))}
    found = top_hessian_eigenvalues(model, x, np.zeros((5, 1)), "mse", batch_size=2)
    inputs = np.concatenate([x["a"], x["b"], np.ones((5, 1))], axis=1)
    expected = np.linalg.eigvalsh(2 * inputs.T @ inputs / 5)[-1]
    # The last kernel's zero inputs and the unused layer add coupling terms of weight zero only.
    np.testing.assert_allclose(found.values, [expected], rtol=1e-3)


def test_weights_are_read_at_each_call():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    x, y = np.ones((3, 1)), np.zeros((3, 1))
    derivatives = LossDerivatives(model, x, y, "mse")
    for weight in (2.0, -3.0):
        model.layers[0].kernel.assign([[weight]])
        np.testing.assert_allclose(derivatives.gradient(), [2 * weight])


def test_an_overtaking_direction_is_found_from_the_old_vector():
    """The start is an exact eigenvector that another one has overtaken."""
    model = _saddle()
    derivatives = LossDerivatives(model, np.ones((4, 1)), np.zeros((4, 1)), lambda y, z: z - y)
    low = top_hessian_eigenvalues(derivatives, which="smallest")
    np.testing.assert_allclose(low.values, [-6.0], rtol=1e-4)
    found = top_hessian_eigenvalues(derivatives, start=low)
    np.testing.assert_allclose(found.values, [2.0], rtol=1e-4)


def test_a_search_that_does_not_converge_says_so():
    model, (x, y) = _net(), _data()
    with pytest.warns(RuntimeWarning, match=r"Lanczos found \d of 5 eigenvalues with 9 products"):
        found = top_hessian_eigenvalues(
            model, x, y, CROSSENTROPY, k=5, tolerance=1e-12, max_products=9, num_lanczos=7
        )
    assert not found.converged
    assert found.values.shape == (5,)
    assert np.isnan(found.values[-1])


def test_a_diverged_model_is_an_error():
    model, (x, y) = _net(), _data()
    model.layers[0].kernel.assign(np.full((3, 3, 2, 3), np.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        top_hessian_eigenvalues(model, x, y, CROSSENTROPY)


def test_progress_is_shown(capsys):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    top_hessian_eigenvalues(model, np.ones((3, 1)), np.ones((3, 1)), "mse", verbose=1)
    assert "product" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(3)}, r"equally many samples.*lengths \[3, 10\]"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"k": 0}, "k=0"),
        ({"k": 10_000}, "k=10000"),
        ({"loss": keras.losses.MeanSquaredError(reduction=None)}, "reduced to a scalar"),
        ({"variables": []}, "no trainable variable"),
    ],
)
def test_errors_name_the_argument(change, message):
    x, y = _data()
    arguments = {"loss": CROSSENTROPY, "x": x, "y": y} | change
    with pytest.raises(ValueError, match=message):
        top_hessian_eigenvalues(_net(), **arguments)


def test_foreign_variables_and_vectors_of_another_length_are_refused():
    model, (x, y) = _net(), _data()
    moving_mean = model.layers[1].moving_mean
    with pytest.raises(ValueError, match=r"must be trainable variables.*moving_mean"):
        LossDerivatives(model, x, y, CROSSENTROPY, variables=[moving_mean])
    with pytest.raises(ValueError, match=r"`vector` must have shape"):
        hessian_vector_product(model, x, y, CROSSENTROPY, vector=np.ones(3))


@pytest.mark.parametrize("loss", ["mse", lambda y, outputs: (outputs - y) ** 2])
def test_float64_weights_are_differentiated_in_float64(loss):
    """Least squares with an ℓ2 penalty: the Hessian in closed form, to the last digits."""
    # Keras holds the factor of the penalty in float32, which ⅛ fits into.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, 3)), rng.standard_normal((10, 1))
    with contextlib.ExitStack() as stack:
        if keras.config.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64())
        layer = layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.125),
                             dtype="float64")  # fmt: skip
        model = keras.Sequential([keras.Input((3,), dtype="float64"), layer])
        weights = ops.convert_to_numpy(layer.kernel)
        # Batches of unequal sizes, whose shares have no exact binary form.
        derivatives = LossDerivatives(model, x, y, loss, batch_size=3)
        product, gradient = derivatives.product(np.ones(3)), derivatives.gradient()
    # Elsewhere Keras itself takes float64 means, or products of matrices, in float32.
    accuracy = 1e-13 if keras.config.backend() == "tensorflow" else 1e-6
    hessian = 2 * x.T @ x / 10 + 2 * 0.125 * np.eye(3)
    np.testing.assert_allclose(product, hessian.sum(axis=1), rtol=accuracy)
    expected = 2 * x.T @ (x @ weights - y) / 10 + 2 * 0.125 * weights
    np.testing.assert_allclose(gradient, expected.ravel(), rtol=accuracy)


def test_mini_batches_estimate_the_whole_gradient():
    model, (x, y) = _net(regularizer="l2"), _data(9)
    derivatives = LossDerivatives(model, x, y, CROSSENTROPY)
    parts = [derivatives.gradient(np.arange(start, 9, 3)) for start in range(3)]
    np.testing.assert_allclose(np.mean(parts, axis=0), derivatives.gradient(), atol=1e-6)
    alone = LossDerivatives(model, x[1::3], y[1::3], CROSSENTROPY)
    np.testing.assert_allclose(parts[1], alone.gradient(), atol=1e-6)
