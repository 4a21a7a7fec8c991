"""Annotations as checks."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from tfconvbias.arguments import (
    NonNegativeFloat,
    PositiveInt,
    Range,
    Rate,
    Share,
    check,
    checked,
    describe,
)


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -3, np.int64(4), np.uint8(0)], [2.0, True, "3", None, math.nan, [1]]),
        (float, [0, 1.5, np.float32(2), np.int8(1)], [math.nan, math.inf, True, "1", None, 1j]),
        (bool, [True, np.bool_(False)], [0, 1, "yes", None]),
        (str, ["", "a"], [b"a", 3, None]),
        (PositiveInt, [1, 10**30], [0, -1, 0.5, math.inf]),
        (NonNegativeFloat, [0, 1e300], [-1e-300, math.inf, math.nan]),
        (Share, [0, 1, 0.5], [-0.1, 1.1]),
        (Rate, [0, 0.999], [1, 1.0]),
        (Annotated[float, Range(above=0, infinite=True)], [math.inf, 3], [0, math.nan, -math.inf]),
        (Literal["a", "b"], ["a"], ["c", "A", None, 1, ["a"]]),
        (Literal[1, 2], [1], [True, 1.0, 3]),
        (int | None, [None, 3], ["3", 1.5]),
        (Sequence[int], [(), [1, 2], np.arange(3), range(3)], ["12", 3, [1, "2"], {1: 2}]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, "2"), 1]),
        (tuple[PositiveInt, ...], [(), (1,), [2, 3]], [(0,), "1"]),
        (Mapping[str, float], [{}, {"a": 1}], [{1: 1.0}, {"a": "b"}, [("a", 1)]]),
        (
            Mapping[str, Sequence[float]],
            [{"a": [math.nan, 1, math.inf]}],
            [{"a": "b"}, {"a": [None]}],
        ),
        (Sequence[NonNegativeFloat], [[0.5]], [[math.nan], [-1.0]]),
        (Annotated[float, Range(nan=True)], [math.nan, 1], [math.inf, "nan"]),
        (Callable[[int], str], [print, int], [3, "print", None]),
        (np.ndarray, [np.ones(2), [1, 2], [[1.5]], np.ones(2, "uint8")], ["a", None, ["a"], 3]),
        (type[Exception], [ValueError], [ValueError("x"), "ValueError"]),
        (Any, [None, 3, "x"], []),
    ],
)
def test_what_an_annotation_allows(hint, good, bad):
    for value in good:
        check("x", value, hint)
    for value in bad:
        with pytest.raises(ValueError, match=r"^`x` must be .*Received: x="):
            check("x", value, hint)


def test_words():
    assert describe(PositiveInt | None) == "a whole number at least 1, or None"
    assert describe(Literal["a", "b"]) == "one of 'a', 'b'"
    assert describe(Sequence[int]) == "a sequence of which each item is a whole number"
    assert describe(Mapping[str, float]) == "a mapping from a string to a number"
    assert describe(tuple[int, int]) == "a tuple of 2 values (a whole number, a whole number)"
    assert describe(Mapping[str, Any]) == "a mapping from a string to any value"
    assert describe(Callable[[int], str]) == "callable"


def test_long_values_are_shown_in_part():
    with pytest.raises(ValueError, match=r"…$"):
        check("x", "a" * 10_000, int)


def test_a_checked_function_keeps_its_signature_and_python_says_what_is_missing():
    @checked
    def join(a: int, *rest: int, sep: str = ",", **more: float) -> str:
        """Doc."""
        return sep.join(map(str, (a, *rest, *more.values())))

    assert join(1, 2, c=0.5) == "1,2,0.5"
    assert join.__doc__ == "Doc."
    assert list(inspect.signature(join).parameters) == ["a", "rest", "sep", "more"]
    assert inspect.getfullargspec(join).args == ["a"]
    with pytest.raises(ValueError, match="`rest` must be a whole number"):
        join(1, "2")
    with pytest.raises(ValueError, match="`c` must be a number"):
        join(1, c="x")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        join()


def test_the_constructor_of_a_checked_class_is_checked():
    @checked
    class Plain:
        def __init__(self, size: PositiveInt = 1):
            self.size = size

    @checked
    @dataclass(frozen=True)
    class Record:
        size: PositiveInt = 1

    class Child(Plain):
        pass

    for kind in (Plain, Record, Child, functools.partial(Plain)):
        assert kind(size=2).size == 2
        with pytest.raises(ValueError, match="`size` must be a whole number at least 1"):
            kind(size=0)
