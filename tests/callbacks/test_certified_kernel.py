"""Steps on the non-zeros against the formula of β-LASSO on the whole kernel, step by step."""

from types import SimpleNamespace

import numpy as np
import pytest

from tfconvbias.callbacks import certified_kernel, certified_loops, weight_steps
from tfconvbias.callbacks.certified_kernel import CertifiedKernel
from tfconvbias.layers import product_loops, sparse_products
from tfconvbias.optimizers import StepSizes, integer_loops, integer_screen


@pytest.fixture(params=["numba", "loops", "numpy"])
def products(request, monkeypatch):
    """Every test with the compiled products, where Numba is installed, and without them."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        # The loops that Numba compiles give the same numbers uncompiled.
        loops = request.param == "loops"
        products = product_loops if loops else None
        monkeypatch.setattr(sparse_products, "compiled_products", lambda: products)
        names = integer_screen.Loops._fields
        screen = integer_screen.Loops(*(getattr(integer_loops, name) for name in names))
        monkeypatch.setattr(integer_screen, "compiled_loops", lambda: screen if loops else None)
        names = weight_steps.Loops._fields
        steps = weight_steps.Loops(*(getattr(certified_loops, name) for name in names))
        monkeypatch.setattr(weight_steps, "compiled_loops", lambda: steps if loops else None)
    return request.param


def _dense_step(kernel, inputs, gradient, sizes, threshold, clipvalue):
    """Algorithm 1 of Neyshabur 2020 on every weight."""
    gradients = inputs @ gradient.T
    if clipvalue is not None:
        gradients = np.clip(gradients, -clipvalue, clipvalue)
    moved = kernel - (sizes.rate * gradients + sizes.pull * np.sign(kernel))
    small = np.abs(moved) < sizes.cutoff
    if threshold == "soft":
        moved = moved - np.sign(moved) * sizes.cutoff
    return np.where(small, 0, moved)


@pytest.mark.parametrize(
    ("threshold", "clipvalue", "beta", "least_returned", "most_returned"),
    [
        ("hard", None, 30.0, 0, 10),
        ("hard", None, 5.0, 1000, None),
        ("hard", 0.06, 5.0, 1000, None),
        ("hard", 0.04, 5.0, 0, 0),
        ("soft", None, 5.0, 1000, None),
        ("hard", None, 0.0, 0, None),
    ],
)
def test_every_step_is_the_dense_step(
    products, threshold, clipvalue, beta, least_returned, most_returned
):
    num_inputs, units, batch, rate, l1 = 40, 30, 16, 0.1, 1e-3
    num_steps = 20 if products == "loops" else 300
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(num_inputs, units)) * (rng.random((num_inputs, units)) < 0.1)
    certified = CertifiedKernel(threshold, clipvalue)
    certified.load(expected)
    returned = 0
    for _ in range(num_steps):
        inputs = (1 + rng.normal(size=(num_inputs, batch))) * rng.random((num_inputs, 1))
        gradient = 0.02 * rng.normal(size=(units, batch)) * rng.random((units, 1)) ** 3
        np.testing.assert_allclose(certified.product(inputs), expected.T @ inputs, atol=1e-11)
        np.testing.assert_allclose(
            certified.input_gradient(gradient), expected @ gradient, atol=1e-11
        )
        sizes = StepSizes(rate, rate * l1, beta * l1)
        before = expected
        expected = _dense_step(expected, inputs, gradient, sizes, threshold, clipvalue)
        returned += np.count_nonzero((before == 0) & (expected != 0))
        certified.update(inputs, gradient, sizes)
        found = certified.dense()
        np.testing.assert_array_equal(found != 0, expected != 0)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        rate *= 0.995
    assert returned >= least_returned * num_steps / 300
    assert most_returned is None or returned <= most_returned
    assert certified.counts.returned == returned
    assert certified.counts.steps == len(certified.counts.seconds) == num_steps
    assert certified.num_stored <= 1.2 * np.count_nonzero(expected) + 1


def test_a_diverged_run_shows(products):
    kernel = np.zeros((4, 3))
    kernel[1, 1] = 1.0
    certified = CertifiedKernel()
    certified.load(kernel)
    inputs, gradient = np.ones((4, 2)), np.zeros((3, 2))
    gradient[2, 0] = np.nan
    certified.update(inputs, gradient, StepSizes(0.1, 1e-4, 0.5))
    assert np.isnan(certified.dense()[:, 2]).all()
    assert certified.dense()[1, 1] == 1 - 1e-4


def test_memory_is_that_of_what_is_stored(products):
    rng = np.random.default_rng(0)
    kernel = np.zeros((300, 200), "float32")
    kernel.flat[rng.choice(kernel.size, 600, replace=False)] = 1
    certified = CertifiedKernel()
    certified.load(kernel)
    inputs, gradient = rng.normal(size=(2, 1, 8)).astype("float32")
    inputs, gradient = np.repeat(inputs, 300, 0), np.repeat(gradient, 200, 0)
    certified.update(inputs, gradient, StepSizes(0.0, 0.0, 0.0))
    # A value and an index of 4 bytes each; 201 offsets of 8 bytes; without Numba, gradients.
    assert certified.counts.peak_bytes == 600 * (12 if products == "numpy" else 8) + 201 * 8


def test_the_time_of_a_step_is_that_of_its_products_update_and_check(monkeypatch):
    # Two steps: 1 s forward, 2 s backward and 4 s of update, with pauses that are not theirs.
    readings = iter([5, 6, 10, 12, 20, 24, 100, 101, 110, 112, 120, 124])
    monkeypatch.setattr(
        certified_kernel, "time", SimpleNamespace(perf_counter=lambda: next(readings))
    )
    certified = CertifiedKernel()
    certified.load(np.eye(3, 2))
    for _ in range(2):
        certified.product(np.ones((3, 4)))
        certified.input_gradient(np.ones((2, 4)))
        certified.update(np.ones((3, 4)), np.ones((2, 4)), StepSizes(0.1, 1e-3, 0.5))
    assert certified.counts.seconds == [7, 7]
