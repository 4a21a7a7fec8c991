import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from conftest import TINY, tiny_dataset
from tfconvbias.tuning import SearchConfig, SearchError, SGDHyperModel, search

folder, hangs = Path(sys.argv[1]), sys.argv[2] == "hangs"
if hangs:
    def hang(self, *args, **kwargs):
        (folder / "hanging").touch()
        time.sleep(600)
    SGDHyperModel.fit = hang
config = SearchConfig().replace(**{{**TINY, "epochs": 1, "run_dir": str(folder / "search"),
                          "worker_timeout": float(sys.argv[3])}})
try:
    results = search(config, tiny_dataset())
except SearchError as error:
    print("search error:", error)
    sys.exit(3)
if results is not None:
    print(results.table())
"""


@pytest.fixture
def start(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = WORKER.format(here=str(Path(__file__).parent))
    started = []

    def run(name, behaviour="works", timeout=20.0):
        environment = os.environ | {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
            "CUDA_VISIBLE_DEVICES": "",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), behaviour, str(timeout)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:
            process.kill()


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_two_workers_share_a_search(start):
    chief, ann, bob = start("chief"), start("ann"), start("bob")
    output, errors = chief.communicate(timeout=240)
    assert chief.returncode == 0, errors
    assert output.count("completed") == 4
    for worker in (ann, bob):
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors


@pytest.mark.slow
def test_a_worker_that_is_killed_does_not_hang_the_chief(start, tmp_path):
    chief, ann, bob = start("chief"), start("ann"), start("bob", "hangs")
    wait_for((tmp_path / "hanging").exists, 120)
    bob.send_signal(signal.SIGKILL)
    output, errors = chief.communicate(timeout=240)
    assert chief.returncode == 0, errors
    assert output.count("completed") == 4
    assert "Worker bob fell silent" in errors
    ann.communicate(timeout=60)
    assert ann.returncode == 0


@pytest.mark.slow
def test_a_chief_without_workers_left_stops(start, tmp_path):
    chief, bob = start("chief", timeout=8.0), start("bob", "hangs", timeout=8.0)
    wait_for((tmp_path / "hanging").exists, 120)
    bob.send_signal(signal.SIGKILL)
    output, _ = chief.communicate(timeout=120)
    assert chief.returncode == 3
    assert "All workers fell silent" in output


@pytest.mark.slow
def test_a_worker_whose_chief_is_killed_stops_and_the_search_goes_on(start, tmp_path):
    chief, ann = start("chief"), start("ann")
    wait_for((tmp_path / "search" / "trials" / "trial_0000" / "trial.json").exists, 120)
    chief.send_signal(signal.SIGKILL)
    output, errors = ann.communicate(timeout=60)
    assert ann.returncode == 3, errors
    assert "chief does not answer" in output
    assert "Traceback" not in errors
