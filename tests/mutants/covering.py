"""Which tests run which line, and how long each test takes: measured once, before all mutants."""

import ast
import json
import time
from pathlib import Path

import coverage
import pytest

QUICK = ("-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""How pytest runs in a process that is forked for one mutant: with no more than tests need."""


class Recorder:
    """A pytest plugin that files the lines run under the test that ran them.

    What a fixture of a whole file runs is filed under the file: each of its tests may need it.
    """

    def __init__(self, measure: coverage.Coverage) -> None:
        self.measure = measure
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        self.measure.switch_context(item.nodeid)
        begin = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - begin
        self.measure.switch_context("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        test = request._pyfuncitem.nodeid
        self.measure.switch_context(test.split("::")[0])
        result = yield
        self.measure.switch_context(test)
        return result


def record(tests: list[str], package: Path, answer: Path) -> int:
    """Run the tests in this process, and write down their lines and times."""
    measure = coverage.Coverage(data_file=None, include=[f"{package}/*"], config_file=False)
    recorder = Recorder(measure)
    measure.start()
    status = pytest.main([*QUICK, *tests], plugins=[recorder])
    measure.stop()
    data = measure.get_data()
    lines = {
        str(Path(file).relative_to(package.parent)): data.contexts_by_lineno(file)
        for file in data.measured_files()
    }
    answer.write_text(json.dumps({"lines": lines, "seconds": recorder.seconds}))
    return int(status)


def tests_of_line(measured: dict, file: Path, source: str, line: int) -> list[str]:
    """The tests that run a line, shortest first; all where the line runs on import or nowhere."""
    lines = measured["lines"].get(str(file), {})
    contexts = {name for at in _statement(source, line) for name in lines.get(str(at), [])}
    seconds = measured["seconds"]
    if not contexts or contexts == {""}:
        chosen = list(seconds)
    else:
        files = {name for name in contexts if "::" not in name}
        chosen = [name for name in seconds if name in contexts or name.split("::")[0] in files]
    return sorted(chosen, key=lambda name: seconds[name])


def _statement(source: str, line: int) -> range:
    """The lines which run when this one does: its statement, or a function whose head holds it."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            body = getattr(node, "body", None)
            if not body:
                best = range(node.lineno, node.end_lineno + 1)
            elif line < body[0].lineno:
                is_function = isinstance(node, ast.FunctionDef)
                first = body[0].lineno if is_function else node.lineno
                best = range(first, node.end_lineno + 1 if is_function else body[0].lineno)
    return best
