"""KernelNumber and KernelSize: values, gradients, errors, proximal operators."""

import keras
import numpy as np
import pytest
from keras import ops

from tfconvbias.regularizers import KernelNumber, KernelSize
from tfconvbias.regularizers.nested_groups import increments, memberships, num_groups

NORMS = ["l2", "normalized", "scaled", "linf"]


def to_numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def norm_of(values, norm):
    """Naive norm of a group given as a flat array."""
    if norm == "linf":
        return np.abs(values).max()
    factor = {"l2": 1.0, "normalized": values.size**-0.5, "scaled": values.size**0.5}[norm]
    return factor * np.sqrt((values**2).sum())


def penalty_of(kernel, norm, groups=None):
    """Naive penalty of a kernel with the kernels on its last axis."""
    total = 0.0
    for column in np.moveaxis(kernel, -1, 0):
        if groups is None:
            total += norm_of(column.ravel(), norm)
            continue
        for member in memberships(kernel.shape[0], kernel.ndim - 2, groups):
            total += norm_of(column.reshape(member.size, -1)[member].ravel(), norm)
    return total


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 4, 2), (3, 3, 2, 4), (2, 2, 2, 2, 3)])
def test_kernel_number(shape, norm):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    measured = float(KernelNumber(0.5, norm=norm)(ops.convert_to_tensor(kernel)))
    assert measured == pytest.approx(0.5 * penalty_of(kernel, norm), rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("groups", ["half_ring", "ring"])
@pytest.mark.parametrize("shape", [(4, 2, 3), (3, 3, 2, 4), (5, 5, 1, 2), (3, 3, 3, 1, 2)])
def test_kernel_size(shape, groups, norm):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    measured = float(KernelSize(0.5, groups=groups, norm=norm)(ops.convert_to_tensor(kernel)))
    assert measured == pytest.approx(0.5 * penalty_of(kernel, norm, groups), rel=1e-5)


def test_kernel_axes_tell_which_axes_count_the_kernels():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32")
    tensor = ops.convert_to_tensor(kernel)
    depthwise = float(KernelNumber(1.0, kernel_axes=(-2, -1))(tensor))
    assert depthwise == pytest.approx(penalty_of(kernel.reshape(3, 3, 1, 8), "l2"), rel=1e-5)
    transposed = float(KernelSize(1.0, kernel_axes=-2)(tensor))
    assert transposed == pytest.approx(
        penalty_of(np.swapaxes(kernel, -1, -2), "l2", "half_ring"), rel=1e-5
    )


def gradient_at_zero(penalty):
    """A training step on a layer of which some kernels are zero: do the weights stay finite?"""
    layer = keras.layers.Conv2D(3, 3, kernel_regularizer=penalty, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((5, 5, 1)), layer, keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(np.zeros((2, 5, 5, 1)), np.ones((2, 27)), verbose=0)
    return layer.get_weights()[0]


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_subgradient_of_a_dead_group_is_zero(norm):
    assert (gradient_at_zero(KernelNumber(1.0, norm=norm)) == 0).all()
    assert (gradient_at_zero(KernelSize(1.0, norm=norm)) == 0).all()


def solve_numerically(kernel, norm, groups, step):
    """The proximal operator as a smooth constrained problem, solved by SciPy.

    min ½‖u − v‖² + step Σ t_n  subject to  w_n ‖u(G_n)‖ ≤ t_n
    """
    from scipy.optimize import minimize

    start = kernel.reshape(-1)
    members = [
        np.repeat(member, kernel.size // member.size)
        for member in (
            np.ones((1, kernel.size), bool)
            if groups is None
            else memberships(kernel.shape[0], kernel.ndim - 2, groups)
        )
    ]
    size = start.size

    def cost(both):
        return 0.5 * ((both[:size] - start) ** 2).sum() + step * both[size:].sum()

    def slope(both):
        return np.concatenate([both[:size] - start, np.full(len(members), step)])

    constraints = []
    for index, member in enumerate(members):
        if norm == "linf":
            for entry in np.flatnonzero(member):
                for sign in (1.0, -1.0):
                    row = np.zeros(size + len(members))
                    row[size + index] = 1.0
                    row[entry] = -sign
                    constraints.append(
                        {"type": "ineq", "fun": lambda b, r=row: r @ b, "jac": lambda b, r=row: r}
                    )
            continue
        weight = norm_of(np.ones(int(member.sum())), norm) / np.sqrt(member.sum())

        def inside(both, index=index, member=member, weight=weight):
            part = both[:size][member]
            return both[size + index] ** 2 - weight**2 * (part**2).sum()

        constraints.append({"type": "ineq", "fun": inside})
    bounds = [(None, None)] * size + [(0, None)] * len(members)
    first = np.concatenate([start, np.full(len(members), 10 * np.abs(start).sum())])
    result = minimize(
        cost, first, jac=slope, bounds=bounds, constraints=constraints, method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )  # fmt: skip
    return result.x[:size].reshape(kernel.shape)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("groups", [None, "half_ring", "ring"])
@pytest.mark.parametrize("step", [0.05, 0.3])
def test_proximal_operator_solves_its_problem(norm, groups, step):
    kernel = np.random.default_rng(3).normal(0, 0.5, size=(3, 3, 1, 1)).astype("float32")
    if norm == "scaled":
        step /= 5
    penalty = KernelNumber(0.0, norm=norm) if groups is None else KernelSize(0.0, groups, norm)
    ours = to_numpy(penalty.proximal(ops.convert_to_tensor(kernel), step))
    theirs = solve_numerically(kernel.astype("float64"), norm, groups, step)

    def objective(values):
        flat = penalty_of(values, norm, groups)
        return 0.5 * ((values - kernel) ** 2).sum() + step * flat

    assert objective(ours) <= objective(theirs) + 1e-6
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("groups", ["half_ring", "ring"])
def test_proximal_zeros_are_exact_nested_and_per_kernel(groups, norm):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 5, 2, 16)).astype("float32")
    kernel *= np.linspace(0.02, 3, 16, dtype="float32")
    kernel *= 0.05 + increments(5, 2, groups)[:, :, None, None] / 4
    penalty = KernelSize(0.0, groups=groups, norm=norm)
    step = {"l2": 0.5, "normalized": 3.0, "scaled": 0.08, "linf": 2.0}[norm]
    shrunk = to_numpy(penalty.proximal(ops.convert_to_tensor(kernel), step))
    live = (to_numpy(penalty.group_norms(ops.convert_to_tensor(shrunk))) > 0).sum(axis=0)
    assert live.min() == 0
    assert live.max() == num_groups(5, groups)
    assert len(set(live.tolist())) > 2
    alone = to_numpy(penalty.proximal(ops.convert_to_tensor(kernel[..., 7:8]), step))
    np.testing.assert_allclose(shrunk[..., 7:8], alone, rtol=1e-5, atol=1e-7)


def test_proximal_step_of_zero_changes_nothing():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32")
    for penalty in (KernelNumber(0.0), KernelSize(0.0), KernelSize(0.0, norm="linf")):
        same = to_numpy(penalty.proximal(ops.convert_to_tensor(kernel), 0.0))
        np.testing.assert_allclose(same, kernel, rtol=1e-6)


def test_proximal_operator_respects_the_kernel_axes():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32")
    for axes, view in (
        ((-2, -1), kernel.reshape(3, 3, 1, 8)),
        (-2, np.ascontiguousarray(np.swapaxes(kernel, -1, -2))),
    ):
        got = to_numpy(
            KernelSize(0.0, kernel_axes=axes).proximal(ops.convert_to_tensor(kernel), 0.4)
        )
        plain = to_numpy(KernelSize(0.0).proximal(ops.convert_to_tensor(view), 0.4))
        back = plain.reshape(kernel.shape) if axes != -2 else np.swapaxes(plain, -1, -2)
        np.testing.assert_allclose(got, back, rtol=1e-6)


@pytest.mark.parametrize("make", [KernelNumber, KernelSize])
def test_bad_arguments(make):
    with pytest.raises(ValueError, match=r"`alpha` must be .* Received: alpha=-1"):
        make(-1)
    with pytest.raises(ValueError, match="Received: alpha=nan"):
        make(float("nan"))
    with pytest.raises(ValueError, match="Received: alpha=True"):
        make(True)
    with pytest.raises(ValueError, match="`norm` must be one of"):
        make(1.0, norm="l7")
    with pytest.raises(ValueError, match="`kernel_axes` must be"):
        make(1.0, kernel_axes=0)
    with pytest.raises(ValueError, match=r"has none.*shape \(3,\)"):
        make(1.0)(ops.ones((3,)))


def test_kernel_size_needs_equal_spatial_axes():
    with pytest.raises(ValueError, match="`groups` must be one of"):
        KernelSize(1.0, groups="spiral")
    for shape in ((3, 4), (3, 5, 1, 2)):
        with pytest.raises(ValueError, match="spatial axes of one size"):
            KernelSize(1.0)(ops.ones(shape))
