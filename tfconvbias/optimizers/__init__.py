"""Optimizers that learn sparse connectivity."""

from tfconvbias.optimizers.beta_lasso import BetaLasso, PenalizedVariable
from tfconvbias.optimizers.penalized import choose_penalized, is_kernel

__all__ = ["BetaLasso", "PenalizedVariable", "choose_penalized", "is_kernel"]
