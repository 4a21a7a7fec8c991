"""Convolutions as locally connected and dense layers: kernels, whole models, and back."""

from tfconvbias.embedding.batch_norm import fold_batch_normalization
from tfconvbias.embedding.embed import EmbeddedSize, embed, embedded_size
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.geometry import ConvGeometry, conv_geometry
from tfconvbias.embedding.kernels import conv_to_dense, conv_to_local, orbit_sums

__all__ = [
    "ConvGeometry",
    "EmbeddedDense",
    "EmbeddedSize",
    "conv_geometry",
    "conv_to_dense",
    "conv_to_local",
    "embed",
    "embedded_size",
    "fold_batch_normalization",
    "orbit_sums",
]
