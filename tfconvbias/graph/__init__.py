"""A model's graph of layer calls, what is known of each layer, and normalizations folded."""

# Imported for its effect: it fills the table with Keras' own layers.
from tfconvbias.graph import keras_layers as keras_layers
from tfconvbias.graph.calls import Call, LayerGraph, TensorRef, read_graph
from tfconvbias.graph.facts import Kernel, LayerFacts, facts_of, register
from tfconvbias.graph.geometry import ConvGeometry, conv_geometry
from tfconvbias.graph.leaves import leaf_layers
from tfconvbias.graph.normalization import fold_normalization
from tfconvbias.graph.rebuild import Rebuilder

__all__ = [
    "Call",
    "ConvGeometry",
    "Kernel",
    "LayerFacts",
    "LayerGraph",
    "Rebuilder",
    "TensorRef",
    "conv_geometry",
    "facts_of",
    "fold_normalization",
    "leaf_layers",
    "read_graph",
    "register",
]
