"""Measurements on arrays and models: numbers out, no training."""

from tfconvbias.analysis.filters import (
    input_weight_images,
    nonzeros_per_unit,
    num_units,
    random_units,
)
from tfconvbias.analysis.sparsity import kernels, num_nonzeros

__all__ = [
    "input_weight_images",
    "kernels",
    "nonzeros_per_unit",
    "num_nonzeros",
    "num_units",
    "random_units",
]
