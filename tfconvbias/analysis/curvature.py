r"""Measurements of the curvature of a model's loss: eigenvalues, trace, density, sharpness.

Each takes a model with its data, or a `LossDerivatives` of both. The latter compiles once, and
serves a whole training run.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis.arguments import one_of, positive_number, whole_number
from tfconvbias.analysis.eigenpairs import largest_eigenpairs
from tfconvbias.analysis.hessian_trace import (
    TraceEstimate,
    TraceMethod,
    hutch_plus_plus,
    hutchinson,
)
from tfconvbias.analysis.loss_derivatives import CURVATURES, Curvature, LossDerivatives
from tfconvbias.analysis.spectral_density import SpectralDensity, lanczos_quadrature

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


def gradient_norm(
    model: keras.Model | LossDerivatives, x: Any = None, y: Any = None, loss: Any = None,
    **options: Any,
) -> float:  # fmt: skip
    r"""The Euclidean norm $\|\nabla_\theta L\|$ of the loss gradient over a whole set.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Reference: d'Ascoli et al. 2019, Figure 3.
    """
    return float(np.linalg.norm(_derivatives(model, x, y, loss, options).gradient()))


def hessian_vector_product(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    vector: Any,
    curvature: Curvature = "hessian",
    **options: Any,
) -> Any:
    r"""The Hessian of the loss over a whole set, applied to a vector: $\nabla^2_\theta L\,v$.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        vector: Flat, `(parameters,)`, or a list with one array a variable.
        curvature: `"hessian"`, `"ggn"` or `"fisher"`, as in `LossDerivatives.product`.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        The product in the form of `vector`: flat, or a list.
    """
    derivatives = _derivatives(model, x, y, loss, options)
    if not isinstance(vector, list | tuple):
        return derivatives.product(vector, curvature)
    shapes = [np.shape(part) for part in vector]
    expected = [tuple(variable.shape) for variable in derivatives.variables]
    if shapes != expected:
        raise ValueError(
            f"`vector` must hold arrays of the variables' shapes {expected}. "
            f"Received: shapes {shapes}"
        )
    flat = np.concatenate([np.ravel(part) for part in vector])
    return derivatives.split(derivatives.product(flat, curvature))


def top_hessian_eigenvalues(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    k: int = 1,
    which: Which = "largest",
    curvature: Curvature = "hessian",
    tolerance: float = 1e-4,
    start: Array | HessianEigenvalues | None = None,
    max_products: int = 1000,
    num_lanczos: int | None = None,
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
    derivatives = _derivatives(model, x, y, loss, options)
    one_of("which", which, ("largest", "smallest"))
    one_of("curvature", curvature, CURVATURES)
    return _eigenvalues(
        _multiplier(derivatives, curvature, verbose),
        derivatives.size,
        derivatives.dtype,
        k=k,
        sign=1.0 if which == "largest" else -1.0,
        tolerance=tolerance,
        start=start,
        max_products=max_products,
        num_lanczos=num_lanczos,
    )


def layer_sharpness(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    curvature: Curvature = "hessian",
    tolerance: float = 1e-3,
    start: dict[str, HessianEigenvalues] | None = None,
    max_products: int = 1000,
    num_lanczos: int | None = None,
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
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> list(layer_sharpness(model, np.ones((2, 3)), np.ones((2, 1)), "mse"))
    ['one', 'two']
    """
    derivatives = _derivatives(model, x, y, loss, options)
    one_of("curvature", curvature, CURVATURES)
    places: dict[str, list[Array]] = {}
    offset = 0
    for variable in derivatives.variables:
        size = int(np.prod(variable.shape))
        places.setdefault(_owner(variable), []).append(np.arange(offset, offset + size))
        offset += size
    whole = _multiplier(derivatives, curvature)
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


def hessian_trace(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    num_products: int = 100,
    method: TraceMethod = "hutchinson",
    curvature: Curvature = "hessian",
    seed: int = 0,
    **options: Any,
) -> TraceEstimate:
    r"""The trace of the Hessian of the loss over a whole set, estimated from random products.

    - `"hutchinson"`: the mean of $g^\top H g$ over vectors g of random signs. The error falls with
      the square root of the number of products.
    - `"hutch++"`: two thirds of the products give the trace on the space that holds most of H
      exactly, a third estimates the rest. It is better where few eigenvalues carry most of the
      trace, and holds two vectors for every three products.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        num_products: Products to take: 2 or more, 6 or more for `"hutch++"`.
        method: `"hutchinson"` or `"hutch++"`.
        curvature: `"hessian"`, `"ggn"` or `"fisher"`, as in `LossDerivatives.product`.
        seed: Seed of the random vectors.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        `TraceEstimate`: value, standard error, products taken.

    Raises:
        FloatingPointError: If a product is not finite (a diverged model).

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    >>> hessian_trace(model, np.eye(3), np.zeros((3, 1)), "mse").value  # H = 2/3 · I
    2.0

    Reference: Hutchinson 1990; Meyer, Musco, Musco & Woodruff 2021, "Hutch++: Optimal Stochastic
    Trace Estimation", Algorithm 1.
    """
    derivatives = _derivatives(model, x, y, loss, options)
    one_of("method", method, ("hutchinson", "hutch++"))
    one_of("curvature", curvature, CURVATURES)
    whole_number("num_products", num_products, 2 if method == "hutchinson" else 6)
    estimate = hutchinson if method == "hutchinson" else hutch_plus_plus
    return estimate(
        _multiplier(derivatives, curvature),
        derivatives.size,
        num_products,
        np.random.default_rng(whole_number("seed", seed, 0)),
    )


def spectral_density(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    num_steps: int = 50,
    num_probes: int = 3,
    curvature: Curvature = "hessian",
    seed: int = 0,
    **options: Any,
) -> SpectralDensity:
    """The density of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

    `plots.eigenvalue_density` draws it.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        num_steps: Products for each probe, and vectors held: the resolution.
        num_probes: Random probes: the mean over them is the density of all eigenvalues.
        curvature: `"hessian"`, `"ggn"` or `"fisher"`, as in `LossDerivatives.product`.
        seed: Seed of the probes.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Raises:
        FloatingPointError: If a product is not finite (a diverged model).

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    >>> found = spectral_density(model, np.eye(3), np.zeros((3, 1)), "mse")
    >>> round(found.mean(lambda eigenvalues: eigenvalues), 3)
    0.667

    Reference: Ghorbani, Krishnan & Xiao 2019, "An Investigation into Neural Net Optimization via
    Hessian Eigenvalue Density".
    """
    derivatives = _derivatives(model, x, y, loss, options)
    one_of("curvature", curvature, CURVATURES)
    return lanczos_quadrature(
        _multiplier(derivatives, curvature),
        derivatives.size,
        num_steps=whole_number("num_steps", num_steps),
        num_probes=whole_number("num_probes", num_probes),
        dtype=derivatives.dtype,
        rng=np.random.default_rng(whole_number("seed", seed, 0)),
    )


def sam_sharpness(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    radius: float = 0.05,
    adaptive: bool = False,
    **options: Any,
) -> float:
    r"""How much the loss rises within a ball around the weights, by one step of ascent.

    $$\max_{\|\epsilon\| \le \rho} L(\theta + \epsilon) - L(\theta) \approx
    L\big(\theta + \rho\, g / \|g\|\big) - L(\theta), \qquad g = \nabla L(\theta)$$

    The adaptive ball is $\|\epsilon / |\theta|\, \| \le \rho$, which does not change when layers
    are rescaled against each other; its step is $\rho\, \theta^2 g / \| \theta g \|$. Gradient and
    loss are those of the whole set, while training with SAM takes one batch at a time. The weights
    are put back.

    Args:
        model: A built Keras model, or a `LossDerivatives` alone.
        x: Inputs, or a data set.
        y: Targets.
        loss: Loss; the compiled one by default.
        radius: ρ.
        adaptive: Whether each weight moves in proportion to its size.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        The rise; 0 where the gradient is 0, NaN for a diverged model.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[3.0]])])
    >>> round(sam_sharpness(model, np.ones((1, 1)), np.zeros((1, 1)), "mse", radius=0.1), 3)
    0.61

    Reference: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving
    Generalization", Equation 2; Kwon et al. 2021, "ASAM", Equation 8.
    """
    derivatives = _derivatives(model, x, y, loss, options)
    radius = positive_number("radius", radius)
    kept = [ops.convert_to_numpy(variable).copy() for variable in derivatives.variables]
    theta = np.concatenate([np.ravel(part) for part in kept]).astype("float64")
    before, gradient = derivatives.value(), derivatives.gradient()
    scale = np.abs(theta) if adaptive else 1.0
    norm = float(np.linalg.norm(scale * gradient))
    if norm == 0:
        return 0.0
    if not math.isfinite(norm):
        return math.nan
    try:
        moved = theta + radius * scale**2 * gradient / norm
        for variable, part in zip(derivatives.variables, derivatives.split(moved), strict=True):
            variable.assign(part)
        return derivatives.value() - before
    finally:
        for variable, part in zip(derivatives.variables, kept, strict=True):
            variable.assign(part)


def _derivatives(model, x, y, loss, options) -> LossDerivatives:
    if not isinstance(model, LossDerivatives):
        return LossDerivatives(model, x, y, loss, **options)
    given = {"x": x, "y": y, "loss": loss, **options}
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"A `LossDerivatives` holds data and loss already. Received: {', '.join(names)}"
        )
    return model


def _multiplier(derivatives, curvature, verbose=0) -> Callable[[Array], Array]:
    """Products that are finite, with their number shown."""
    product = derivatives.fixed_product(curvature)
    progress = keras.utils.Progbar(None, unit_name="product") if verbose else None

    def multiply(vector):
        result = product(vector)
        if not np.isfinite(result).all():
            raise FloatingPointError("A Hessian-vector product is not finite.")
        if progress is not None:
            progress.add(1)
        return result

    return multiply


def _eigenvalues(
    multiply, size, dtype, *, k, sign, tolerance, start, max_products, num_lanczos
) -> HessianEigenvalues:
    k = whole_number("k", k)
    if k > size:
        raise ValueError(f"`k` must be at most the {size} parameters. Received: k={k}")
    tolerance = positive_number("tolerance", tolerance)
    if tolerance >= 1:
        raise ValueError(f"`tolerance` must be below 1. Received: tolerance={tolerance}")
    max_products = whole_number("max_products", max_products)
    if num_lanczos is None:
        num_lanczos = max(2 * k + 1, 20)
    num_lanczos = whole_number("num_lanczos", num_lanczos, k + 1)
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
