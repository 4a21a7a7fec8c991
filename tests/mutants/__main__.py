"""Mutation testing by sample: `python tests/mutants --modules surgery --sample 20 --seed 1`.

One process imports TensorFlow, Keras and pytest once and forks itself for every mutant, before
anything has computed. The tests run in a copy of the working tree, which holds the mutant on disk,
so that all who read sources (AutoGraph, numba, child processes) see it.
"""

import argparse
import collections
import difflib
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from modules import MODULES  # noqa: E402

if TYPE_CHECKING:
    from sample import Mutant

COPIED = (
    "tfconvbias",
    "tests",
    "recipes",
    "saved_models",
    "pyproject.toml",
    "README.md",
    "setup.py",
)
IMPORTED_ONCE = (
    "tensorflow", "keras", "pytest", "numpy", "scipy.sparse.linalg", "scipy.stats", "h5py",
    "matplotlib.pyplot", "numba", "PIL.Image", "jinja2", "rich.console",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", nargs="+", choices=sorted(MODULES), default=sorted(MODULES))
    parser.add_argument("--sample", type=int, default=20, help="mutants per module")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", default="", help="only files whose path contains this")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument(
        "--again", nargs="+", metavar="TESTS", help="only those that survived, on these tests"
    )
    parser.add_argument("--named", action="store_true", help="the bugs of named.py instead")
    parser.add_argument("--only", nargs="+", default=[""], help="named bugs with these words")
    parser.add_argument("--minutes", type=float, default=600, help="draw no new mutant after these")
    options = parser.parse_args()
    os.environ.update(MPLBACKEND="Agg", TF_CPP_MIN_LOG_LEVEL="3", OPENBLAS_NUM_THREADS="1")
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    gc.freeze()
    options.output.mkdir(parents=True, exist_ok=True)
    stop = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        copy = Path(folder) / "tree"
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name)
            else:
                copy.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        if options.named:
            _try_named(options, copy)
            return
        for name in options.modules:
            _try_module(name, options, copy, stop)


def _try_module(name: str, options: argparse.Namespace, copy: Path, stop: float) -> None:
    from sample import found_again, sample

    module = MODULES[name]
    files = [file for file in module.sources(copy) if options.files in str(file)]
    log = options.output / f"{name}.log"
    answers = options.output / f"{name}-{options.seed}.jsonl"
    if options.again:
        rows = [json.loads(line) for line in answers.read_text().splitlines()]
        mutants = [
            mutant
            for row in rows
            if row["outcome"] == "survived"
            for mutant in found_again(copy, Path(row["file"]), row["operator"])
            if _diff(copy, mutant) == row["diff"]
        ]
        answers = answers.with_suffix(".again.jsonl")
        chosen = dict.fromkeys(mutants, options.again)
        limits = dict.fromkeys(mutants, 900.0)
    else:
        mutants = sample(copy, files, options.sample, options.seed)
        chosen, limits = _own_tests(name, mutants, copy, log)
    counts: collections.Counter[str] = collections.Counter()
    with answers.open("a") as results:
        for mutant in mutants:
            if time.monotonic() > stop:
                counts["not tried"] += 1
                continue
            original = (copy / mutant.file).read_text(encoding="utf-8")
            diff = _diff(copy, mutant)
            _write(copy / mutant.file, mutant.code(original) or "")
            tests = chosen[mutant]
            status, seconds = _forked(lambda t=tests: _run(t), copy, log, limits[mutant], "a")
            _write(copy / mutant.file, original)
            outcome = {0: "survived", None: "killed by time"}.get(status, "killed")
            counts[outcome] += 1
            row = {
                "file": str(mutant.file), "line": mutant.line, "operator": mutant.operator,
                "outcome": outcome, "tests": len(tests), "seconds": round(seconds, 1), "diff": diff,
            }  # fmt: skip
            results.write(json.dumps(row) + "\n")
            results.flush()
            if outcome != "killed":
                print(f"  {outcome} ({len(tests)} tests): {mutant.file}:{mutant.line}", *diff,
                      sep="\n    ", flush=True)  # fmt: skip
    print(f"{name}, seed {options.seed}:", dict(counts), flush=True)


def _own_tests(
    name: str, mutants: list["Mutant"], copy: Path, log: Path
) -> tuple[dict["Mutant", list[str]], dict["Mutant", float]]:
    """For each mutant the tests of its module that run its line, and a limit of their time."""
    from covering import record, tests_of_line

    answer = copy.parent / f"{name}.json"
    files = MODULES[name].test_files(copy)
    status, seconds = _forked(
        lambda: record(files, copy / "tfconvbias", answer), copy, log, 3600, "w"
    )
    if status != 0:
        raise SystemExit(f"{name}: the tests fail without any mutant, see {log}")
    measured = json.loads(answer.read_text())
    print(f"{name}: {len(measured['seconds'])} tests in {seconds:.0f} s", flush=True)
    chosen, limits = {}, {}
    for mutant in mutants:
        source = (copy / mutant.file).read_text(encoding="utf-8")
        chosen[mutant] = tests_of_line(measured, mutant.file, source, mutant.line)
        limits[mutant] = 20 + 4 * sum(measured["seconds"][test] for test in chosen[mutant])
    return chosen, limits


def _diff(copy: Path, mutant: "Mutant") -> list[str]:
    original = (copy / mutant.file).read_text(encoding="utf-8")
    code = mutant.code(original) or ""
    return list(difflib.unified_diff(original.splitlines(), code.splitlines(), n=0))[3:]


def _try_named(options: argparse.Namespace, copy: Path) -> None:
    from named import NAMED

    log = options.output / "named.log"
    log.write_text("")
    for bug in NAMED:
        if any(words in bug.name for words in options.only):
            original = (copy / bug.path).read_text(encoding="utf-8")
            _write(copy / bug.path, bug.code(original))
            status, seconds = _forked(lambda t=bug.tests: _run(list(t)), copy, log, 900, "a")
            _write(copy / bug.path, original)
            outcome = "survived" if status == 0 else "killed"
            print(f"{outcome} after {seconds:.0f} s: {bug.name}", flush=True)


def _write(path: Path, code: str) -> None:
    """Write a source, and forget what was compiled of it before."""
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()
    path.write_text(code, encoding="utf-8")


def _run(tests: list[str]) -> int:
    import pytest
    from covering import QUICK

    return int(pytest.main(["-x", *QUICK, *tests]))


def _forked(
    work: Callable[[], int], folder: Path, log: Path, limit: float, mode: str
) -> tuple[int | None, float]:
    """Do the work in a forked process; its status, or None past `limit` seconds of its time."""
    begin = time.monotonic()
    with log.open(mode) as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            os.chdir(folder)
            sys.path[:] = [str(folder), *(p for p in sys.path if Path(p).resolve() != ROOT)]
            os.environ["PYTHONPATH"] = str(folder)
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
            status = 99
            try:
                status = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - begin
        if ended:
            break
        if seconds > 5 * limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, seconds
        time.sleep(0.05)
    if os.WIFSIGNALED(status):
        return (None if os.WTERMSIG(status) == signal.SIGXCPU else 98), seconds
    return os.WEXITSTATUS(status), seconds


if __name__ == "__main__":
    main()
