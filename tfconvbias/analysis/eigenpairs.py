"""The largest eigenvalues of a symmetric matrix that is known by its products with vectors."""

import warnings
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Multiply = Callable[[Array], Array]


def largest_eigenpairs(
    multiply: Multiply,
    size: int,
    k: int,
    *,
    tolerance: float,
    start: Array | None,
    max_products: int,
    num_vectors: int,
    dtype: str,
) -> tuple[Array, Array, Array, int, bool]:
    r"""The k largest eigenvalues by Rayleigh–Ritz in a growing space.

    The space begins with the start vectors and grows by the residual $Au - \theta u$ of the
    largest Ritz pair that is not known well enough yet. From one vector this is Lanczos' iteration
    in exact arithmetic; from several, such as the eigenvectors of a matrix close by, a restart
    loses nothing of them. Since the products are kept beside the vectors, each step knows the true
    residuals, and the search ends with the first product that makes all of them small. A full
    space is cut down to its best Ritz vectors.

    Args:
        multiply: The product with a vector of length `size`.
        size: Rows of the matrix.
        k: Number of eigenvalues, at most `size`.
        tolerance: Largest ‖Au − θu‖ as a share of |θ|.
        start: `(vectors, size)`, at most `num_vectors`; more are drawn where there are fewer than
            k.
        max_products: Products after which the search gives up, with a warning.
        num_vectors: Vectors held, as many products beside them; more than k.
        dtype: Dtype in which both are held.

    Returns:
        Values, largest first; unit vectors in rows; residuals; products taken; whether all
        k are known.
    """
    rng = np.random.default_rng(0)
    num_vectors = min(num_vectors, size)
    space = _Space(size, num_vectors, dtype)
    # No product is more accurate than this share of the largest eigenvalue.
    noise = 8 * float(np.finfo(dtype).eps)
    wanted = list(_start(start, size, k, rng))
    count = 0
    while True:
        for vector in wanted:
            if not space.orthonormal(vector):
                while not space.orthonormal(rng.standard_normal(size)):
                    pass
            space.add(multiply(space.candidate))
            count += 1
        values, rotation = space.ritz()
        found = min(k, space.count)
        limits = np.maximum(tolerance * np.abs(values[:found]), noise * np.abs(values).max())
        residuals = np.full(found, np.inf)
        for index in range(found):
            residual = space.residual(values[index], rotation[:, index])
            residuals[index] = np.linalg.norm(residual)
            if residuals[index] > limits[index]:
                break
        else:
            return values[:k], space.vectors(rotation[:, :k]), residuals, count, True
        if space.count == size:  # the whole space: what is left is rounding
            rest = [space.residual(values[i], rotation[:, i]) for i in range(k)]
            residuals = np.linalg.norm(rest, axis=1)
            return values[:k], space.vectors(rotation[:, :k]), residuals, count, True
        if count >= max_products:
            break
        wanted = [residual]
        if space.count == num_vectors:
            space.restart(rotation[:, : k + max(1, (num_vectors - k) // 3)][:, : num_vectors - 1])
    num = int(index)
    warnings.warn(
        f"Lanczos found {num} of {k} eigenvalues with {count} products: raise `max_products`, "
        "`num_lanczos` or `tolerance`.",
        RuntimeWarning,
        stacklevel=4,
    )
    return values[:num], space.vectors(rotation[:, :num]), residuals[:num], count, False


class _Space:
    """Orthonormal vectors in rows, their products, and the matrix between them."""

    def __init__(self, size, num_vectors, dtype):
        self.basis = np.empty((num_vectors, size), dtype)
        self.products = np.empty_like(self.basis)
        self.matrix = np.zeros((num_vectors, num_vectors))
        self.count = 0
        self.candidate = np.empty(size, dtype)

    def orthonormal(self, vector) -> bool:
        """Make `candidate` of a vector; `False` if the space holds it already."""
        basis = self.basis[: self.count]
        candidate = np.array(vector, self.basis.dtype)
        before = np.linalg.norm(candidate)
        if before == 0:
            return False
        candidate /= before
        for _ in range(3):
            candidate -= (basis @ candidate) @ basis
            after = np.linalg.norm(candidate)
            if after < 1e3 * np.finfo(candidate.dtype).eps:
                return False
            candidate /= after
            if after > 0.7:  # little was taken away, so that rounding left little behind
                break
        self.candidate = candidate
        return True

    def add(self, product):
        """Take the candidate and its product into the space."""
        index = self.count
        self.basis[index], self.products[index] = self.candidate, product
        self.count += 1
        column = self.basis[: self.count] @ self.products[index]
        self.matrix[: self.count, index] = self.matrix[index, : self.count] = column

    def ritz(self):
        """Ritz values, largest first, and their vectors in terms of the basis, in columns."""
        values, rotation = np.linalg.eigh(self.matrix[: self.count, : self.count])
        return values[::-1], rotation[:, ::-1]

    def vectors(self, rotation):
        """Ritz vectors in rows."""
        return rotation.T.astype(self.basis.dtype) @ self.basis[: self.count]

    def residual(self, value, coefficients):
        coefficients = coefficients.astype(self.basis.dtype)
        residual = coefficients @ self.products[: self.count]
        residual -= (np.asarray(value, residual.dtype) * coefficients) @ self.basis[: self.count]
        return residual

    def restart(self, rotation):
        """Keep some Ritz vectors."""
        kept = rotation.shape[1]
        for rows in (self.basis, self.products):
            rows[:kept] = rotation.T.astype(rows.dtype) @ rows[: self.count]
        self.count = kept
        matrix = self.basis[:kept] @ self.products[:kept].T
        self.matrix[:kept, :kept] = (matrix + matrix.T) / 2


def _start(start, size, k, rng):
    rows = np.empty((0, size)) if start is None else start
    more = rng.standard_normal((max(0, k - len(rows)), size))
    return np.concatenate([rows, more])
