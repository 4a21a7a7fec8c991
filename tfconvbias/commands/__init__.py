"""The command `tcb`: what there is, and recipes, reports and comparisons by name."""

import sys
from collections.abc import Sequence

from tfconvbias.commands.requirements import print_requirements

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command of `tcb`.

    Args:
        argv: Arguments; `sys.argv[1:]` by default.

    Raises:
        SystemExit: With status 2 for a bad option, 1 where a package is missing, else as
            `training.main`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["requirements"]:
        print_requirements(words[1:])
        return
    try:  # Only now, since it needs the dependencies that `tcb requirements` is asked for.
        from tfconvbias.commands.main import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tfconvbias"):
            raise
        sys.exit(
            f"error: the package {error.name} is missing. To install what is needed without "
            "TensorFlow: pip install $(tcb requirements core jax), or: core torch"
        )
    run(words)
