"""The options of every recipe, and values that no option of their kind can have.

Recipes are read as they stand, with `training.main` replaced; so a new recipe or option joins by
itself. Nothing here imports Keras.
"""

import argparse
import runpy
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from tfconvbias import training
from tfconvbias.training import command_line

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("[!_]*.py"))


class Recipe(NamedTuple):
    """What a recipe hands to `training.main`."""

    name: str
    config: training.Config
    options: dict[str, Any]

    def parser(self) -> argparse.ArgumentParser:
        """What reads its options."""
        return command_line.parser(self.config, **self.options)


def recipes() -> Iterator[Recipe]:
    """All recipes."""
    for file in RECIPES:
        handed: list[Recipe] = []

        def main(config, run, file=file, handed=handed, **options):
            handed.append(Recipe(file.stem, config, options))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "main", main)
            patch.setattr(sys, "argv", [str(file)])
            runpy.run_path(str(file), run_name="__main__")
        (found,) = handed
        yield found


NUMBERS = ("three", "", "nan", "inf", "-inf", "1e999", "0x10", "\udcff")
BAD = {
    int: (*NUMBERS, "-1", "2.5", "1e3", "9" * 5000),
    float: NUMBERS,
    str: ("\udcff", "a\udcffb"),
    bool: ("yes",),
    Literal: ("no-such-choice", "", "\udcff"),
}
"""Kind of option → values that must be refused, whatever the option is called."""


def bad_arguments(option: command_line.Option) -> list[str]:
    """The option with values that it cannot have, as one word each."""
    flag = "--" + option.name.replace("_", "-")
    kind = _kind(option.hint)
    found = [f"{flag}={value}" for value in BAD[kind]]
    if "seed" in option.name or option.name in ("random_widths", "jobs"):
        # A seed is at most 2³² − 1; and of so many runs not even a list can be made.
        found.append(f"{flag}={2**32}")
    return found


def _kind(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _kind(next(part for part in typing.get_args(hint) if part is not type(None)))
    if origin is typing.Annotated or origin is tuple:
        return _kind(typing.get_args(hint)[0])
    return Literal if origin is Literal else hint
