"""Eigenvalues at the ends of the spectrum of a model's Hessian, and of each layer's block."""

import dataclasses
from typing import Annotated, Any, Literal

import keras
import numpy as np

from tfconvbias.analysis.curvature_products import as_derivatives, finite_products
from tfconvbias.analysis.eigenpairs import largest_eigenpairs
from tfconvbias.analysis.loss_derivatives import Curvature, LossDerivatives
from tfconvbias.arguments import OpenShare, PositiveInt, Range, check, checked

Array = np.ndarray
Which = Literal["largest", "smallest"]


@dataclasses.dataclass(frozen=True)
class HessianEigenvalues:
    """Eigenvalues at one end of the spectrum and how well they are known.

    Attributes:
        values: `(k,)`, the outermost first. NaN where Lanczos didn't converge.
        vectors: `(k, parameters)`, the unit eigenvectors, in the order of `values`.
        residuals: `(k,)`, ‖Hv − λv‖: an eigenvalue lies within this distance of each value.
        num_products: Hessian-vector products taken.
        converged: Whether all k reached the tolerance.
    """

    values: Array
    vectors: Array
    residuals: Array
    num_products: int
    converged: bool


@checked
def top_hessian_eigenvalues(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    k: PositiveInt = 1,
    which: Which = "largest",
    curvature: Curvature = "hessian",
    tolerance: OpenShare = 1e-4,
    start: Array | HessianEigenvalues | None = None,
    max_products: PositiveInt = 1000,
    num_lanczos: PositiveInt | None = None,
    verbose: int = 0,
    **options: Any,
) -> HessianEigenvalues:
    """The k largest Hessian eigenvalues of the loss over a whole set, or the k smallest.

    The largest one is the sharpness; the smallest one is the most negative. Power iteration would
    find the largest |λ|, which may be either.

    The search is Lanczos' with a residual test after each product. A second search on a model
    that has moved a little, such as a few training steps later, needs few products when it starts
    with the eigenvectors of the first: pass the first result as `start`.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        k: Number of eigenvalues.
        which: `"largest"` or `"smallest"`, in the order of the number line.
        curvature: `"hessian"`, `"ggn"` or `"fisher"`, as in `LossDerivatives.product`.
        tolerance: Largest residual ‖Hv − λv‖ as a share of |λ|. The relative error of an
            eigenvalue is no larger, and of the order of its square for one that stands apart.
            Float32 products carry about 1e-6.
        start: Start vectors, `(parameters,)` or `(vectors, parameters)`, or an earlier result; by
            default a fixed pseudo-random one. A little of that is added to an earlier result, so
            that directions which were not in it can come up.
        max_products: Products after which the search gives up.
        num_lanczos: Vectors held, and as many products, each as large as the parameters;
            `max(2 k + 1, 20)` by default.
        verbose: 1 shows the number of products taken.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        `HessianEigenvalues`. Without convergence a `RuntimeWarning` is given, `converged` is
        `False` and the missing values are NaN.

    Raises:
        FloatingPointError: If a product is not finite (a diverged model).

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> x, y = np.array([[-1.0], [1.0]]), np.zeros((2, 1))
    >>> top_hessian_eigenvalues(model, x, y, "mse", k=2).values.round(3).tolist()
    [2.0, 2.0]

    Reference: d'Ascoli et al. 2019, Figure 3; Wu & Simon 2000, "Thick-Restart Lanczos Method for
    Large Symmetric Eigenvalue Problems"; Sleijpen & Van der Vorst 1996 for spaces that grow by a
    residual.
    """
    derivatives = as_derivatives(model, x, y, loss, options)
    return _eigenvalues(
        finite_products(derivatives, curvature, verbose),
        derivatives.size,
        derivatives.dtype,
        k=k,
        sign=1.0 if which == "largest" else -1.0,
        tolerance=tolerance,
        start=start,
        max_products=max_products,
        num_lanczos=num_lanczos,
    )


@checked
def layer_sharpness(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    curvature: Curvature = "hessian",
    tolerance: OpenShare = 1e-3,
    start: dict[str, HessianEigenvalues] | None = None,
    max_products: PositiveInt = 1000,
    num_lanczos: PositiveInt | None = None,
    **options: Any,
) -> dict[str, HessianEigenvalues]:
    """The largest eigenvalue of each layer's own block of the Hessian, the other layers fixed.

    No block's is above that of the whole Hessian. The products are those of the whole model,
    compiled once.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        curvature: `"hessian"`, `"ggn"` or `"fisher"`, as in `LossDerivatives.product`.
        tolerance: As in `top_hessian_eigenvalues`.
        start: An earlier result, from which the search starts.
        max_products: Products for each layer after which its search gives up.
        num_lanczos: As in `top_hessian_eigenvalues`.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        The path of each layer (its variables' paths without their own names), in the model's
        order → `HessianEigenvalues` of its block.

    Example:
    >>> import keras, numpy as np
    >>> layers = [keras.layers.Dense(1, name="one"), keras.layers.Dense(1, name="two")]
    >>> model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    >>> list(layer_sharpness(model, np.ones((2, 3)), np.ones((2, 1)), "mse"))
    ['net/one', 'net/two']
    """
    derivatives = as_derivatives(model, x, y, loss, options)
    places: dict[str, list[Array]] = {}
    offset = 0
    for variable in derivatives.variables:
        size = int(np.prod(variable.shape))
        places.setdefault(_owner(variable), []).append(np.arange(offset, offset + size))
        offset += size
    whole = finite_products(derivatives, curvature)
    found = {}
    for name, parts in places.items():
        block = np.concatenate(parts)

        def multiply(vector, block=block):
            full = np.zeros(derivatives.size)
            full[block] = vector
            return whole(full)[block]

        found[name] = _eigenvalues(
            multiply,
            len(block),
            derivatives.dtype,
            k=1,
            sign=1.0,
            tolerance=tolerance,
            start=None if start is None else start.get(name),
            max_products=max_products,
            num_lanczos=num_lanczos,
        )
    return found


def _eigenvalues(
    multiply, size, dtype, *, k, sign, tolerance, start, max_products, num_lanczos
) -> HessianEigenvalues:
    if k > size:
        raise ValueError(f"`k` must be at most the {size} parameters. Received: k={k}")
    if num_lanczos is None:
        num_lanczos = max(2 * k + 1, 20)
    check("num_lanczos", num_lanczos, Annotated[int, Range(at_least=k + 1)])
    values, vectors, residuals, count, converged = largest_eigenpairs(
        lambda vector: sign * multiply(vector),
        size,
        k,
        tolerance=tolerance,
        start=_start_vectors(start, size, num_lanczos),
        max_products=max_products,
        num_vectors=num_lanczos,
        dtype=dtype,
    )
    missing = k - len(values)
    return HessianEigenvalues(
        values=np.pad(sign * values, (0, missing), constant_values=np.nan),
        vectors=np.pad(vectors, ((0, missing), (0, 0)), constant_values=np.nan),
        residuals=np.pad(residuals, (0, missing), constant_values=np.nan),
        num_products=count,
        converged=converged,
    )


# How much noise, relative to its norm, joins an eigenvector of an earlier search.
_NOISE = 0.1


def _start_vectors(start, size, num_lanczos) -> Array | None:
    """Vectors in rows, or `None`."""
    if start is None:
        return None
    earlier = isinstance(start, HessianEigenvalues)
    vectors = np.atleast_2d(np.asarray(start.vectors if earlier else start, "float64"))
    if vectors.ndim != 2 or vectors.shape[1] != size or len(vectors) > num_lanczos:
        raise ValueError(
            f"`start` must hold vectors of length {size}, at most {num_lanczos} of them. "
            f"Received: shape {vectors.shape}"
        )
    if earlier:
        vectors = vectors[np.isfinite(vectors).all(axis=1)]
        noise = np.random.default_rng(0).standard_normal(vectors.shape)
        noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
        return vectors + noise
    if not (np.isfinite(vectors).all() and np.linalg.norm(vectors, axis=1).all()):
        raise ValueError("`start` must hold finite vectors other than zero.")
    return vectors


def _owner(variable) -> str:
    """The path of the layer that holds a variable."""
    layer, _, _ = variable.path.rpartition("/")
    return layer or variable.path
