"""Checks of the arguments that several measurements share."""

import math
import operator
from typing import Any


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """A whole number that is at least `least`.

    Raises:
        ValueError: Otherwise.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"`{name}` must be a whole number, at least {least}. Received: {name}={value!r}"
        )
    return number


def positive_number(name: str, value: Any) -> float:
    """A finite number above 0.

    Raises:
        ValueError: Otherwise; NaN is refused, too.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")
    return number


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of a few words.

    Raises:
        ValueError: Otherwise.
    """
    if not (isinstance(value, str) and value in choices):
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}"
        )
    return value
