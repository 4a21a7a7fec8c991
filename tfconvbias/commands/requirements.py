"""`tcb requirements`: what pip is to install for chosen extras.

It is the first command after `pip install --no-deps`, when none of the package's dependencies is
there: this file and what it imports need the standard library alone.
"""

import argparse
import difflib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires

HELP = "what pip is to install for chosen extras"


def print_requirements(words: Sequence[str]) -> None:
    """Print the requirements of extras, one line each.

    Args:
        words: What follows `tcb requirements`.

    Raises:
        SystemExit: With status 2 for a bad option, 1 for an unknown extra or without an installed
            package.
    """
    parser = argparse.ArgumentParser(prog="tcb requirements", description=HELP)
    add_arguments(parser)
    try:
        print("\n".join(requirements(parser.parse_args(words).extras)))
    except LookupError as error:
        parser.exit(1, f"error: {error.args[0]}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tcb requirements`."""
    parser.add_argument("extras", nargs="+", metavar="EXTRA", help="such as core, jax, tuner")


def requirements(extras: Sequence[str]) -> list[str]:
    """The requirements of extras, from the installed package's own metadata.

    Raises:
        LookupError: If the package is not installed, or has no such extra.
    """
    try:
        lines = requires("tfconvbias") or []
    except PackageNotFoundError:
        raise LookupError("tfconvbias is not installed, only found on the path.") from None
    by_extra: dict[str, list[str]] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        name = marker.partition("extra ==")[2].strip().strip("'\"")
        if name:
            by_extra.setdefault(name, []).append(requirement.strip())
    for extra in extras:
        if extra not in by_extra:
            near = difflib.get_close_matches(extra, by_extra, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(by_extra)}."
            raise LookupError(f"There is no extra {extra!r}.{hint}")
    return list(dict.fromkeys(line for extra in extras for line in by_extra[extra]))
