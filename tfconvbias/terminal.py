"""What commands show while they work: bars on a terminal, plain lines elsewhere."""

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

_NOISE = re.compile(
    rb"I\d{4} |E\d{4} .*failed call to cuInit"
    rb"|WARNING: All log messages before absl::InitializeLog|To enable the following instructions"
)


def import_keras() -> None:
    """Import Keras without what TensorFlow prints as it starts, such as instruction sets.

    Only commands do so: what a library's user sees is his own choice. Warnings and errors are still
    shown, and everything is where `TF_CPP_MIN_LOG_LEVEL` is set already.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import keras

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"
    with _without_noise():
        import keras

        if keras.config.backend() == "tensorflow":
            # Looking for graphics cards is an error to it where there are none.
            importlib.import_module("tensorflow").config.list_physical_devices()
            logging.getLogger("tensorflow").addFilter(_is_no_false_alarm)


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """Whether a warning is one: a second model in the same process has to be traced, too."""
    return "triggered tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Leave lines of information out of what is written to the standard error meanwhile.

    Compiled libraries write to the file itself, which Python's `sys.stderr` does not see.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            written.seek(0)
            for line in written:
                if not _NOISE.match(line):
                    os.write(shown, line)
            os.close(shown)


class Bars:
    """The bars that a terminal shows now, the outermost first; elsewhere nothing is drawn.

    A bar that is opened within another one stands below it, and what it advances by advances the
    outer ones too. So all of them count in the same unit, such as epochs.
    """

    def __init__(self) -> None:
        self._drawn: Any = None
        self._tasks: list[Any] = []

    @contextlib.contextmanager
    def open(
        self, text: str, total: float, *, done: float = 0, show: bool = True
    ) -> Iterator[None]:
        """Show a bar meanwhile, with the time that it will still take.

        Args:
            text: What it is about.
            total: Where it ends.
            done: Where it begins.
            show: Whether to show it; without, and where standard output is no terminal, nothing is
                drawn.
        """
        if not show or not sys.stdout.isatty():
            yield
            return
        if self._drawn is None:
            self._drawn = _new_bars()
            self._drawn.start()
        task = self._drawn.add_task(text, total=total, completed=done, detail="")
        self._tasks.append(task)
        try:
            yield
        finally:
            self._tasks.remove(task)
            self._drawn.remove_task(task)
            if not self._tasks:
                self._drawn.stop()
                self._drawn = None

    @contextlib.contextmanager
    def aside(self, text: str, total: float, *, show: bool = True) -> Iterator[Callable]:
        """Show a bar with a unit of its own, which the others do not count; yields its advance."""
        outer, self._tasks = self._tasks, []
        drawn = self._drawn
        self._drawn = None
        if drawn is not None:
            drawn.stop()
        try:
            with self.open(text, total, show=show):
                yield self.advance
        finally:
            self._tasks, self._drawn = outer, drawn
            if drawn is not None:
                drawn.start()

    def advance(self, amount: float = 1, detail: str | None = None) -> None:
        """Move all open bars on.

        Args:
            amount: By how much.
            detail: What to say beside the innermost bar from now on.
        """
        for task in self._tasks:
            self._drawn.advance(task, amount)
        if self._tasks and detail is not None:
            self._drawn.update(self._tasks[-1], detail=detail)

    def leave_out(self, amount: float) -> None:
        """Take off all open bars what was done before, so that it does not count as fast work."""
        for task in self._tasks:
            left = next(t.total for t in self._drawn.tasks if t.id == task) - amount
            self._drawn.update(task, total=left)


def _new_bars() -> Any:
    # Here, since `--help` needs no bars.
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        transient=True,
        # An epoch may take longer than the half minute over which rich measures speed.
        speed_estimate_period=24 * 3600,
    )


bars = Bars()
"""The bars of this process: a terminal has one place for them."""


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> [duration(s) for s in (59.6, 600, 7500)]
        ['60 s', '10 min', '2 h 05 min']
    """
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
