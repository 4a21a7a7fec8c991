"""Plain loops over NumPy arrays, compiled by Numba where it is installed."""

import importlib.util
from types import ModuleType
from typing import Any


def compiled(module: ModuleType, kind: Any) -> Any:
    """The functions of a module, compiled on their first call; None where Numba is not installed.

    Args:
        module: It has a function for each field of `kind`.
        kind: A `NamedTuple`, of which one is returned.
    """
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    # Without Python's lock, for several threads. Sums may be reordered, so that they run over
    # vectors; the other liberties of `fastmath` would let a NaN vanish.
    compile_loop = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
    return kind(*(compile_loop(getattr(module, name)) for name in kind._fields))
