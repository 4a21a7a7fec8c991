"""Parts that are imported when they are first used, so that options are read without Keras.

Recipes and the command line read their options, and show `--help`, before anything is computed.
The modules on that path take Keras, and the parts of this package that need it, from here: a name
stands for the module of that name, which is imported when one of its attributes is first read.
"""

import importlib
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import keras_tuner

    from tfconvbias import (
        analysis,
        callbacks,
        data,
        embedding,
        models,
        optimizers,
        plots,
        regularizers,
        surgery,
    )

_EXTERNAL = ("keras", "keras_tuner")
_OWN = (
    "analysis",
    "callbacks",
    "data",
    "embedding",
    "models",
    "optimizers",
    "plots",
    "regularizers",
    "surgery",
)

__all__ = [
    "analysis",
    "callbacks",
    "data",
    "embedding",
    "keras",
    "keras_tuner",
    "models",
    "optimizers",
    "plots",
    "regularizers",
    "surgery",
]


class _Later(types.ModuleType):
    """Stands for a module until one of its attributes is read."""

    def __getattr__(self, name: str):
        return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(importlib.import_module(self.__name__), name, value)


def __getattr__(name: str) -> types.ModuleType:
    if name in _EXTERNAL:
        return _Later(name)
    if name in _OWN:
        return _Later(f"tfconvbias.{name}")
    raise AttributeError(f"module 'tfconvbias.lazy' has no attribute {name!r}")
