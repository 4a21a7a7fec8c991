"""Recipes that are killed at a chosen write or after a chosen time, and what they leave behind.

`Launcher` starts a server, which imports the library once and forks a process for every command.
In that process each write into the work's folder is a numbered point: before a file is opened for
writing, when half of its text is in it, before it is synced, before and after it is renamed, before
it is removed. At the chosen point the process kills itself with SIGKILL. The library knows nothing
of this: the points come from Python's audit events and from wrapped functions of this process.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_LONGEST = 300


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        status: Exit status; that of a killed process is the signal's number, negated.
        points: What was about to be written, in order.
        seconds: Time that it took.
        output: What it printed.
    """

    status: int
    points: list[str]
    seconds: float
    output: str


class Launcher:
    """Runs recipes in forked processes, as a context."""

    def __enter__(self) -> "Launcher":
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "MPLBACKEND": "Agg",
        }
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(
        self,
        recipe: str,
        argv: list[str],
        folder: Path,
        kill_at: int | None = None,
        kill_after: float | None = None,
    ) -> Ended:
        """Run a recipe in a folder, with `work` in it as the folder of its results.

        Args:
            recipe: Its name.
            argv: Its options, but for `--run-dir`.
            folder: Working directory.
            kill_at: Number of the point at which the process kills itself, counted from 0.
            kill_after: Seconds after which it is killed.
        """
        order = {
            "argv": [str(ROOT / "recipes" / f"{recipe}.py"), *argv, "--run-dir", "work"],
            "folder": str(folder),
            "kill_at": kill_at,
            "kill_after": kill_after,
        }
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))


def numbers_of(folder: Path) -> dict[str, Any]:
    """All that a piece of work found, by file: tables and rows without times, weights as digests.

    Logs, pages, figures and descriptions of the machine are left out; of pages and figures only
    their being there counts.
    """
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_dir() or re.search(r"(^|/)(tensorboard|logs|scripts)/", name):
            continue
        if file.name in ("lock", "environment.json", "oracle.json", "tuner0.json"):
            continue
        if file.suffix == ".json":
            found[name] = _without_times(json.loads(file.read_text(encoding="utf-8")))
        elif file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8") as stream:
                found[name] = [_without_times(row) for row in csv.DictReader(stream)]
        elif file.suffix == ".keras":
            found[name] = _weights(io.BytesIO(zipfile.ZipFile(file).read("model.weights.h5")))
        elif file.name.endswith(".h5"):
            found[name] = _weights(file)
        elif file.suffix == ".npz":
            found[name] = _arrays(file)
        else:
            found[name] = "there"
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The files in which two works differ."""
    return [
        f"{name}: {_shortened(one.get(name))} -> {_shortened(other.get(name))}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:150]} … {text[-150:]}"


# Seals hold digests of files, whose bytes may differ where their arrays do not.
_TIME = re.compile(
    r"^seal$|^sha256$|^history$|seconds|minutes|milliseconds|_ms$|latency|speed|images_per|date|start"
)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_times(part) for key, part in value.items() if not _TIME.search(str(key))
        }
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def _weights(file: Any) -> dict[str, str]:
    import h5py

    found = {}
    with h5py.File(file) as opened:
        opened.visititems(
            lambda name, item: (
                found.update({name: hashlib.sha256(item[()].tobytes()).hexdigest()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def _arrays(file: Path) -> dict[str, str]:
    import numpy as np

    with np.load(file) as opened:
        return {name: hashlib.sha256(opened[name].tobytes()).hexdigest() for name in opened.files}


class _Points:
    """Counts the writes into a folder, and ends the process at one of them."""

    def __init__(self, folder: Path, kill_at: int | None, record: int):
        self.folder = os.path.realpath(folder)
        self.kill_at = kill_at
        self.record = record
        self.count = 0

    def reach(self, kind: str, path: Any) -> None:
        """One point; those of other places do not count."""
        try:
            place = os.path.realpath(os.fspath(path))
        except (TypeError, ValueError):
            return
        if not place.startswith(self.folder + os.sep) or place.endswith("/lock"):
            return
        name = os.path.relpath(place, self.folder)
        os.write(self.record, f"{kind} {name}\n".encode())
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def install(self) -> None:
        sys.addaudithook(self._audit)
        sync, replace, write_text = os.fsync, os.replace, Path.write_text

        def fsync(descriptor):
            self.reach("sync", Path(f"/proc/self/fd/{descriptor}").readlink())
            return sync(descriptor)

        def replacing(source, target, **options):
            replace(source, target, **options)
            self.reach("renamed", target)

        def writing(path, text, *args, **options):
            with path.open("w", encoding="utf-8") as stream:
                stream.write(text[: len(text) // 2])
                stream.flush()
                self.reach("half of", path)
            return write_text(path, text, *args, **options)

        os.fsync, os.replace, Path.write_text = fsync, replacing, writing
        os.rename = replacing
        self._install_tensorflow()

    def _install_tensorflow(self) -> None:
        """KerasTuner writes with TensorFlow's files, of which Python sees nothing."""
        import tensorflow as tf

        points = self

        class File(tf.io.gfile.GFile):
            def write(self, text):
                points.reach("open", self.name)
                super().write(text[: len(text) // 2])
                self.flush()
                points.reach("half of", self.name)
                super().write(text[len(text) // 2 :])

        tf.io.gfile.GFile = File

    def _audit(self, event: str, details: tuple) -> None:
        if event == "open" and isinstance(details[2], int) and details[2] & os.O_ACCMODE:
            self.reach("open", details[0])
        elif event == "os.rename":
            self.reach("rename to", details[1])
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            self.reach(event.removeprefix("os."), details[0])


def _child(order: dict[str, Any], record: int, output: int) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(order["folder"])
    sys.argv = order["argv"]
    _Points(Path("work").absolute(), order["kill_at"], record).install()
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _ended(order: dict[str, Any]) -> Ended:
    with tempfile.TemporaryFile() as record, tempfile.TemporaryFile() as output:
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(order, record.fileno(), output.fileno())
        longest = order["kill_after"] or _LONGEST
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - begun > longest:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)
        seconds = time.monotonic() - begun
        texts = []
        for file in (record, output):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(os.waitstatus_to_exitcode(status), texts[0].splitlines(), seconds, texts[1])


def _serve() -> None:
    """Answer orders, lines of JSON, by lines of JSON; nothing else is to be printed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Imported before the first fork, and computing nothing: TensorFlow has no threads then.
    import keras_tuner  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import tensorflow  # noqa: F401

    import tfconvbias
    import tfconvbias.training.recorder  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_ended(json.loads(line))._asdict()), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
