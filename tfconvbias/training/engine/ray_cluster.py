"""Tasks on the machines of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfconvbias.lazy import keras
from tfconvbias.training.engine.devices import threads
from tfconvbias.training.engine.options import ManyRuns
from tfconvbias.training.engine.task import TASKS_PER_PROCESS, Order, Reply
from tfconvbias.training.errors import ConfigError, RunPausedError

_PATIENCE_SECONDS = 0.5
_CONNECTION_SECONDS = 5.0


class RayCluster:
    """Carry tasks out on a Ray cluster, in this working folder, which all machines must share.

    Args:
        many: The cluster's address, and what each run gets of it.

    Raises:
        ConfigError: If Ray is not installed, or there is no cluster at the address.
        RunPausedError: If SIGTERM comes while it is connected to.
    """

    shares_memory = False

    def __init__(self, many: ManyRuns):
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "--ray needs the package Ray: pip install 'tfconvbias[ray]'"
            ) from error
        self._ray: Any = ray
        self._pending: dict[Any, str] = {}
        # A cluster that the caller is connected to stays connected.
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _connect(ray, many.ray or "local")
        resources = ray.cluster_resources()
        num_gpus = many.gpus_per_run
        if num_gpus is None:
            num_gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
        fits = [resources.get("CPU", 0) // many.cpus_per_run]
        if num_gpus:
            fits.append(resources.get("GPU", 0) // num_gpus)
        if min(fits) < 1:
            self.close()
            raise ConfigError(
                f"The cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} "
                "GPUs, too few for one run. "
                f"Received: cpus_per_run={many.cpus_per_run}, gpus_per_run={num_gpus:g}"
            )
        self.num_slots = int(min(fits))
        environment = {**threads(many.cpus_per_run), "KERAS_BACKEND": keras.config.backend()}
        self._remote = ray.remote(
            num_cpus=many.cpus_per_run,
            num_gpus=num_gpus,
            # Lost processes are counted and replaced by the schedule.
            max_retries=0,
            max_calls=1 if num_gpus else TASKS_PER_PROCESS,
            runtime_env={"env_vars": environment},
        )(_program())

    def submit(self, order: Order) -> None:
        """Hand an order to the cluster."""
        Path(order.log).parent.mkdir(parents=True, exist_ok=True)
        paths = [str(Path(path).absolute()) for path in sys.path if path]
        reference = self._remote.remote(order.packed(), paths, str(Path.cwd()))
        self._pending[reference] = order.task.name

    def wait(self) -> list[tuple[str, Reply]]:
        """The next replies, or none after half a second."""
        ready, _ = self._ray.wait(list(self._pending), timeout=_PATIENCE_SECONDS)
        return [(self._pending.pop(reference), self._reply(reference)) for reference in ready]

    def stop(self) -> None:
        """Ask the runs under way to store their state and end."""
        for reference in self._pending:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """End what is under way, and leave the cluster."""
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
        self._pending.clear()
        if self._is_ours:
            self._ray.shutdown()

    def _reply(self, reference: Any) -> Reply:
        """The reply of a task that has ended."""
        errors = self._ray.exceptions
        try:
            # What a task of this study returned through Ray.
            return pickle.loads(self._ray.get(reference))  # nosec B301
        except errors.RayTaskError as error:
            # Our own part of the task sends errors as a reply.
            return Reply(error=RuntimeError(str(error)), details=str(error))
        except errors.RayError as error:
            return Reply(lost=f"Ray lost it ({type(error).__name__}: {_first_line(error)})")


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        ConfigError: If there is none at the address.
        RunPausedError: If SIGTERM comes meanwhile.
    """
    # No report about the use of Ray is sent from here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        options["include_dashboard"] = False
    elif address != "auto":
        _check_listens(address)
    try:
        with _own_termination():
            ray.init(address=address, **options)
    except SystemExit:
        # What Ray makes of SIGTERM meanwhile; it may have started some of its processes.
        ray.shutdown()
        raise RunPausedError("Asked to end while Ray was starting; no run was begun.") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"No Ray cluster was found: {_first_line(error)} Received: ray={address!r}"
        ) from error


@contextlib.contextmanager
def _own_termination() -> Iterator[None]:
    """Keep the way in which SIGTERM ends a recipe; Ray would end the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _check_listens(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"ray must be local, auto, HOST:PORT or ray://HOST:PORT. Received: ray={address!r}"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECTION_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"Nothing answers there ({error}). Received: ray={address!r}") from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")[:200]


def _program() -> Callable[[bytes, list[str], str], bytes]:
    """What a machine of the cluster runs; being local, it is sent as code and not by its name."""

    def carry_out(packed: bytes, paths: list[str], folder: str) -> bytes:
        import os
        import sys

        sys.path[:0] = [path for path in paths if path not in sys.path]
        try:
            os.chdir(folder)
        except OSError as error:
            raise RuntimeError(
                f"{os.uname().nodename} has no folder {folder}: run Ray from storage that all its "
                "machines share."
            ) from error
        from tfconvbias.training.engine.ray_task import carry_out

        return carry_out(packed)

    return carry_out
