"""Keras finds our classes by name: they are all registered once both packages are imported.

Registering means importing the modules that define the classes, and these import Keras. Where Keras
is not imported yet this waits until it is, or until one of those modules is.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

REGISTERING = (
    "data",
    "optimizers",
    "graph",
    "layers",
    "regularizers",
    "analysis",
    "models",
    "embedding",
    "surgery",
    "callbacks",
)
"""The folders whose modules define what Keras saves and loads, or import it for another reason."""


def register_with_keras() -> None:
    """Register now if Keras is imported, else as soon as it is."""
    if "keras" in sys.modules:
        _import_all()
    else:
        sys.meta_path.insert(0, _Waiting())


def _import_all() -> None:
    for name in REGISTERING:
        importlib.import_module(f"tfconvbias.{name}")


class _Waiting(importlib.abc.MetaPathFinder):
    """Sees the first import of Keras or of one of our folders, and imports the others after it.

    None of our folders is half imported then, so that they can import each other.
    """

    def __init__(self) -> None:
        self.names = {"keras", *(f"tfconvbias.{name}" for name in REGISTERING)}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.names:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(importlib.abc.Loader):
    """Loads a module as its own loader does, and registers afterwards."""

    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is its own loader's alone.
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _import_all()
