"""Keras layers between a dense layer and a convolution."""

from tfconvbias.layers.block_dense import BlockDense
from tfconvbias.layers.keras2_weights import load_keras2_weights
from tfconvbias.layers.locally_connected_1d import LocallyConnected1D
from tfconvbias.layers.locally_connected_2d import LocallyConnected2D
from tfconvbias.layers.locally_connected_3d import LocallyConnected3D
from tfconvbias.layers.sparse_dense import SparseDense

__all__ = [
    "BlockDense",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "LocallyConnected3D",
    "SparseDense",
    "load_keras2_weights",
]
