"""Convolutions as locally connected and dense layers: kernels, whole models, and back."""

from tfconvbias.embedding.deviation import Deviation, deviation, embedded_layers
from tfconvbias.embedding.embed import EmbeddedSize, embed, embedded_size
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.interpolation import (
    Interpolation,
    interpolate,
    relax_string,
    string_residual,
)
from tfconvbias.embedding.kernels import conv_to_dense, conv_to_local, orbit_sums
from tfconvbias.embedding.masking import evaluate_parts, masked
from tfconvbias.embedding.off_local_lasso import (
    OffLocalBetaLasso,
    off_local_mask,
    penalized_layers,
)
from tfconvbias.embedding.project import project
from tfconvbias.embedding.reinitialize import reinitialize
from tfconvbias.embedding.wide import EmbeddedConv

__all__ = [
    "Deviation",
    "EmbeddedConv",
    "EmbeddedDense",
    "EmbeddedSize",
    "Interpolation",
    "OffLocalBetaLasso",
    "conv_to_dense",
    "conv_to_local",
    "deviation",
    "embed",
    "embedded_layers",
    "embedded_size",
    "evaluate_parts",
    "interpolate",
    "masked",
    "off_local_mask",
    "orbit_sums",
    "penalized_layers",
    "project",
    "reinitialize",
    "relax_string",
    "string_residual",
]
