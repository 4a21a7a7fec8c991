"""What is begun when, what is tried again, and what is said of the rest; no process is started."""

import pickle
import time

import engine_tasks
import pytest

from tfconvbias import data, training
from tfconvbias.training import MissingRunsError, RunPausedError, Task, TrainingDivergedError
from tfconvbias.training.engine import schedule
from tfconvbias.training.engine.task import Order, Reply, Workplace, execute_apart

DONE = Reply(finished=training.Finished("done"), seconds=1.0)
LOST = Reply(lost="its process was ended by SIGKILL")


class Pretended:
    """An executor that answers each order with what it was given for the task, one at a time."""

    shares_memory = True

    def __init__(self, num_slots, **replies):
        self.num_slots = num_slots
        self.replies = {name: list(found) for name, found in replies.items()}
        self.running = []
        self.begun = []
        self.events = []

    def submit(self, order):
        assert len(self.running) < self.num_slots
        self.running.append(order.task.name)
        self.begun.append((order.task.name, order.is_retry, len(self.running)))

    def wait(self):
        name = self.running.pop(0)
        found = self.replies.get(name)
        return [(name, found.pop(0) if found else DONE)]

    def stop(self):
        self.events.append("stop")

    def close(self):
        self.events.append("close")


@pytest.fixture
def go(monkeypatch, tmp_path):
    def run(executor, tasks, retries=2, **options):
        monkeypatch.setattr(schedule, "Processes", lambda num: executor)
        many = training.ManyRuns(jobs=2, retries=retries)
        kept = training.Kept(run_dir=str(tmp_path), verbose="line")
        return [task.name for task, _ in training.run_tasks(tasks, many, kept, tmp_path, **options)]

    return run


def graph(**needs):
    config = engine_tasks.Errand()
    return [
        Task(name, engine_tasks.note, config, needs=tuple(found.split()))
        for name, found in needs.items()
    ]


def test_a_task_begins_after_those_that_it_needs(go):
    executor = Pretended(2)
    assert go(executor, graph(a="", b="a", c="", d="b c")) == ["a", "c", "b", "d"]
    assert [name for name, _, _ in executor.begun] == ["a", "c", "b", "d"]
    assert executor.events == ["close"]


def test_a_lost_task_goes_on_and_its_last_attempt_is_alone(go, capsys):
    executor = Pretended(2, a=[LOST, LOST])
    assert sorted(go(executor, graph(a="", b="", c="", d=""))) == list("abcd")
    attempts = [(is_retry, beside) for name, is_retry, beside in executor.begun if name == "a"]
    assert attempts == [(False, 1), (True, 2), (True, 1)]
    last = max(i for i, (name, _, _) in enumerate(executor.begun) if name == "a")
    assert all(beside == 1 for _, _, beside in executor.begun[last : last + 2])
    assert "SIGKILL. It is continued when no other run is at work." in capsys.readouterr().out


def test_what_is_given_up_is_named_with_all_that_needs_it(go):
    executor = Pretended(2, a=[LOST] * 3)
    with pytest.raises(MissingRunsError, match="3 of 4 runs are missing") as caught:
        go(executor, graph(a="", b="a", c="b", d=""))
    lines = str(caught.value).splitlines()
    assert "SIGKILL, 3 times in all" in lines[1] and lines[1].endswith("a.log")
    assert lines[2:] == ["  b: it needs a", "  c: it needs b"]
    assert [name for name, _, _ in executor.begun].count("d") == 1


def test_without_retries_nothing_is_tried_again(go):
    executor = Pretended(2, a=[LOST])
    with pytest.raises(MissingRunsError, match="1 of 1"):
        go(executor, graph(a=""), retries=0)


def test_an_error_ends_the_study_and_the_others_store_their_state(go):
    pause = Reply(error=RunPausedError("asked to end"))
    executor = Pretended(2, a=[Reply(error=ZeroDivisionError("a fault"), details="Traceback …")],
                         b=[pause])  # fmt: skip
    with pytest.raises(ZeroDivisionError) as caught:
        go(executor, graph(a="", b="", c=""))
    assert "Traceback …" in str(caught.value.__cause__)
    assert executor.events == ["stop", "close"]
    assert [name for name, _, _ in executor.begun] == ["a", "b"]


def test_an_error_of_one_task_alone_is_handed_on(go):
    executor = Pretended(2, a=[Reply(error=TrainingDivergedError("NaN"))])
    assert go(executor, graph(a="", b="a"), goes_on_after=(TrainingDivergedError,)) == ["a", "b"]


def test_a_task_lost_while_the_study_stops_is_not_counted_as_missing(go):
    executor = Pretended(2, a=[Reply(error=RunPausedError("asked to end"))], b=[LOST])
    with pytest.raises(RunPausedError, match="asked to end"):
        go(executor, graph(a="", b="", c=""))


def test_graphs_that_make_no_sense_are_refused(go):
    for tasks in (graph(a="b", b=""), graph(a="") * 2):
        with pytest.raises(ValueError, match="'a'"):
            go(Pretended(2), tasks)


def test_images_of_the_caller_do_not_reach_other_processes(go, tiny_dataset):
    with pytest.raises(training.ConfigError, match="leave jobs at 1"):
        go(Pretended(2), graph(a=""), dataset=tiny_dataset)


@pytest.mark.parametrize(
    "values",
    [{"jobs": 0}, {"cpus_per_run": 0}, {"gpus_per_run": -1.0}, {"retries": -1},
     {"jobs": 2, "ray": "local"}],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(values):
    with pytest.raises(training.ConfigError, match=next(iter(values))):
        training.ManyRuns(**values)


def test_what_the_running_script_defines_is_refused(tmp_path):
    class Local(training.Kept):
        pass

    with pytest.raises(ValueError, match="of a module"):
        Task("a", engine_tasks.note, Local())
    kind = type("Script", (training.Kept,), {"__module__": "__main__"})
    order = Order(Task("a", engine_tasks.note, kind()), training.Deadline(None), "log")
    with pytest.raises(training.ConfigError, match="Script stands in the script"):
        order.packed()


def test_a_deadline_is_the_same_moment_in_another_process(monkeypatch):
    packed = pickle.dumps(training.Deadline(1.0))
    # Another process' clock counts from another moment; half a minute has passed.
    counter, now = time.perf_counter(), time.time()
    monkeypatch.setattr(time, "perf_counter", lambda: counter + 5000)
    monkeypatch.setattr(time, "time", lambda: now + 30)
    deadline = pickle.loads(packed)
    assert deadline.is_over(31) and not deadline.is_over(29)
    assert "max_minutes=1 are over" in deadline.reason
    assert not pickle.loads(pickle.dumps(training.Deadline(None))).is_over(1e9)


def test_errors_reach_the_parent_as_they_are():
    unavailable = data.DatasetUnavailableError("svhn", "no network")
    found = pickle.loads(Reply(error=unavailable).packed()).error
    assert (found.name, found.reason) == ("svhn", "no network")

    class Local(Exception):
        pass

    found = pickle.loads(Reply(error=Local("odd")).packed()).error
    assert isinstance(found, RuntimeError) and "Local: odd" in str(found)


def test_lack_of_memory_counts_as_a_lost_process():
    config = engine_tasks.Errand()
    place, deadline = Workplace(training.Deadline(None)), training.Deadline(None)
    lacking = Task("a", engine_tasks.lack_memory, config)
    reply = execute_apart(Order(lacking, deadline, "log"), place)
    assert reply.error is None and "ran out of memory" in reply.lost
    failing = Task("a", engine_tasks.fail, config)
    assert isinstance(
        execute_apart(Order(failing, deadline, "log"), place).error, ZeroDivisionError
    )
