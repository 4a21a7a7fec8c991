"""The recipes, in a checkout and in an installed package."""

import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import tfconvbias
from tfconvbias.commands.names import CommandError, unknown
from tfconvbias.training import command_line


def recipe_folder() -> Path:
    """Where the recipes are: in the package once it is built, beside it in a checkout.

    Raises:
        CommandError: If they are in neither place.
    """
    package = Path(tfconvbias.__file__).parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if (folder / "train.py").is_file():
            return folder
    raise CommandError(f"The recipes are neither in {package} nor beside it.")


def recipe_files() -> dict[str, Path]:
    """Name → file of every recipe."""
    return {file.stem: file for file in sorted(recipe_folder().glob("[!_]*.py"))}


def summary(file: Path) -> str:
    """The first sentence of a recipe's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def run_recipe(name: str, arguments: Sequence[str]) -> None:
    """Run a recipe as `python recipes/NAME.py ARGUMENTS` does.

    Raises:
        CommandError: If there is no such recipe.
    """
    files = recipe_files()
    name = name.removesuffix(".py")
    if name not in files:
        unknown("recipe", name, files)
    command_line.started_by = "tcb run"
    sys.argv = [str(files[name]), *arguments]
    runpy.run_path(str(files[name]), run_name="__main__")
