"""Trace, density, layers, SAM and Gauss–Newton products against matrices written out by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfconvbias.analysis import (
    LossDerivatives,
    hessian_trace,
    hessian_vector_product,
    layer_sharpness,
    sam_sharpness,
    spectral_density,
    top_hessian_eigenvalues,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 12)
ROWS = np.concatenate([X, np.ones((12, 1))], axis=1).astype("float64")
PLANTED = np.array([9.0, 4.0, 1.0, 1.0, 0.5, 0.25, 0.0, 0.0, -2.0, -6.0])


def _linear(units=1, activation=None, regularizer=None):
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(units, activation=activation, kernel_regularizer=regularizer),
        ]
    )


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _logits(model):
    kernel, bias = (np.asarray(ops.convert_to_numpy(w), "float64") for w in model.trainable_weights)
    return X @ kernel + bias


def _softmax_hessian(probabilities):
    """Of the mean crossentropy of a linear classifier: Σ (diag p − p pᵀ) ⊗ x xᵀ / N."""
    classes = probabilities.shape[1]
    total = np.zeros((4 * classes,) * 2)
    for row, p in zip(ROWS, probabilities, strict=True):
        # Keras' order: the kernel (input by class), then the bias.
        total += np.kron(np.outer(row, row), np.diag(p) - np.outer(p, p)) / len(ROWS)
    return total


@pytest.fixture(scope="module")
def planted():
    """A model whose loss is half a quadratic form with the eigenvalues `PLANTED`."""
    q, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((10, 10)))
    matrix = (q * PLANTED) @ q.T

    class Form(layers.Layer):
        def build(self, input_shape):
            self.a = self.add_weight(shape=(10,), initializer="ones", name="a")

        def call(self, x):
            form = ops.convert_to_tensor(matrix.astype("float32"))
            return x * ops.sum(self.a * ops.matmul(form, self.a)) / 2

    model = keras.Sequential([keras.Input((1,)), Form()])
    ones, zeros = np.ones((2, 1), "float32"), np.zeros((2, 1), "float32")
    return LossDerivatives(model, ones, zeros, lambda y, z: z - y), matrix


def test_both_ends_of_a_planted_spectrum(planted):
    derivatives, matrix = planted
    top = top_hessian_eigenvalues(derivatives, k=3)
    np.testing.assert_allclose(top.values, [9, 4, 1], rtol=1e-4)
    np.testing.assert_allclose(top.vectors @ matrix, top.values[:, None] * top.vectors, atol=2e-3)
    low = top_hessian_eigenvalues(derivatives, k=2, which="smallest")
    np.testing.assert_allclose(low.values, [-6, -2], rtol=1e-4)


def test_every_copy_of_an_eigenvalue_is_found(planted):
    derivatives, _ = planted
    found = top_hessian_eigenvalues(derivatives, k=10)
    np.testing.assert_allclose(found.values, PLANTED, atol=1e-4)


def test_the_trace_of_a_planted_spectrum(planted):
    derivatives, matrix = planted
    for method in ("hutchinson", "hutch++"):
        found = hessian_trace(derivatives, num_products=240, method=method)
        assert abs(found.value - PLANTED.sum()) <= 4 * found.standard_error + 1e-4
    # Sketched whole, nothing but rounding is left to chance.
    assert found.standard_error < 1e-5
    assert found.value == pytest.approx(PLANTED.sum(), abs=1e-4)
    # The variance of gᵀAg over signs is 2 (‖A‖² − ‖diag A‖²).
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2))
    plain = hessian_trace(derivatives, num_products=240)
    assert plain.standard_error == pytest.approx(np.sqrt(variance / 240), rel=0.25)


def test_hutch_plus_plus_is_unbiased_where_its_sketch_is_small(planted):
    derivatives, _ = planted
    found = [
        hessian_trace(derivatives, num_products=12, method="hutch++", seed=seed)
        for seed in range(30)
    ]
    assert {one.num_products for one in found} == {12}
    values = np.array([one.value for one in found])
    assert abs(values.mean() - PLANTED.sum()) < 4 * values.std() / np.sqrt(30)
    assert 0 < values.std() < 5


def test_the_density_holds_the_planted_eigenvalues(planted):
    derivatives, _ = planted
    found = spectral_density(derivatives, num_steps=50, num_probes=40)
    assert found.size == 10
    nodes = found.nodes[found.weights > 1e-5]
    assert np.abs(nodes[:, None] - PLANTED).min(axis=1).max() < 1e-3
    assert found.weights.sum() == pytest.approx(1)
    # A tenth of the eigenvalues is 9, two tenths are 1.
    share = found.weights[np.abs(found.nodes - 9) < 0.1].sum()
    assert share == pytest.approx(0.1, abs=0.05)
    assert found.weights[np.abs(found.nodes - 1) < 0.1].sum() == pytest.approx(0.2, abs=0.1)
    points = np.linspace(-12, 15, 2000)
    curve = found.density(points, width=0.3)
    assert np.trapezoid(curve, points) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(curve * points, points) == pytest.approx(found.mean(lambda v: v), abs=1e-3)


def test_few_steps_give_exact_moments(planted):
    derivatives, matrix = planted
    found = spectral_density(derivatives, num_steps=3, num_probes=2, seed=4)
    rng = np.random.default_rng(4)
    probes = [rng.choice((-1.0, 1.0), 10) for _ in range(2)]
    for power in range(6):  # Gauss: exact up to degree 2 · 3 − 1
        moment = np.mean([p @ np.linalg.matrix_power(matrix, power) @ p for p in probes]) / 10
        assert found.mean(lambda v, power=power: v**power) == pytest.approx(moment, rel=1e-3)


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "fisher"])
def test_softmax_regression_in_closed_form(curvature):
    model = _linear(3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    derivatives = LossDerivatives(model, X, LABELS, loss, batch_size=5)
    expected = _softmax_hessian(_softmax(_logits(model)))
    found = [derivatives.product(row, curvature) for row in np.eye(12)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_probabilities_tell_gauss_newton_from_fisher():
    """Cut at the probabilities, Gauss–Newton sees the labels; Fisher's matrix does not."""
    model = _linear(3, "softmax")
    p = _softmax(_logits(model))
    derivatives = LossDerivatives(model, X, LABELS, "sparse_categorical_crossentropy")
    fisher = np.stack([derivatives.product(row, "fisher") for row in np.eye(12)])
    np.testing.assert_allclose(fisher, _softmax_hessian(p), atol=1e-5)
    ggn = np.stack([derivatives.product(row, "ggn") for row in np.eye(12)])
    # −log(z_y / Σz) by z, at Σz = 1: e_y e_yᵀ / p_y² − 1 1ᵀ, between the softmax's Jacobians.
    expected = np.zeros((12, 12))
    for row, q, label in zip(ROWS, p, LABELS, strict=True):
        jacobian = np.diag(q) - np.outer(q, q)
        middle = np.diag((np.arange(3) == label) / q**2) - 1
        expected += np.kron(np.outer(row, row), jacobian @ middle @ jacobian) / 12
    np.testing.assert_allclose(ggn, expected, atol=1e-5)
    assert np.abs(fisher - ggn).max() > 0.01


def test_binary_and_poisson_fisher_in_closed_form():
    binary = _linear()
    p = 1 / (1 + np.exp(-_logits(binary)))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    expected = (ROWS * p * (1 - p)).T @ ROWS / 12
    targets = (LABELS > 0).astype("float32")[:, None]
    derivatives = LossDerivatives(binary, X, targets, loss)
    found = [derivatives.product(row, "fisher") for row in np.eye(4)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    rate = _linear(activation="exponential")
    expected = (ROWS * np.exp(_logits(rate))).T @ ROWS / 12
    derivatives = LossDerivatives(rate, X, LABELS[:, None].astype("float32"), "poisson")
    found = [derivatives.product(row, "fisher") for row in np.eye(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_gauss_newton_leaves_out_the_models_own_curvature():
    """Squared error of exp(w·x): GGN 2 Σ f² x xᵀ / N; the penalty's Hessian joins it."""
    model = _linear(activation="exponential", regularizer=keras.regularizers.L2(0.25))
    f = np.exp(_logits(model))
    y = RNG.standard_normal((12, 1)).astype("float32")
    ggn = 2 * (ROWS * f**2).T @ ROWS / 12
    hessian = ggn + 2 * (ROWS * (f - y) * f).T @ ROWS / 12
    penalty = np.diag([0.5, 0.5, 0.5, 0.0])
    derivatives = LossDerivatives(model, X, y, "mse", batch_size=5)
    for curvature, expected in (("ggn", ggn), ("fisher", ggn), ("hessian", hessian)):
        found = [derivatives.product(row, curvature) for row in np.eye(4)]
        np.testing.assert_allclose(found, expected + penalty, rtol=2e-4, atol=1e-4)
    top = top_hessian_eigenvalues(derivatives, curvature="ggn")
    assert top.values[0] == pytest.approx(np.linalg.eigvalsh(ggn + penalty)[-1], rel=1e-4)


def test_layers_have_the_eigenvalues_of_their_blocks():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, activation="tanh", name="first"),
            layers.Dense(3, name="second"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    derivatives = LossDerivatives(model, X, LABELS, loss)
    found = layer_sharpness(derivatives, tolerance=1e-4)
    assert [name.split("/")[-1] for name in found] == ["first", "second"]
    # The last layer alone is softmax regression on the hidden units.
    kernel, bias = (ops.convert_to_numpy(w) for w in model.layers[0].weights)
    hidden = np.concatenate([np.tanh(X @ kernel + bias), np.ones((12, 1))], axis=1)
    p = _softmax(ops.convert_to_numpy(model(X)).astype("float64"))
    block = sum(
        np.kron(np.outer(h, h), np.diag(q) - np.outer(q, q)) / 12
        for h, q in zip(hidden, p, strict=True)
    )
    first, second = found.values()
    assert second.values[0] == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-4)
    assert len(first.vectors[0]) == 16
    whole = top_hessian_eigenvalues(derivatives).values[0]
    assert max(first.values[0], second.values[0]) <= whole
    again = layer_sharpness(derivatives, tolerance=1e-4, start=found)
    assert sum(one.num_products for one in again.values()) < sum(
        one.num_products for one in found.values()
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_takes_one_step_of_ascent(adaptive):
    model = _linear()
    y = RNG.standard_normal((12, 1)).astype("float32")
    weights = [ops.convert_to_numpy(w).copy() for w in model.trainable_weights]
    theta = np.concatenate([w.ravel() for w in weights]).astype("float64") + 0.5
    model.trainable_weights[0].assign(theta[:3, None])
    model.trainable_weights[1].assign(theta[3:])

    def loss(point):
        return np.mean((ROWS @ point - y[:, 0]) ** 2)

    gradient = 2 * ROWS.T @ (ROWS @ theta - y[:, 0]) / 12
    scale = np.abs(theta) if adaptive else np.ones(4)
    step = 0.3 * scale**2 * gradient / np.linalg.norm(scale * gradient)
    found = sam_sharpness(model, X, y, "mse", radius=0.3, adaptive=adaptive)
    assert found == pytest.approx(loss(theta + step) - loss(theta), rel=1e-4)
    kept = np.concatenate([ops.convert_to_numpy(w).ravel() for w in model.trainable_weights])
    np.testing.assert_array_equal(kept, theta.astype("float32"))


def test_sam_is_zero_at_a_stationary_point_and_nan_after_divergence():
    model = _linear()
    model.set_weights([np.zeros((3, 1)), np.zeros(1)])
    assert sam_sharpness(model, X, np.zeros((12, 1)), "mse") == 0
    model.set_weights([np.full((3, 1), np.nan), np.zeros(1)])
    assert np.isnan(sam_sharpness(model, X, np.zeros((12, 1)), "mse"))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (top_hessian_eigenvalues, {"tolerance": np.nan}, "`tolerance` must be.*tolerance=nan"),
        (top_hessian_eigenvalues, {"tolerance": 0}, "tolerance=0"),
        (top_hessian_eigenvalues, {"tolerance": 2.0}, "below 1"),
        (top_hessian_eigenvalues, {"tolerance": "fine"}, "tolerance='fine'"),
        (top_hessian_eigenvalues, {"k": 1.5}, "k=1.5"),
        (top_hessian_eigenvalues, {"k": 11}, "at most the 10 parameters.*k=11"),
        (top_hessian_eigenvalues, {"which": "LA"}, "which='LA'"),
        (top_hessian_eigenvalues, {"curvature": "fischer"}, "curvature='fischer'"),
        (top_hessian_eigenvalues, {"max_products": 0}, "max_products=0"),
        (top_hessian_eigenvalues, {"num_lanczos": 2, "k": 2}, "num_lanczos=2"),
        (top_hessian_eigenvalues, {"start": np.ones(9)}, r"length 10.*\(1, 9\)"),
        (top_hessian_eigenvalues, {"start": np.full(10, np.nan)}, "finite vectors"),
        (top_hessian_eigenvalues, {"start": np.zeros(10)}, "other than zero"),
        (top_hessian_eigenvalues, {"x": X}, "holds data and loss already.*x"),
        (hessian_trace, {"num_products": 1}, "num_products=1"),
        (hessian_trace, {"method": "hutch"}, "method='hutch'"),
        (hessian_trace, {"num_products": 5, "method": "hutch++"}, "at least 6"),
        (hessian_trace, {"seed": -1}, "seed=-1"),
        (spectral_density, {"num_steps": 0}, "num_steps=0"),
        (spectral_density, {"num_probes": True}, "num_probes=True"),
        (layer_sharpness, {"tolerance": -1.0}, "tolerance=-1.0"),
        (sam_sharpness, {"radius": np.inf}, "radius=inf"),
    ],
)
def test_errors_name_the_argument(planted, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(planted[0], **arguments)


def test_fisher_needs_a_likelihood():
    with pytest.raises(ValueError, match=r"negative log-likelihood.*mean_absolute_error"):
        hessian_vector_product(
            _linear(), X, np.zeros((12, 1)), keras.losses.MeanAbsoluteError(),
            vector=np.ones(4), curvature="fisher",
        )  # fmt: skip
