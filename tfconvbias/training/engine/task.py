"""A run as data: what a process needs to carry it out, and what it answers."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.lazy import data
from tfconvbias.training.config import Config, field_names
from tfconvbias.training.data_config import DataConfig, build_dataset
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import Deadline

TASKS_PER_PROCESS = 20
"""TensorFlow keeps about 30 MB of every run, so that a process is replaced now and then."""


class Finished(NamedTuple):
    """What a task's function returns; the results themselves lie in its run folder.

    Attributes:
        text: How the run ended, in a few words that are shown to the user.
        is_new: Whether anything was done; `False` where the run was complete before.
    """

    text: str
    is_new: bool = True


class Workplace:
    """What one process keeps from task to task: the data sets that it has loaded, and its time.

    Args:
        deadline: When the work is to end.
        dataset: Images that stand for those of every configuration, where the caller has loaded
            them already.
    """

    def __init__(self, deadline: Deadline, dataset: data.ImageDataset | None = None):
        self.deadline = deadline
        self._given = dataset
        self._loaded: dict[tuple, data.ImageDataset] = {}

    def dataset(self, config: DataConfig) -> data.ImageDataset:
        """The images of a configuration, loaded once.

        Raises:
            ConfigError: If there is no such data set, or it has too few images.
            data.DatasetUnavailableError: If a named data set is not available.
        """
        if self._given is not None:
            return self._given
        names = field_names(DataConfig()) - {"seed", "subset_seed"}
        is_whole = config.num_train is None is config.num_test
        key = (
            *(getattr(config, name) for name in sorted(names)),
            is_whole or config.drawn_with,
        )
        if key not in self._loaded:
            self._loaded[key] = build_dataset(config)
        return self._loaded[key]


@checked
@dataclass(frozen=True)
class Task:
    """One run of a study.

    Args:
        name: Its name, which no other task of the study has.
        work: A function of a module, which takes a `Workplace`, the configuration and `arguments`.
            It must find what an earlier attempt has left in its run folder, and go on from there.
        config: What it is done with. Where a task is tried again, its `resume` is on.
        arguments: What else `work` takes, by name.
        needs: Names of the tasks whose run folders it reads.
        kind: What takes equally long per epoch, such as a row of a table.
        epochs: How long the task is, in the unit of its kind.
    """

    name: str
    work: Callable[..., Finished]
    config: Config
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    kind: str = ""
    epochs: PositiveInt = 1

    def __post_init__(self):
        for part in (self.work, type(self.config)):
            if "<locals>" in part.__qualname__:
                raise ValueError(f"Expected a function or class of a module. Received: {part}")


@dataclass(frozen=True)
class Order:
    """A task on its way to the process that carries it out.

    Args:
        task: What to do.
        deadline: When to stop.
        log: The file that takes what the run prints.
        is_retry: Whether an earlier attempt of the same command was cut short.
    """

    task: Task
    deadline: Deadline
    log: str
    is_retry: bool = False

    def packed(self) -> bytes:
        """The order as bytes, for another process.

        Raises:
            ConfigError: If the task stands in the script that is running, which other processes
                cannot import.
        """
        for part in (self.task.work, type(self.task.config)):
            if part.__module__ == "__main__":
                raise ConfigError(
                    f"{part.__qualname__} stands in the script that is running. Move it to a "
                    "module beside it: with --jobs or --ray other processes import it."
                )
        return pickle.dumps(self)


class Reply(NamedTuple):
    """How an order ended: exactly one of `finished`, `error` and `lost` is given.

    Attributes:
        finished: What the task returned.
        error: What it raised.
        lost: Why its process ended without an answer; trying again may help.
        details: The error's traceback, where another process has raised it.
        seconds: How long it took.
    """

    finished: Finished | None = None
    error: Exception | None = None
    lost: str | None = None
    details: str = ""
    seconds: float = 0.0

    def packed(self) -> bytes:
        """The reply as bytes; an error that cannot be sent goes as its text."""
        try:
            packed = pickle.dumps(self)
            # What was packed one line before: can it be read again?
            pickle.loads(packed)  # nosec B301
        except Exception as fault:
            text = f"{type(self.error).__name__}: {self.error} ({fault})"
            return pickle.dumps(self._replace(error=RuntimeError(text)))
        return packed


def execute(order: Order, place: Workplace) -> Reply:
    """Carry out a task and answer how it ended; only what ends a process is raised."""
    task = order.task
    config = task.config
    if order.is_retry and "resume" in field_names(config):
        config = config.replace(resume=True)
    place.deadline = order.deadline
    began = time.perf_counter()
    try:
        finished = task.work(place, config, **task.arguments)
    except Exception as error:
        return Reply(
            error=error, details=traceback.format_exc(), seconds=time.perf_counter() - began
        )
    return Reply(finished=finished, seconds=time.perf_counter() - began)


def execute_apart(order: Order, place: Workplace) -> Reply:
    """As `execute`, in a process that can be replaced: lack of memory counts as its loss."""
    reply = execute(order, place)
    if reply.error is not None and _is_out_of_memory(reply.error):
        first = next(iter(str(reply.error).splitlines()), "")[:200]
        text = f"it ran out of memory ({type(reply.error).__name__}: {first})"
        return Reply(lost=text, seconds=reply.seconds)
    return reply


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was lacking, in the words of Python, TensorFlow, JAX or PyTorch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}:
        return True
    return "RESOURCE_EXHAUSTED" in str(error)
