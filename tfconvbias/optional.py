"""Packages that not every installation has."""

import importlib
from types import ModuleType


class MissingPackageError(ImportError):
    """A package is not installed; the message says which extra brings it."""


def require(name: str, extra: str, purpose: str) -> ModuleType:
    """Import a package that an extra brings.

    Args:
        name: The package, as it is imported.
        extra: The extra that brings it.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        MissingPackageError: If it is not installed.

    Example:
        >>> require("math", "core", "Counting").factorial(3)
        6
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name.split(".")[0]:
            raise
        raise MissingPackageError(
            f"{purpose} needs the package {name}, which is not installed. "
            f"The extra {extra!r} brings it: pip install $(tcb requirements {extra})"
        ) from error
