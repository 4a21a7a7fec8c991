"""Optimizers that learn sparse connectivity."""

from tfconvbias.optimizers.beta_lasso import BetaLasso, PenalizedVariable, StepSizes
from tfconvbias.optimizers.penalized import choose_penalized, is_kernel
from tfconvbias.optimizers.proximal import Proximal
from tfconvbias.optimizers.total_pull import (
    BetaLassoSettings,
    beta_lasso_settings,
    total_learning_rate,
)

__all__ = [
    "BetaLasso",
    "BetaLassoSettings",
    "PenalizedVariable",
    "Proximal",
    "StepSizes",
    "beta_lasso_settings",
    "choose_penalized",
    "is_kernel",
    "total_learning_rate",
]
