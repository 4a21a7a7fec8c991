"""Keras 3 tools for studying and using the bias of convolutions: locality and weight sharing.

`import tfconvbias as tcb` registers every layer, optimizer and model for loading and stays light:
TensorFlow Datasets, KerasTuner and matplotlib are imported only when they are used.
"""

import importlib

from tfconvbias import (
    analysis,
    callbacks,
    connectivity,
    data,
    embedding,
    graph,
    layers,
    models,
    optimizers,
    regularizers,
    surgery,
)

__version__ = "0.1.0"

__all__ = [
    "analysis",
    "callbacks",
    "connectivity",
    "data",
    "embedding",
    "graph",
    "layers",
    "models",
    "optimizers",
    "plots",
    "regularizers",
    "studies",
    "surgery",
    "training",
    "tuning",
]

_LAZY = frozenset({"plots", "studies", "training", "tuning"})


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"tfconvbias.{name}")
    raise AttributeError(f"module 'tfconvbias' has no attribute {name!r}")
