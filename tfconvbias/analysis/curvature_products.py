"""What the measurements of curvature take, and the products that they make of it."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfconvbias.analysis.loss_derivatives import Curvature, LossDerivatives

Array = np.ndarray


def as_derivatives(model: Any, x: Any, y: Any, loss: Any, options: dict) -> LossDerivatives:
    """The loss of a model on its data, or a `LossDerivatives` itself.

    Raises:
        ValueError: If a `LossDerivatives` comes with data, a loss or options.
    """
    if not isinstance(model, LossDerivatives):
        return LossDerivatives(model, x, y, loss, **options)
    given = {"x": x, "y": y, "loss": loss, **options}
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"A `LossDerivatives` holds data and loss already. Received: {', '.join(names)}"
        )
    return model


def finite_products(
    derivatives: LossDerivatives, curvature: Curvature, verbose: int = 0
) -> Callable[[Array], Array]:
    """Products with a curvature matrix at the present weights; `verbose` shows their number.

    Raises:
        FloatingPointError: From a product that is not finite.
    """
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
