"""Names that a user types, and what he may have meant."""

import difflib
from collections.abc import Iterable
from typing import NoReturn

from tfconvbias.training.errors import RecipeError


class CommandError(RecipeError):
    """A command got a name or a folder that it cannot work with."""


def unknown(kind: str, name: str, known: Iterable[str]) -> NoReturn:
    """Say that there is no such name, and which one is near.

    Raises:
        CommandError: Always.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."
    raise CommandError(f"There is no {kind} {name!r}.{hint}")
