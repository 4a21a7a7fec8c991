"""Every option of every recipe refuses what it cannot be, in one line that names it."""

import argparse
import re

import pytest
from command_lines import bad_arguments, recipes

from tfconvbias.training import command_line

FOUND = {recipe.name: recipe for recipe in recipes()}


class Refused(Exception):
    """In the place of printing usage, which takes long, and leaving."""


@pytest.fixture(autouse=True)
def _quick_refusal(monkeypatch):
    def error(parser, message):
        raise Refused(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", error)


def fault(recipe, parser, argument):
    """What is wrong with how a command line with a bad argument ends, or `None`."""
    flag = argument.partition("=")[0]
    name = flag.lstrip("-").replace("-", "_")
    try:
        chosen = command_line.chosen(recipe.config, parser, [argument], recipe.options.get("demo"))
    except Refused as refusal:
        message = str(refusal)
        is_clear = re.search(rf"{flag}\b|\b{name}\b", message) and "\n" not in message
        return None if is_clear else f"unclear: {message}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"
    values = {option.name: option.value for option in command_line.options_of(chosen)}
    return f"accepted: {values[name]!r:.60}"


@pytest.mark.parametrize("name", FOUND)
def test_bad_values_are_refused_in_a_line_that_names_the_option(name):
    recipe = FOUND[name]
    parser = recipe.parser()
    options = command_line.options_of(recipe.config)
    wrong = [
        f"{ascii(argument)[:60]}: {found}"
        for option in options
        if option.name not in recipe.options.get("fixed", ())
        for argument in bad_arguments(option)
        if (found := fault(recipe, parser, argument)) is not None
    ]
    assert not wrong, "\n".join(wrong)


def test_thousands_of_command_lines_are_tried():
    tried = [
        argument
        for recipe in FOUND.values()
        for option in command_line.options_of(recipe.config)
        for argument in bad_arguments(option)
    ]
    assert len(tried) > 7000
    assert {"--seed=4294967296", "--learning-rate=nan", "--run-dir=\udcff"} <= set(tried)
