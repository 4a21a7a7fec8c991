"""The eigenvalue density of a symmetric matrix that is known by its products with vectors."""

import dataclasses
from collections.abc import Callable

import numpy as np

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class SpectralDensity:
    r"""A weighted set of eigenvalue estimates, whose weights add up to 1.

    For each probe the nodes and weights are those of Gauss' quadrature: the mean of a polynomial of
    degree up to 2 `num_steps` − 1 over the spectrum, as the probe weights it, is exact. The largest
    and the smallest node are close to the ends of the spectrum.

    Attributes:
        nodes: `(probes, steps)`, estimates of eigenvalues; NaN where a probe needed fewer steps.
        weights: `(probes, steps)`, each one's share of all eigenvalues; 0 at NaN.
        size: Number of eigenvalues: the parameters.
        num_products: Products with vectors taken.
    """

    nodes: Array
    weights: Array
    size: int
    num_products: int

    def mean(self, function: Callable[[Array], Array]) -> float:
        """The mean of a function over the spectrum; times `size`, its trace."""
        used = self.weights > 0
        return float(np.sum(function(self.nodes[used]) * self.weights[used]))

    def density(self, points: Array, width: float | None = None) -> Array:
        r"""The density, smoothed with a Gaussian.

        $$\phi(t) = \sum_i \omega_i\, \mathcal N(t; \lambda_i, \text{width}^2)$$

        Args:
            points: Where to evaluate it.
            width: Standard deviation of the Gaussian; a hundredth of the nodes' range by default.
        """
        points = np.asarray(points, "float64")
        width = self.default_width() if width is None else width
        used = self.weights > 0
        total = np.zeros(points.shape)
        for node, weight in zip(self.nodes[used], self.weights[used], strict=True):
            total += weight * np.exp(-(((points - node) / width) ** 2) / 2)
        return total / (width * np.sqrt(2 * np.pi))

    def default_width(self) -> float:
        """A hundredth of the range of the nodes."""
        span = float(np.nanmax(self.nodes) - np.nanmin(self.nodes))
        return span / 100 or max(abs(float(np.nanmax(self.nodes))), 1.0) / 100


def lanczos_quadrature(
    multiply: Callable[[Array], Array],
    size: int,
    *,
    num_steps: int,
    num_probes: int,
    dtype: str,
    rng: np.random.Generator,
) -> SpectralDensity:
    """Stochastic Lanczos quadrature.

    Each probe, a random unit vector, takes `num_steps` products and holds as many vectors, which
    are orthogonalised in full. The Ritz values are its nodes, the squared first entries of their
    vectors its weights.
    """
    num_steps = min(num_steps, size)
    nodes = np.full((num_probes, num_steps), np.nan)
    weights = np.zeros((num_probes, num_steps))
    count = 0
    for probe in range(num_probes):
        basis = np.empty((num_steps, size), dtype)
        diagonal, beside = [], []
        vector = rng.choice((-1.0, 1.0), size) / np.sqrt(size)
        for step in range(num_steps):
            basis[step] = vector
            product = np.asarray(multiply(vector), dtype)
            count += 1
            scale = np.linalg.norm(product)
            diagonal.append(float(basis[step] @ product))
            held = basis[: step + 1]
            for _ in range(2):
                product = product - (held @ product) @ held
            length = float(np.linalg.norm(product))
            # What is left of the product is rounding: the probe lies in the space that is held.
            if length <= 10 * np.finfo(dtype).eps * scale or step == num_steps - 1:
                break
            beside.append(length)
            vector = product / length
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, rotation = np.linalg.eigh(matrix)
        nodes[probe, : len(values)] = values
        weights[probe, : len(values)] = rotation[0] ** 2 / num_probes
    return SpectralDensity(nodes, weights, size, count)
