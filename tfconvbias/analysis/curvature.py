"""Measurements of a model's loss from few derivatives: gradient, products, trace, density, SAM.

Each takes a model with its data, or a `LossDerivatives` of both. The latter compiles once, and
serves a whole training run.
"""

import math
from typing import Annotated, Any

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis.curvature_products import as_derivatives, finite_products
from tfconvbias.analysis.hessian_trace import (
    TraceEstimate,
    TraceMethod,
    hutch_plus_plus,
    hutchinson,
)
from tfconvbias.analysis.loss_derivatives import Curvature, LossDerivatives
from tfconvbias.analysis.spectral_density import SpectralDensity, lanczos_quadrature
from tfconvbias.arguments import NonNegativeInt, PositiveFloat, PositiveInt, Range, check, checked

Array = np.ndarray


@checked
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
    return float(np.linalg.norm(as_derivatives(model, x, y, loss, options).gradient()))


@checked
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
    derivatives = as_derivatives(model, x, y, loss, options)
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


@checked
def hessian_trace(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    num_products: PositiveInt = 100,
    method: TraceMethod = "hutchinson",
    curvature: Curvature = "hessian",
    seed: NonNegativeInt = 0,
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
    >>> found = hessian_trace(model, np.eye(3), np.zeros((3, 1)), "mse")  # H = 2/3 · I
    >>> round(found.value, 3)
    2.0

    Reference: Hutchinson 1990; Meyer, Musco, Musco & Woodruff 2021, "Hutch++: Optimal Stochastic
    Trace Estimation", Algorithm 1.
    """
    derivatives = as_derivatives(model, x, y, loss, options)
    fewest = Range(at_least=2 if method == "hutchinson" else 6)
    check("num_products", num_products, Annotated[int, fewest])
    estimate = hutchinson if method == "hutchinson" else hutch_plus_plus
    return estimate(
        finite_products(derivatives, curvature),
        derivatives.size,
        num_products,
        np.random.default_rng(seed),
    )


@checked
def spectral_density(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    num_steps: PositiveInt = 50,
    num_probes: PositiveInt = 3,
    curvature: Curvature = "hessian",
    seed: NonNegativeInt = 0,
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
    derivatives = as_derivatives(model, x, y, loss, options)
    return lanczos_quadrature(
        finite_products(derivatives, curvature),
        derivatives.size,
        num_steps=num_steps,
        num_probes=num_probes,
        dtype=derivatives.dtype,
        rng=np.random.default_rng(seed),
    )


@checked
def sam_sharpness(
    model: keras.Model | LossDerivatives,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    radius: PositiveFloat = 0.05,
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
    derivatives = as_derivatives(model, x, y, loss, options)
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
