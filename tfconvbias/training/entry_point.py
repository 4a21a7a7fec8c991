"""What every recipe calls: command line in, work done, faults that the user can mend as a line."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from tfconvbias import terminal
from tfconvbias.arguments import checked
from tfconvbias.lazy import data
from tfconvbias.optional import MissingPackageError
from tfconvbias.training import command_line
from tfconvbias.training.config import Config
from tfconvbias.training.errors import (
    LostProcessError,
    MissingRunsError,
    RecipeError,
    RunPausedError,
)
from tfconvbias.training.execution import stop_request
from tfconvbias.training.files import refusal, system_error_number

PAUSED_STATUS = 3
"""Exit status of a command that stopped in time and is to be resumed."""

# What only writing ends in: other errors of the system, such as a missing file, may be our fault.
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

_BACKENDS = ("tensorflow", "jax", "torch")

AnyConfig = TypeVar("AnyConfig", bound=Config)


@checked
def main(
    config: AnyConfig,
    run: Callable[[AnyConfig], object],
    *,
    description: str | None,
    demo: Mapping[str, Any] | None = None,
    argv: Sequence[str] | None = None,
    fixed: Collection[str] = (),
) -> None:
    """Parse the options, and run the configuration; errors that the user can mend end as a message.

    Args:
        config: The recipe's configuration.
        run: What runs one configuration and prints its results.
        description: Text of `--help`.
        demo: The fields that `--demo` changes; without any there is no such option.
        argv: Arguments; `sys.argv[1:]` by default.
        fixed: Fields that are no options, since the recipe is about their values.

    Raises:
        SystemExit: With status 2 for a bad option, 1 after an error that the user can mend, 130
            after an interruption, 3 where `max_minutes` ended before the work did.
    """
    chosen = command_line.parse(config, description=description, demo=demo, argv=argv, fixed=fixed)
    command_line.typed = tuple(sys.argv[1:] if argv is None else argv)

    def work() -> None:
        terminal.import_keras()
        run(chosen)

    guarded(work)


@checked
def guarded(work: Callable[[], object]) -> None:
    """Show errors that the user can mend as a message, and leave with status 1.

    Args:
        work: What a recipe does once its options are read.

    Raises:
        SystemExit: As `main`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of folders may hold bytes that the terminal's encoding has no letter for.
            stream.reconfigure(errors="backslashreplace")
    try:
        with stop_on_termination():
            work()
    except LostProcessError as error:
        print(f"error: {error}\nTo continue, in every process:\n  {_resuming()}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # An orderly exit would wait for the process that is no more.
        os._exit(1)
    except MissingRunsError as error:
        _leave(f"{error}\nTo continue:\n  {_resuming()}")
    except (RecipeError, MissingPackageError) as error:
        _leave(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _BACKENDS or "keras" in sys.modules:
            raise
        _leave(
            f"Keras' backend needs the package {error.name}, which is not installed. The "
            f"environment variable KERAS_BACKEND chooses another one: {', '.join(_BACKENDS)}."
        )
    except RunPausedError as pause:
        print(f"{pause} To continue:\n  {_resuming()}")
        raise SystemExit(PAUSED_STATUS) from None
    except KeyboardInterrupt:
        _leave(f"Interrupted. To continue:\n  {_resuming()}", status=130)
    except RuntimeError as error:
        # Asked here, and not in the clause, since `data` imports Keras.
        if not isinstance(error, data.DatasetUnavailableError):
            raise
        program = command_line.program_name()
        _leave(
            f"The data set {error.name!r} is not available: {error.reason}.\n"
            "These commands work without it:\n"
            f"  {program} --demo\n"
            f"  {program} --dataset FOLDER   (images as train/<class>/*, test/<class>/*)"
        )
    except ValueError as error:
        # Of images in files, one that cannot be read is found when all are read.
        if not isinstance(error, data.ImageFolderError):
            raise
        _leave(str(error))
    except OSError as error:
        number = system_error_number(error)
        if number not in _WRITE_ERRORS:
            raise
        _leave(refusal(str(error.filename or "A file"), number))


@contextlib.contextmanager
def stop_on_termination() -> Iterator[None]:
    """Have SIGTERM, with which clusters end a job, stop a training after its epoch.

    The second one ends it at once, as Ctrl-C does. Python handles signals in its main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        if stop_request.is_set():
            raise KeyboardInterrupt
        stop_request.set()
        print("Asked to stop: the epoch under way is finished and stored first.", file=sys.stderr)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        stop_request.clear()


def _resuming() -> str:
    """The command that continues this one."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return f"{command_line.program_name()} {shlex.join([*words, '--resume'])}"


def _leave(message: str, status: int = 1) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
