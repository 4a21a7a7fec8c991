"""Tasks in processes of their own, which are killed, fail, and are told to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_tasks
import pytest

from tfconvbias import training
from tfconvbias.training import Task

HERE = Path(__file__).parent
STUDY = """
import sys
import engine_tasks
from tfconvbias import training

config = engine_tasks.Errand(run_dir=sys.argv[1])
tasks = [
    training.Task("first", engine_tasks.note, config, {"name": "first"}),
    *(training.Task(name, engine_tasks.linger, config, {"name": name}) for name in ("one", "two")),
]

def study(config):
    for _ in training.run_tasks(tasks, training.ManyRuns(jobs=2), config, config.run_dir):
        pass

if __name__ == "__main__":
    training.guarded(lambda: study(config))
"""


def test_a_killed_process_is_replaced_and_the_study_goes_on(tmp_path, capsys):
    config = engine_tasks.Errand(run_dir=str(tmp_path))
    tasks = [
        Task("killed", engine_tasks.die_once, config, {"name": "killed"}),
        Task("other", engine_tasks.note, config, {"name": "other"}),
        Task("diverged", engine_tasks.diverge, config),
        Task(
            "last",
            engine_tasks.note,
            config,
            {"name": "last", "reads": ("killed", "other")},
            needs=("killed", "other"),
        ),
    ]
    many = training.ManyRuns(jobs=2)
    ended = training.run_tasks(
        tasks, many, config, tmp_path, goes_on_after=(training.TrainingDivergedError,)
    )
    replies = {task.name: reply for task, reply in ended}
    assert replies.keys() == {"killed", "other", "diverged", "last"}
    assert str(replies["diverged"].error) == "the loss is NaN"
    assert (tmp_path / "last.done").read_text() == "last(killed()other())"
    begun = (tmp_path / "killed.begun").read_text().splitlines()
    # The second attempt resumes what the first one has left.
    assert begun[0] == "killed" and begun[1].endswith(" True")
    processes = {(tmp_path / f"{n}.begun").read_text().split()[-2] for n in ("other", "last")}
    assert str(os.getpid()) not in processes | {begun[1].split()[0]}
    shown = capsys.readouterr().out
    assert "killed: its process was ended by SIGKILL, perhaps since memory ran out" in shown
    assert "[4/4] last: last" in shown


@pytest.mark.slow
def test_what_is_lost_too_often_is_missing_and_faults_come_as_they_are(tmp_path):
    config = engine_tasks.Errand(run_dir=str(tmp_path))
    many = training.ManyRuns(jobs=2, retries=1)

    def go(*tasks):
        return list(training.run_tasks(tasks, many, config, tmp_path))

    lost = Task("lost", engine_tasks.die, config)
    other = Task("other", engine_tasks.note, config, {"name": "other"})
    with pytest.raises(training.MissingRunsError, match="1 of 2 runs is missing"):
        go(lost, other)
    assert (tmp_path / "other.done").exists()
    with pytest.raises(training.ConfigError, match=r"^width must be even$"):
        go(Task("refused", engine_tasks.refuse, config))
    with pytest.raises(ZeroDivisionError, match="a fault") as caught:
        go(Task("faulty", engine_tasks.fail, config))
    assert "engine_tasks.py" in str(caught.value.__cause__)


@pytest.fixture
def study(tmp_path):
    """A study in a process of its own, two of whose runs go on until they are told to stop."""
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    (tmp_path / "runs").mkdir()
    path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    driver = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "runs")],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while len(workers(tmp_path)) < 2:
        assert driver.poll() is None and time.monotonic() < began + 120, driver.communicate()
        time.sleep(0.1)
    yield driver
    driver.kill()
    driver.communicate()


def workers(folder):
    files = [folder / "runs" / f"{name}.begun" for name in ("one", "two")]
    return [int(file.read_text()) for file in files if file.exists() and file.read_text()]


def wait_until_gone(processes):
    began = time.monotonic()
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < began + 20
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_the_processes_of_a_killed_study_end(study, tmp_path):
    study.send_signal(signal.SIGKILL)
    wait_until_gone(workers(tmp_path))
    assert not (tmp_path / "runs" / "one.stored").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_study_that_is_told_to_stop_stores_its_runs(study, tmp_path):
    study.send_signal(signal.SIGTERM)
    shown, _ = study.communicate(timeout=60)
    assert study.returncode == training.PAUSED_STATUS
    assert "the process was asked to end" in shown and "--resume" in shown
    assert all((tmp_path / "runs" / f"{name}.stored").exists() for name in ("one", "two"))
    wait_until_gone(workers(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_an_interrupted_study_ends_at_once(study, tmp_path):
    study.send_signal(signal.SIGINT)
    study.communicate(timeout=60)
    assert study.returncode == 130
    wait_until_gone(workers(tmp_path))


ONE_PROCESS = """
import sys
import engine_tasks
from tfconvbias import training

training.compare(engine_tasks.trainings(), sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.tensorflow
def test_two_processes_find_what_one_finds(tmp_path, monkeypatch):
    # The number of threads decides in which order sums are rounded.
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))
    command = [sys.executable, "-c", ONE_PROCESS, str(tmp_path / "one")]
    subprocess.run(command, check=True, capture_output=True)
    rows, many = engine_tasks.trainings(), training.ManyRuns(jobs=2)
    two, _ = training.compare(rows, tmp_path / "two", many=many)
    assert list(two) == list(rows)
    for name in rows:
        one, other = ((tmp_path / folder / name) for folder in ("one", "two"))
        assert _without_times(one / "result.json") == _without_times(other / "result.json")
        histories = [training.RunFolder(folder).history() for folder in (one, other)]
        for history in histories:
            history.pop("seconds"), history.pop("train_seconds")
        assert histories[0] == histories[1]
    written = [(tmp_path / "two" / name / "result.json").stat().st_mtime_ns for name in rows]
    training.compare(rows, tmp_path / "two", many=many)
    again = [(tmp_path / "two" / name / "result.json").stat().st_mtime_ns for name in rows]
    assert again == written


def _without_times(file):
    return [line for line in file.read_bytes().splitlines() if b'"seconds"' not in line]
