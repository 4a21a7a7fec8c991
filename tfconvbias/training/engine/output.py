"""What a run prints, as a file."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def write_to(log: str) -> None:
    """Send standard output and error of this process to the end of a file."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


@contextlib.contextmanager
def output_in(log: str) -> Iterator[None]:
    """Send what is printed to the end of a file, and then to where it went before."""
    kept = os.dup(1), os.dup(2)
    write_to(log)
    try:
        yield
    finally:
        for stream, number, copy in zip((sys.stdout, sys.stderr), (1, 2), kept, strict=True):
            stream.flush()
            os.dup2(copy, number)
            os.close(copy)
