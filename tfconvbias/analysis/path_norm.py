r"""How a two-layer ReLU network uses its units: activation and path norms.

All take the inputs of the hidden layer as they are: `(n, d)` for a dense layer, `(n, J, m)` for a
layer over J patches, whose units are averaged over the patches.
"""

import math

import numpy as np

from tfconvbias.arguments import Measured, NonNegativeFloat, checked

Array = np.ndarray


@checked
def active_share(inputs: Array, kernel: Array, bias: Array) -> float:
    """The share of hidden units that are positive on at least one input (or one of its patches).

    Args:
        inputs: `(n, d)` or `(n, J, m)`.
        kernel: `(d, K)`; over patches `(m, K)` when shared, `(J, m, K)` when not.
        bias: `(K,)`, or `(J, K)` for a kernel that is not shared.

    Returns:
        The share, in [0, 1]; NaN for weights that are not finite, such as those of a diverged
        network.

    Raises:
        ValueError: For shapes that do not fit together.
    """
    if not _all_finite(kernel, bias):
        return math.nan
    return float(np.mean(activation_rates(inputs, kernel, bias) > 0))


@checked
def activation_rates(inputs: Array, kernel: Array, bias: Array) -> Array:
    """For each hidden unit, the share of the inputs (or of their patches) that activate it.

    A unit over unshared patches sees the patches at its own position alone.

    Args:
        inputs: `(n, d)` or `(n, J, m)`.
        kernel: `(d, K)`; over patches `(m, K)` when shared, `(J, m, K)` when not.
        bias: `(K,)`, or `(J, K)` for a kernel that is not shared.

    Returns:
        `(K,)`, or `(J K,)` for a kernel that is not shared, position by position.

    Raises:
        ValueError: For shapes that do not fit together.
    """
    return np.concatenate(
        [
            np.mean(_preactivations(points, weights, offsets) > 0, axis=0)
            for points, weights, offsets, _ in _units(inputs, kernel, bias)
        ]
    )


@checked
def unit_path_norms(kernel: Array, outgoing: Array) -> Array:
    r"""For each hidden unit, $|v_k|\,\|w_k\|$: how much it can contribute, whatever it sees.

    Beside `activation_rates` it tells memorising units, which have large weights and are active on
    few inputs, from others. A unit over unshared patches has a weight of $v_k / J$ in the average.

    Args:
        kernel: `(d, K)`; over patches `(m, K)` when shared, `(J, m, K)` when not.
        outgoing: The K outgoing weights v, in any shape.

    Returns:
        `(K,)`, or `(J K,)` for a kernel that is not shared, position by position.

    Raises:
        ValueError: If there is not one outgoing weight for each unit.
    """
    outgoing = _outgoing(outgoing, kernel)
    kernel = np.asarray(kernel, dtype="float64")
    positions = len(kernel) if kernel.ndim == 3 else 1
    return np.ravel(np.linalg.norm(kernel, axis=-2) * outgoing / positions)


@checked
def weighted_path_norm(inputs: Array, kernel: Array, bias: Array, outgoing: Array) -> float:
    r"""The data-weighted path norm, which the sharpness bounds.

    $$\sum_k |v_k|\,\|w_k\|\; g\!\left(\frac{w_k}{\|w_k\|}, \frac{-b_k}{\|w_k\|}\right),\qquad
    g(u, t) = \min(\tilde g(u, t), \tilde g(-u, -t)),$$
    $$\tilde g(u, t) = P(u \cdot X > t)^2\; E[u \cdot X - t \mid u \cdot X > t]\;
    \sqrt{1 + \|E[X \mid u \cdot X > t]\|^2}$$

    with X uniform on the training points. For shared weights X is uniform on all patches of all
    points. For unshared ones X is uniform on the patches at the unit's own position, and each
    unit counts $1/J^2$: once for the average, once because $v_k$ serves J units. Both follow from
    the argument for dense networks, which `path_norm_bound` gives.

    Args:
        inputs: `(n, d)` or `(n, J, m)`.
        kernel: `(d, K)`; over patches `(m, K)` when shared, `(J, m, K)` when not.
        bias: `(K,)`, or `(J, K)` for a kernel that is not shared. It is added, as in Keras.
        outgoing: The K outgoing weights v, in any shape.

    Returns:
        The norm; NaN for weights that are not finite, such as those of a diverged network.

    Raises:
        ValueError: For shapes that do not fit together.

    Reference: arXiv 2603.04807; the extension to local networks is ours.
    """
    total = 0.0
    outgoing = _outgoing(outgoing, kernel)
    if not _all_finite(kernel, bias, outgoing):
        return math.nan
    for points, weights, offsets, share in _units(inputs, kernel, bias):
        total += share * float(outgoing @ _scaled_g(points, weights, offsets))
    return total


@checked
def path_norm_bound(sharpness: Measured, loss: Measured, radius: NonNegativeFloat) -> float:
    r"""The bound $(\lambda_{\max} - 1 + \sqrt{R^2 + 1}\,\sqrt{2 L}) / 2$ on `weighted_path_norm`.

    It holds at every point in weight space with a trained output bias. The top eigenvalue of the
    Gauss–Newton part of the Hessian, tested on the constant direction over samples, is at least
    1 + 2 Σ|v|‖w‖g; the norm of the rest is at most $\sqrt{R^2 + 1}\,\sqrt{2 L}$.

    Args:
        sharpness: λ_max of half the mean squared error (for Keras' `"mse"`: halve it).
        loss: L, half the mean squared error.
        radius: R, the largest norm of an input of the hidden layer (of a patch).

    Reference:
        arXiv 2603.04807 states $\lambda_{\max}/2 - 1/2 + (R + 1)\sqrt{2 L}$; the last term is more
        than twice what the derivation needs.
    """
    return (sharpness - 1 + math.sqrt(radius**2 + 1) * math.sqrt(2 * loss)) / 2


def _outgoing(outgoing, kernel):
    """|v|, one for each unit."""
    outgoing = np.abs(np.ravel(outgoing)).astype("float64")
    if outgoing.size != np.shape(kernel)[-1]:
        raise ValueError(
            f"`outgoing` must hold one weight for each of the {np.shape(kernel)[-1]} units. "
            f"Received: {outgoing.size} weights"
        )
    return outgoing


def _units(inputs, kernel, bias):
    """Groups of units over the same points: (points, kernel, bias, weight of the group)."""
    inputs, kernel, bias = (np.asarray(a, dtype="float64") for a in (inputs, kernel, bias))
    if kernel.ndim == 2:
        fits = inputs.ndim in (2, 3) and bias.shape == kernel.shape[1:]
        fits = fits and inputs.shape[-1] == kernel.shape[0]
        groups = [(inputs.reshape(-1, inputs.shape[-1]), kernel, bias, 1.0)]
    else:
        fits = kernel.ndim == 3 and inputs.ndim == 3 and inputs.shape[1:] == kernel.shape[:2]
        fits = fits and bias.shape == (kernel.shape[0], kernel.shape[2])
        share = len(kernel) ** -2.0
        groups = (
            [(inputs[:, i], kernel[i], bias[i], share) for i in range(len(kernel))] if fits else []
        )
    if not fits:
        raise ValueError(
            "`inputs`, `kernel` and `bias` must have shapes (n, d), (d, K), (K,) or (n, J, m), "
            "(m, K), (K,) or (n, J, m), (J, m, K), (J, K). "
            f"Received: {inputs.shape}, {kernel.shape}, {bias.shape}"
        )
    return groups


def _all_finite(*weights):
    return all(np.isfinite(array).all() for array in weights)


def _preactivations(points, kernel, bias):
    return points @ kernel + bias


def _scaled_g(points, kernel, bias):
    """‖w‖ g for each unit: g̃ is homogeneous, so that the weights need no normalisation."""
    values = _preactivations(points, kernel, bias)
    return np.minimum(_scaled_g_tilde(points, values), _scaled_g_tilde(points, -values))


def _scaled_g_tilde(points, values):
    """P² E[z | z > 0] √(1 + ‖E[X | z > 0]‖²) = E[z₊] √(P² + ‖E[X 1(z > 0)]‖²)."""
    active = values > 0
    share = active.mean(axis=0)
    mean_value = np.maximum(values, 0).mean(axis=0)
    mean_point = active.T.astype("float64") @ points / len(points)
    return mean_value * np.sqrt(share**2 + np.sum(mean_point**2, axis=1))
