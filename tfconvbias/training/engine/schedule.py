"""Which task is next, which is tried again, and what is left when nothing can go on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tfconvbias.arguments import checked
from tfconvbias.lazy import data
from tfconvbias.terminal import bars
from tfconvbias.training.devices import PROCESS_VARIABLES
from tfconvbias.training.engine.in_process import InProcess
from tfconvbias.training.engine.options import ManyRuns
from tfconvbias.training.engine.processes import Processes
from tfconvbias.training.engine.progress import Progress
from tfconvbias.training.engine.ray_cluster import RayCluster
from tfconvbias.training.engine.task import Order, Reply, Task
from tfconvbias.training.errors import ConfigError, MissingRunsError, RecipeError, RunPausedError
from tfconvbias.training.execution import Deadline, Kept, stop_request
from tfconvbias.training.run_folder import LOGS
from tfconvbias.training.slug import slug


class Executor(Protocol):
    """What carries orders out."""

    num_slots: int
    """How many tasks can be under way."""
    shares_memory: bool
    """Whether all tasks share one machine's memory, so that fewer at a time leave more to each."""

    def submit(self, order: Order) -> None:
        """Begin an order, and return at once."""

    def wait(self) -> list[tuple[str, Reply]]:
        """The replies that have come, by the names of their tasks; none after half a second."""

    def stop(self) -> None:
        """Ask the runs under way to store their state and end."""

    def close(self) -> None:
        """End all processes, whatever they do."""


class _TracebackElsewhereError(Exception):
    """The cause of an error that another process raised: the traceback there."""

    def __str__(self):
        return f"\n\n{self.args[0]}"


@checked
def run_tasks(
    tasks: Sequence[Task],
    many: ManyRuns,
    kept: Kept,
    folder: str | Path,
    *,
    deadline: Deadline | None = None,
    dataset: data.ImageDataset | None = None,
    goes_on_after: tuple[type[Exception], ...] = (),
) -> Iterator[tuple[Task, Reply]]:
    """Carry tasks out, each after those that it needs, and yield each one as it ends.

    With `many.jobs` or `many.ray` other processes carry them out. A process that is killed or runs
    out of memory is replaced, and its task continued from its run folder, `many.retries` times;
    on one machine the last time with no other run beside it. After an error no task is begun, and
    those under way store their state first. If the caller stops early, they are ended at once.

    Args:
        tasks: In the order in which they are begun where they need nothing that is not done.
        many: How many at a time, and where.
        kept: Says what to show.
        folder: The study's folder; what runs print in other processes goes into its `logs/`.
        deadline: When to stop; by default `kept.max_minutes` from now on.
        dataset: Images that stand for those of every configuration, where the caller has loaded
            them already; for this process only.
        goes_on_after: Errors that concern one task alone; they are yielded with it.

    Raises:
        ConfigError: If `dataset` is given and other processes are asked for, Ray is not installed
            or not found, or the environment asks for processes that train one run together.
        MissingRunsError: If processes of some tasks were lost too often; all others are done.
        RunPausedError: If the time was over before the last task.
        ValueError: If two tasks have one name, or one needs a task that does not stand before it.
    """
    _check(tasks)
    if dataset is not None and not many.is_in_process:
        raise ConfigError(
            "Images that the caller has loaded do not reach other processes; leave jobs at 1 and "
            f"ray at none. Received: jobs={many.jobs}, ray={many.ray!r}"
        )
    if os.environ.get(PROCESS_VARIABLES[1], "1") != "1":
        raise ConfigError(
            "Several processes train one run together, and not the runs of a study: use ray, or "
            f"unset the environment variables {', '.join(PROCESS_VARIABLES)}."
        )
    deadline = deadline or kept.deadline()
    executor: Executor
    if many.ray is not None:
        executor = RayCluster(many)
    elif many.jobs > 1:
        executor = Processes(many.jobs)
    else:
        executor = InProcess(deadline, dataset)
    epochs = sum(task.epochs for task in tasks)
    show = len(tasks) > 1 and kept.shown_as == "bar"
    with (
        bars.open(f"all {len(tasks)} runs", epochs, show=show),
        _Schedule(tasks, many, kept, Path(folder) / LOGS, deadline, executor) as schedule,
    ):
        yield from schedule.run(goes_on_after)


class _Schedule:
    """The state of a graph of tasks."""

    def __init__(
        self,
        tasks: Sequence[Task],
        many: ManyRuns,
        kept: Kept,
        logs: Path,
        deadline: Deadline,
        executor: Executor,
    ):
        self.waiting = {task.name: task for task in tasks}
        self.many = many
        self.kept = kept
        self.logs = logs
        self.deadline = deadline
        self.executor = executor
        self.numbers = {task.name: number for number, task in enumerate(tasks, start=1)}
        self.running: dict[str, Task] = {}
        self.done: set[str] = set()
        self.losses: Counter[str] = Counter()
        self.missing: dict[str, str] = {}
        self.error: Exception | None = None
        self.is_stopping = False
        epochs: Counter[str] = Counter()
        for task in tasks:
            epochs[task.kind] += task.epochs
        self.progress = Progress(epochs, len(tasks), kept.tell, executor.num_slots)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.executor.close()

    def run(self, goes_on_after: tuple[type[Exception], ...]) -> Iterator[tuple[Task, Reply]]:
        """Go on until nothing can be begun and nothing is under way."""
        while True:
            # Before anything is begun, too: connecting to a cluster takes seconds.
            if stop_request.is_set():
                self._stop()
            self._begin()
            if not self.running:
                break
            for name, reply in self.executor.wait():
                task = self.running.pop(name)
                if reply.lost is not None:
                    self._lose(task, reply.lost)
                elif reply.error is None or isinstance(reply.error, goes_on_after):
                    self.done.add(name)
                    self._show(task, reply)
                    yield task, reply
                else:
                    self._fail(reply.error, reply.details)
        if self.error is not None:
            raise self.error
        if self.waiting and not self.missing:
            self.deadline.pause_before(next(iter(self.waiting)))
        if self.missing:
            raise MissingRunsError(self.missing, len(self.numbers))

    def _begin(self) -> None:
        """Begin what can be begun."""
        for name, task in list(self.waiting.items()):
            if self.is_stopping or len(self.running) >= self.executor.num_slots:
                return
            lacking = [need for need in task.needs if need in self.missing]
            if lacking:
                self.missing[name] = f"it needs {lacking[0]}"
                del self.waiting[name]
            elif set(task.needs) <= self.done and self._has_room(name):
                self.running[name] = self.waiting.pop(name)
                if self.many.is_in_process:
                    self.kept.tell(f"[{self.numbers[name]}/{len(self.numbers)}] {name}")
                is_retry = self.losses[name] > 0
                self.executor.submit(Order(task, self.deadline, self._log(name), is_retry))

    def _log(self, name: str) -> str:
        return str(self.logs / f"{slug(name)}.log")

    def _has_room(self, name: str) -> bool:
        """Whether a task may begin beside those under way; the last attempt is made alone."""
        return not self.running or not any(map(self._is_alone, (name, *self.running)))

    def _is_alone(self, name: str) -> bool:
        return self.executor.shares_memory and 0 < self.many.retries == self.losses[name]

    def _lose(self, task: Task, reason: str) -> None:
        """Try a task again whose process was lost, or give it up."""
        if self.is_stopping:
            self.waiting = {task.name: task, **self.waiting}
            return
        self.losses[task.name] += 1
        if self.losses[task.name] > self.many.retries:
            times = self.losses[task.name]
            self.missing[task.name] = (
                f"{reason}, {times} times in all. What it printed: {self._log(task.name)}"
            )
            self.kept.tell(f"{task.name}: {reason}. It is given up.")
            return
        self.waiting = {task.name: task, **self.waiting}
        apart = " when no other run is at work" if self._is_alone(task.name) else ""
        self.kept.tell(f"{task.name}: {reason}. It is continued{apart}.")

    def _fail(self, error: Exception, details: str) -> None:
        """Keep the error that is to be raised: the first one that isn't a mere pause."""
        is_users = isinstance(error, RecipeError | RunPausedError | data.DatasetUnavailableError)
        if not is_users and not self.many.is_in_process:
            error.__cause__ = _TracebackElsewhereError(details)
        if self.error is None or (
            isinstance(self.error, RunPausedError) and not isinstance(error, RunPausedError)
        ):
            self.error = error
        self._stop()

    def _stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self.executor.stop()

    def _show(self, task: Task, reply: Reply) -> None:
        if reply.finished is not None and not reply.finished.is_new:
            self.progress.skip(task.kind, epochs=task.epochs)
            bars.leave_out(task.epochs)
            number, total = self.numbers[task.name], len(self.numbers)
            self.kept.tell(f"✓ [{number}/{total}] {task.name}: done before")
            return
        if not self.many.is_in_process:  # there the run itself moves the bars, epoch by epoch
            bars.advance(task.epochs)
        text = str(reply.error) if reply.finished is None else reply.finished.text
        self.progress.done(
            task.kind, f"{task.name}: {text}", epochs=task.epochs, seconds=reply.seconds
        )


def _check(tasks: Sequence[Task]) -> None:
    known: set[str] = set()
    for task in tasks:
        unknown = set(task.needs) - known
        if task.name in known or unknown:
            raise ValueError(
                "Expected tasks of different names, each after those that it needs. "
                f"Received: {task.name!r}, which needs {sorted(unknown)}"
            )
        known.add(task.name)
