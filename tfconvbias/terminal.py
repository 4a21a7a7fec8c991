"""What commands show while they work: bars on a terminal, plain lines elsewhere."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_NOISE = re.compile(
    rb"I\d{4} |WARNING: All log messages before absl::InitializeLog|To enable the following instr"
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
        import keras  # noqa: F401


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


def is_terminal() -> bool:
    """Whether standard output is a terminal, which can show bars and colours."""
    return sys.stdout.isatty()
