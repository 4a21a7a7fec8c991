"""What a process of a Ray cluster does with one order."""

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import keras

from tfconvbias.training.engine.task import Order, Reply, Workplace, execute_apart
from tfconvbias.training.engine.worker import write_to
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import stop_request


def carry_out(packed: bytes) -> bytes:
    """Carry out a packed order and pack the reply."""
    order: Order = pickle.loads(packed)
    if not Path(order.log).parent.is_dir():
        fault = ConfigError(
            f"{os.uname().nodename} does not see the study's folder {Path(order.log).parent}: it "
            "must lie on storage that all machines of the cluster share."
        )
        return Reply(error=fault).packed()
    with _output_in(order.log), _stop_when_cancelled():
        reply = execute_apart(order, Workplace(order.deadline))
    keras.utils.clear_session()
    return reply.packed()


@contextlib.contextmanager
def _stop_when_cancelled() -> Iterator[None]:
    """Ray cancels by an interrupt: the epoch under way is finished and stored first."""
    previous = signal.signal(signal.SIGINT, lambda *_: stop_request.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        stop_request.clear()


@contextlib.contextmanager
def _output_in(log: str) -> Iterator[None]:
    """Send what is printed to a file."""
    kept = os.dup(1), os.dup(2)
    write_to(log)
    try:
        yield
    finally:
        for stream, number, copy in zip((sys.stdout, sys.stderr), (1, 2), kept, strict=True):
            stream.flush()
            os.dup2(copy, number)
            os.close(copy)
