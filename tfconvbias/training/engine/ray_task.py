"""What a process of a Ray cluster does with one order."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

from tfconvbias.lazy import keras
from tfconvbias.training.engine.output import output_in
from tfconvbias.training.engine.task import Order, Reply, Workplace, execute_apart
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import stop_request


def carry_out(packed: bytes) -> bytes:
    """Carry out a packed order and pack the reply."""
    # The order that the driver of this study packed.
    order: Order = pickle.loads(packed)  # nosec B301
    if not Path(order.log).parent.is_dir():
        fault = ConfigError(
            f"{os.uname().nodename} does not see the study's folder {Path(order.log).parent}: it "
            "must lie on storage that all machines of the cluster share."
        )
        return Reply(error=fault).packed()
    with output_in(order.log), _stop_when_cancelled():
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
