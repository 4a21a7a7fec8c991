"""Structured sparsity: penalties that learn widths, kernel sizes and depth."""

from tfconvbias.regularizers.complexity import Complexity, following_gammas
from tfconvbias.regularizers.kernel_number import KernelNumber
from tfconvbias.regularizers.kernel_size import KernelSize
from tfconvbias.regularizers.layer_penalties import layer_penalties, proximal_optimizer
from tfconvbias.regularizers.structured_sparsity import StructuredSparsity, set_alpha

__all__ = [
    "Complexity",
    "KernelNumber",
    "KernelSize",
    "StructuredSparsity",
    "following_gammas",
    "layer_penalties",
    "proximal_optimizer",
    "set_alpha",
]
