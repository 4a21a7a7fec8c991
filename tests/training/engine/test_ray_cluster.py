"""Ray: what is refused before anything starts, and real tasks on a cluster of this machine."""

import builtins
import os
import socket
import sys
import time

import engine_tasks
import pytest

from tfconvbias import training
from tfconvbias.training import ManyRuns, Task


def go(tasks, many, folder, **options):
    kept = training.Kept(verbose="silent")
    return {task.name: reply for task, reply in training.run_tasks(
        tasks, many, kept, folder, **options
    )}  # fmt: skip


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    known = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "ray":
            raise ImportError(name)
        return known(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(training.ConfigError, match=r"tfconvbias\[ray\]"):
        go([], ManyRuns(ray="local"), tmp_path)


def test_an_address_without_a_cluster_is_refused_soon(tmp_path):
    pytest.importorskip("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(training.ConfigError, match=f"Nothing answers there.*{port}"):
            go([], ManyRuns(ray=address), tmp_path)
    with pytest.raises(training.ConfigError, match="HOST:PORT"):
        go([], ManyRuns(ray="somewhere"), tmp_path)
    assert time.monotonic() < began + 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_carries_out_a_graph_with_a_killed_process(tmp_path):
    pytest.importorskip("ray")
    config = engine_tasks.Errand(run_dir=str(tmp_path))
    tasks = [
        Task("killed", engine_tasks.die_once, config, {"name": "killed"}),
        Task("other", engine_tasks.note, config, {"name": "other"}),
        Task("diverged", engine_tasks.diverge, config),
        Task("last", engine_tasks.note, config, {"name": "last", "reads": ("killed", "other")},
             needs=("killed", "other")),
    ]  # fmt: skip
    replies = go(
        tasks, ManyRuns(ray="local"), tmp_path, goes_on_after=(training.TrainingDivergedError,)
    )
    assert str(replies["diverged"].error) == "the loss is NaN"
    assert (tmp_path / "last.done").read_text() == "last(killed()other())"
    begun = (tmp_path / "killed.begun").read_text().splitlines()
    assert begun[0] == "killed" and begun[1].endswith(" True")
    assert begun[1].split()[0] != str(os.getpid())
    with pytest.raises(training.MissingRunsError, match="1 of 1"):
        go([Task("lost", engine_tasks.die, config)], ManyRuns(ray="local", retries=1), tmp_path)
    with pytest.raises(training.ConfigError, match="too few for one run"):
        go(tasks, ManyRuns(ray="local", cpus_per_run=1000), tmp_path)


def test_a_signal_while_ray_starts_is_a_pause(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    ended = []
    # Ray's own handler of SIGTERM, which it sets first of all, leaves by this.
    monkeypatch.setattr(ray, "init", lambda **_: sys.exit(15))
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    with pytest.raises(training.RunPausedError, match="while Ray was starting"):
        go([], ManyRuns(ray="local"), tmp_path)
    assert ended
