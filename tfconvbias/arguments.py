"""What a public function may be called with: its annotations, checked when it is called.

`checked` reads the annotations of a function and refuses what they do not allow, in one sentence
that names the argument, says what is expected and shows what was received. Ranges are part of an
annotation: `PositiveInt`, `NonNegativeFloat`, `Share`, or `Annotated[float, Range(above=-1)]`.
"""

import collections.abc
import functools
import inspect
import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

_Checked = TypeVar("_Checked", bound=Callable[..., Any])

# Longer sequences are taken as they are after so many items; data is checked where it is used.
_NUM_ITEMS = 1000
_SHOWN = 200


@dataclass(frozen=True)
class Range:
    """The values that a number may have, for `Annotated`.

    Args:
        at_least: Smallest value.
        above: Largest value that is already too small.
        at_most: Largest value.
        below: Smallest value that is already too large.
        infinite: Whether infinity is allowed.
        nan: Whether NaN is allowed, as in what was measured.

    Example:
        >>> Range(at_least=0, below=1)
        at least 0 and below 1
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    infinite: bool = False
    nan: bool = False

    def __contains__(self, number: float) -> bool:
        if math.isnan(number):
            return self.nan
        return (
            (self.infinite or math.isfinite(number))
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __repr__(self) -> str:
        bounds = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(
            f"{word} {value:g}" for word, value in bounds.items() if value is not None
        )


PositiveInt = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(at_least=0)]
Measured = Annotated[float, Range(infinite=True, nan=True)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
OpenShare = Annotated[float, Range(above=0, below=1)]
Rate = Annotated[float, Range(at_least=0, below=1)]


def checked(function: _Checked) -> _Checked:
    """Refuse arguments that a function's annotations do not allow, before it runs.

    Whole numbers may be NumPy's and are not converted; truth values are no numbers. NaN and
    infinity are refused unless a `Range` allows them, but not inside of sequences and mappings,
    which hold data. `Any` and what has no annotation stay unchecked.

    Args:
        function: A function, or a class, of which `__init__` is checked.

    Returns:
        The function with the same signature and docstring, or the class.

    Example:
        >>> @checked
        ... def repeat(text: str, times: PositiveInt = 2) -> str:
        ...     return text * times
        >>> repeat("ab", times=0)
        Traceback (most recent call last):
        ValueError: `times` must be a whole number at least 1. Received: times=0
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)

    @functools.cache
    def hints() -> dict[str, Any]:
        found = typing.get_type_hints(function, include_extras=True)
        found.pop("return", None)
        return {name: hint for name, hint in found.items() if not _is_free(hint)}

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python's own message says what is missing
        for name, hint in hints().items():
            if name not in given:
                continue
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                for key, value in given[name].items():
                    check(key, value, hint)
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                for value in given[name]:
                    check(name, value, hint)
            else:
                check(name, given[name], hint)
        return function(*args, **kwargs)

    # Keras asks for it without looking behind wrappers.
    checking.__signature__ = signature  # type: ignore[attr-defined]
    return typing.cast(_Checked, checking)


def check(name: str, value: Any, hint: Any) -> None:
    """Refuse one value that an annotation does not allow.

    Args:
        name: The argument's name, for the message.
        value: What was received.
        hint: A type, `Literal`, union, `Annotated` with a `Range`, or a sequence, tuple or mapping
            of these.

    Raises:
        ValueError: If the annotation does not allow the value.
    """
    if not allows(hint, value):
        raise ValueError(f"`{name}` must be {describe(hint)}. Received: {name}={_shown(value)}")


def allows(hint: Any, value: Any, *, is_item: bool = False) -> bool:
    """Whether an annotation allows a value.

    Args:
        hint: As in `check`.
        value: What was received.
        is_item: Whether it stands in a sequence or mapping, where NaN and infinity are data.
    """
    if _is_free(hint):
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and _is_number(inner[0]):
        return _is_number_within(value, inner[0], inner[1:])
    if origin is Annotated:
        return allows(inner[0], value, is_item=is_item)
    if origin in (typing.Union, types.UnionType):
        return any(allows(option, value, is_item=is_item) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if hint is None or hint is type(None):
        return value is None
    if _is_number(hint):
        return _is_number_within(value, hint, (Range(infinite=is_item, nan=is_item),))
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is np.ndarray:
        return _is_array(value)
    if origin is None:
        return isinstance(value, hint) if isinstance(hint, type) else True
    return _allows_items(origin, inner, value)


def describe(hint: Any) -> str:
    """An annotation in words.

    Example:
        >>> describe(PositiveInt | None)
        'a whole number at least 1, or None'
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([describe(inner[0]), *filter(None, map(repr, inner[1:]))])
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(describe(option) for option in inner))
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(repr, inner))
    if hint is None or hint is type(None):
        return "None"
    if origin is None and hint in _WORDS:
        return _WORDS[hint]
    if origin is tuple and inner and Ellipsis not in inner:
        return f"a tuple of {len(inner)} values ({', '.join(map(describe, inner))})"
    if origin in _WORDS:
        if not issubclass(origin, collections.abc.Collection) or not inner or _is_free(inner[0]):
            return _WORDS[origin]
        if issubclass(origin, collections.abc.Mapping):
            values = "any value" if _is_free(inner[1]) else describe(inner[1])
            return f"{_WORDS[origin]} from {describe(inner[0])} to {values}"
        return f"{_WORDS[origin]} of which each item is {describe(inner[0])}"
    return f"a `{getattr(origin or hint, '__qualname__', str(hint))}`"


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a string",
    type: "a class",
    np.ndarray: "an array of numbers",
    os.PathLike: "a path",
    tuple: "a tuple",
    list: "a list",
    dict: "a dictionary",
    collections.abc.Sequence: "a sequence",
    collections.abc.Mapping: "a mapping",
    collections.abc.Iterable: "an iterable",
    collections.abc.Iterator: "an iterator",
    collections.abc.Callable: "callable",
}


def _is_free(hint: Any) -> bool:
    return hint is Any or hint is inspect.Parameter.empty or isinstance(hint, TypeVar)


def _is_number(hint: Any) -> bool:
    return hint is int or hint is float


def _is_number_within(value: Any, hint: type, bounds: tuple) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if hint is int:
        try:
            value = operator.index(value)
        except TypeError:
            return False
    elif not isinstance(value, numbers.Real) and hasattr(value, "dtype") and np.ndim(value) == 0:
        value = float(value)
    elif not isinstance(value, numbers.Real):
        return False
    return all(value in bound for bound in bounds if isinstance(bound, Range))


def _is_array(value: Any) -> bool:
    if not hasattr(value, "dtype"):
        if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
            return False
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            return False
    kind = getattr(value.dtype, "kind", None)  # a tensor's type of another library has no kind
    return kind is None or kind in "biufc"


def _allows_items(origin: Any, inner: tuple, value: Any) -> bool:
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type)
    if origin is tuple and Ellipsis not in inner:
        return (
            isinstance(value, tuple | list)
            and len(value) == len(inner)
            and all(_is_item(hint, item) for hint, item in zip(inner, value, strict=True))
        )
    if isinstance(value, str | bytes):
        return False
    if isinstance(value, np.ndarray) and origin is collections.abc.Iterable:
        return inner != (np.ndarray,) or _is_array(value)
    if isinstance(value, np.ndarray) and origin in (collections.abc.Sequence, tuple, list):
        return value.ndim > 0 and all(_is_item(inner[0], item) for item in value[:_NUM_ITEMS])
    # Keras turns tuples into lists where it writes a configuration, and the reverse.
    kinds = (tuple, list) if origin in (tuple, list) else origin
    if not isinstance(value, kinds):
        return False
    if isinstance(value, collections.abc.Mapping):
        return all(
            _is_item(inner[0], key) and _is_item(inner[1], item)
            for key, item in list(value.items())[:_NUM_ITEMS]
        )
    if isinstance(value, collections.abc.Sequence) and inner:
        return all(_is_item(inner[0], item) for item in value[:_NUM_ITEMS])
    return True


def _is_item(hint: Any, value: Any) -> bool:
    return allows(hint, value, is_item=True)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
