"""What every recipe calls: command line in, work done, faults that the user can mend as a line."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from tfconvbias import data
from tfconvbias.training import command_line
from tfconvbias.training.config import Config
from tfconvbias.training.errors import RecipeError, RunPausedError

PAUSED_STATUS = 3
"""Exit status of a command that stopped in time and is to be resumed."""

AnyConfig = TypeVar("AnyConfig", bound=Config)


def main(
    config: AnyConfig,
    run: Callable[[AnyConfig], object],
    *,
    description: str | None,
    demo: Mapping[str, Any] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, and run the configuration; errors that the user can mend end as a message.

    Args:
        config: The recipe's configuration.
        run: What runs one configuration and prints its results.
        description: Text of `--help`.
        demo: The fields that `--demo` changes; without any there is no such option.
        argv: Arguments; `sys.argv[1:]` by default.

    Raises:
        SystemExit: With status 2 for a bad option, 1 after an error that the user can mend, 130
            after an interruption, 3 where `max_minutes` ended before the work did.
    """
    chosen = command_line.parse(config, description=description, demo=demo, argv=argv)
    guarded(lambda: run(chosen))


def guarded(work: Callable[[], object]) -> None:
    """Show errors that the user can mend as a message, and leave with status 1.

    Args:
        work: What a recipe does once its options are read.

    Raises:
        SystemExit: As `main`.
    """
    try:
        work()
    except data.DatasetUnavailableError as error:
        program = command_line.program_name()
        _leave(
            f"The data set {error.name!r} is not available: {error.reason}.\n"
            "These commands work without it:\n"
            f"  {program} --demo\n"
            f"  {program} --dataset FOLDER   (images as train/<class>/*, test/<class>/*)"
        )
    except RecipeError as error:
        _leave(str(error))
    except RunPausedError as pause:
        print(pause)
        raise SystemExit(PAUSED_STATUS) from None
    except KeyboardInterrupt:
        _leave("Interrupted. The same command with --resume continues.", status=130)


def _leave(message: str, status: int = 1) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
