"""Strategies on virtual JAX devices, and in two processes of which one is killed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

SCRIPT = Path(__file__).with_name("device_runs.py")


def start(asked, backend, **environment):
    root = str(SCRIPT.parents[2])
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": root,
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(asked)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes, seconds=900):
    for process in processes:
        text, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, text


def one_device(tmp_path, backend, **changes):
    out = tmp_path / "one.json"
    asked = {"rows": [{"run_dir": str(tmp_path / "one"), **changes}], "out": str(out)}
    finish(start(asked, backend))
    return json.loads(out.read_text())[0]


def assert_same(found, expected, rtol=1e-4):
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(found["history"][name], expected["history"][name], rtol=rtol)
    assert found["test_loss"] == pytest.approx(expected["test_loss"], rel=rtol)
    assert found["support"] == expected["support"]
    assert 0 < found["nonzero"] < 192 * 128 + 128 * 192 + 192 * 3


def test_jax_devices_give_the_numbers_of_one(tmp_path):
    random = {"augment": "flip_crop", "dropout_rate": 0.2}
    rows = [
        {"run_dir": str(tmp_path / "one"), **random},
        *(
            {"strategy": "data_parallel", "num_devices": n, "run_dir": str(tmp_path / str(n))}
            | random
            for n in (2, 4)
        ),
        {"strategy": "model_parallel", "run_dir": str(tmp_path / "parts")} | random,
        {"strategy": "model_parallel", "num_shards": 2, "run_dir": str(tmp_path / "both")} | random,
    ]
    out = tmp_path / "out.json"
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    finish(start({"rows": rows, "out": str(out)}, "jax", XLA_FLAGS=flags))
    one, *others = json.loads(out.read_text())
    for other in others:
        assert_same(other, one)


def cluster():
    """The environment of each of two processes that find each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
        }
        for index in (0, 1)
    ]


def kill(victim, asked, epoch, **environment):
    """Kill one of two processes after an epoch; how the other one ends, and what it says."""
    places = cluster()
    processes = [
        start(asked | ({"die_after": epoch} if i == victim else {}), "jax", **place, **environment)
        for i, place in enumerate(places)
    ]
    processes[victim].communicate(timeout=900)
    assert processes[victim].returncode == -9
    text, _ = processes[1 - victim].communicate(timeout=300)
    return processes[1 - victim].returncode, text


def test_two_processes_give_the_numbers_of_one_whichever_is_killed(tmp_path):
    expected = one_device(tmp_path, "jax")
    folder = tmp_path / "two"
    strategy = {"strategy": "data_parallel", "run_dir": str(folder)}
    out = tmp_path / "two.json"
    asked = {"rows": [strategy], "out": str(out)}

    status, text = kill(1, asked, 1)
    assert status == 1, text
    assert "Another process of this run has ended" in text
    # Two devices in each process, and 25 images to measure on.
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    status, text = kill(0, asked, 2, XLA_FLAGS=flags)
    assert status != 0
    assert not (folder / "result.json").exists()

    alone = start({**asked, "rows": [{"run_dir": str(folder)}], "die_after": 3}, "jax")
    alone.communicate(timeout=900)
    assert alone.returncode == -9
    assert {file.name for file in folder.glob("checkpoint-*.h5")} == {
        "checkpoint-2.weights.h5",
        "checkpoint-3.weights.h5",
    }
    finish(*(start(asked, "jax", **place) for place in cluster()))
    found = json.loads(out.read_text())[0]
    assert_same(found, expected)
    assert found["history"]["epoch"] == [1, 2, 3, 4]
