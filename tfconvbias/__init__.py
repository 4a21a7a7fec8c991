"""Keras 3 tools for studying and using the bias of convolutions: locality and weight sharing.

`import tfconvbias as tcb` registers every layer, optimizer and model for loading as soon as Keras
is imported too, before or after. By itself it imports neither Keras nor its backend, so that the
recipes show `--help` at once. TensorFlow Datasets, KerasTuner and matplotlib are imported only when
they are used.
"""

import importlib

from tfconvbias.registration import register_with_keras

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


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"tfconvbias.{name}")
    raise AttributeError(f"module 'tfconvbias' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_keras()
