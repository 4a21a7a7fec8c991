"""Optimizers that learn sparse connectivity."""

from tfconvbias.optimizers.beta_lasso import BetaLasso, PenalizedVariable, StepSizes
from tfconvbias.optimizers.penalized import choose_penalized, is_kernel
from tfconvbias.optimizers.proximal import Proximal

__all__ = [
    "BetaLasso",
    "PenalizedVariable",
    "Proximal",
    "StepSizes",
    "choose_penalized",
    "is_kernel",
]
