"""What a process of `Processes` does: it carries out the orders that its parent sends."""

import os
import pickle
import queue
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import keras

from tfconvbias.training.engine.task import Workplace, execute_apart
from tfconvbias.training.entry_point import stop_on_termination
from tfconvbias.training.execution import Deadline


def work(replies: int) -> None:
    """Carry out orders from standard input until it ends, as it does when the parent dies.

    Args:
        replies: The file descriptor that takes the replies.
    """
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, orders), daemon=True).start()
    place = Workplace(Deadline(None))
    with os.fdopen(replies, "wb") as stream:
        while True:
            packed = orders.get()
            with stop_on_termination():
                # Here, so that what cannot be imported ends the process, and its log says why.
                order = pickle.loads(packed)
                write_to(order.log)
                reply = execute_apart(order, place)
            # What the run has compiled would stay in memory.
            keras.utils.clear_session()
            sys.stdout.flush()
            stream.write(reply.packed())
            stream.flush()


def write_to(log: str) -> None:
    """Send standard output and error of this process to the end of a file."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _read(stream: BinaryIO, orders: queue.SimpleQueue) -> None:
    """Pass orders on; without the parent nobody waits for what is under way."""
    while True:
        size = stream.read(8)
        packed = stream.read(int.from_bytes(size, "big")) if len(size) == 8 else b""
        if not packed:
            # At once: files are complete or absent, and a second driver may be waiting for locks.
            os._exit(1)
        orders.put(packed)
