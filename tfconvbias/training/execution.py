"""Where a run is kept and how it is carried out and shown: none of it decides the result."""

import sys
import threading
import time
from dataclasses import dataclass
from typing import Literal

from tfconvbias.training.config import Config, option
from tfconvbias.training.devices import Strategy
from tfconvbias.training.errors import ConfigError, RunPausedError

stop_request = threading.Event()
"""Set when the process has been asked to end: every deadline is over then."""


class Deadline:
    """The time by which a command is to end; several runs can share one.

    A process that was asked to end, by SIGTERM, is over its time.

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
        "progress: a bar, one line per epoch, or nothing; auto: a bar on a terminal, else lines",
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
        "spread the run over devices: mirrored, multi_worker (TensorFlow); data_parallel, "
        "model_parallel (JAX)",
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
        if self.strategy == "multi_worker" and self.num_devices is not None:
            raise ConfigError(
                "strategy='multi_worker' uses all devices of each worker. "
                f"Received: num_devices={self.num_devices}"
            )
        if self.strategy != "model_parallel" and self.num_shards is not None:
            raise ConfigError(
                "num_shards is for strategy='model_parallel'. "
                f"Received: strategy={self.strategy!r}, num_shards={self.num_shards}"
            )

    @property
    def keras_verbose(self) -> int:
        """`verbose` as Keras takes it: 0 nothing, 1 a bar, 2 one line per epoch."""
        verbose = self.verbose
        if verbose == "auto":
            verbose = "bar" if sys.stdout.isatty() else "line"
        return {"silent": 0, "bar": 1, "line": 2}[verbose]
