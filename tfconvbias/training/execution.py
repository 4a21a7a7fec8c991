"""Where a run is kept and how it is carried out and shown: none of it decides the result."""

import sys
import threading
import time
from dataclasses import dataclass
from typing import Literal

from tfconvbias.arguments import checked
from tfconvbias.training.config import Config, option
from tfconvbias.training.devices import Strategy
from tfconvbias.training.errors import ConfigError, RunPausedError

stop_request = threading.Event()
"""Set when the process has been asked to end: every deadline is over then."""


@checked
class Deadline:
    """The time by which a command is to end; several runs can share one.

    A process that was asked to end, by SIGTERM, is over its time. A deadline can be pickled: it
    means the same moment in another process.

    Args:
        minutes: Time from now on, or `None` for no end.
    """

    def __init__(self, minutes: float | None):
        self.minutes = minutes
        self._end = None if minutes is None else time.perf_counter() + 60 * minutes

    def is_over(self, seconds: float = 0.0) -> bool:
        """Whether the time will be over in so many seconds."""
        if stop_request.is_set():
            return True
        return self._end is not None and time.perf_counter() + seconds > self._end

    def __getstate__(self) -> dict[str, float | None]:
        # Only the wall clock is the same in all processes.
        end = None if self._end is None else time.time() + self._end - time.perf_counter()
        return {"minutes": self.minutes, "end": end}

    def __setstate__(self, state: dict[str, float | None]) -> None:
        end = state["end"]
        self.minutes = state["minutes"]
        self._end = None if end is None else time.perf_counter() + end - time.time()

    @property
    def reason(self) -> str:
        """Why work stops, as part of a sentence."""
        if stop_request.is_set():
            return "the process was asked to end"
        return f"max_minutes={self.minutes:g} are over"

    def pause_before(self, work: str) -> None:
        """Stop if the time is over.

        Args:
            work: Name of the next piece of work, for the message.

        Raises:
            RunPausedError: If the time is over.
        """
        if self.is_over():
            raise RunPausedError(
                f"{work} is still to run, but {self.reason}. "
                "The same command with --resume continues."
            )


@dataclass(frozen=True)
class Kept(Config):
    """The fields of everything that is kept in a folder and can be resumed, a training or a study.

    Raises:
        ConfigError: If `max_minutes` is not positive.
    """

    section = "where it is kept, how it is carried out and shown"

    run_dir: str | None = option(
        None, "run folder; none: a name made from the configuration", decides=False
    )
    resume: bool = option(
        False, "continue the work in the run folder where it stopped", decides=False
    )
    max_minutes: float | None = option(
        None,
        "stop after the last checkpoint or finished run that fits into this time; --resume "
        "continues; none: no end",
        decides=False,
    )
    verbose: Literal["auto", "bar", "line", "silent"] = option(
        "auto",
        "progress: a bar, one line per epoch, or nothing; no terminal has lines instead of a bar",
        decides=False,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.max_minutes is not None:
            self._above_zero("max_minutes")

    def deadline(self) -> Deadline:
        """The end of `max_minutes`, counted from now."""
        return Deadline(self.max_minutes)

    def tell(self, text: str) -> None:
        """Print a line of progress, unless `verbose` is silent."""
        if self.verbose != "silent":
            print(text, flush=True)

    @property
    def shown_as(self) -> Literal["bar", "line", "silent"]:
        """`verbose`, decided: there are bars on a terminal only."""
        if self.verbose == "auto" or self.verbose == "bar":
            return "bar" if sys.stdout.isatty() else "line"
        return self.verbose


@dataclass(frozen=True)
class Execution(Kept):
    """The fields that say how `fit` carries a training out.

    Raises:
        ConfigError: If a value is out of its range.
    """

    section = Kept.section

    checkpoint_every: int | None = option(
        None,
        "epochs between checkpoints; none: as often as writing them takes a twentieth of the time",
        decides=False,
    )
    device_epochs: Literal["auto", "on", "off"] = option(
        "off",
        "hold the training images on the device and run each epoch in one execution; auto: on an "
        "accelerator",
        decides=False,
    )
    strategy: Strategy = option(  # noqa: RUF009  # as every option; the type is an alias
        "none",
        "spread the run over devices: mirrored (TensorFlow); data_parallel, model_parallel (JAX)",
        decides=False,
    )
    num_devices: int | None = option(
        None, "devices of this machine that --strategy uses; none: all", decides=False
    )
    num_shards: int | None = option(
        None,
        "parts into which model_parallel cuts a dense kernel; none: one per device",
        decides=False,
    )
    plan: str | None = option(
        None,
        "print what the runs would take on this device (a100, h100, …, or here), and do not run",
        decides=False,
    )
    plan_efficiency: str | None = option(
        None, "real_scale.json with the efficiency that --plan counts with", decides=False
    )
    tensorboard: bool = option(False, "write TensorBoard logs into the run folder", decides=False)

    def __post_init__(self):
        super().__post_init__()
        self._positive("checkpoint_every", "num_devices", "num_shards", optional=True)
        if self.strategy != "model_parallel" and self.num_shards is not None:
            raise ConfigError(
                "num_shards is for strategy='model_parallel'. "
                f"Received: strategy={self.strategy!r}, num_shards={self.num_shards}"
            )
