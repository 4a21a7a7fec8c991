"""What a process of `Processes` runs: it carries out the orders that its parent sends.

It is run as a file, and imports the package only once it watches its parent, since that takes
seconds.
"""

import os
import pickle
import queue
import sys
import threading
from typing import BinaryIO


def work() -> None:
    """Carry out orders from standard input until it ends, as it does when the parent dies."""
    # Replies go to what was standard output, before any import prints there.
    replies = os.dup(1)
    os.dup2(2, 1)
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, orders), daemon=True).start()

    import keras

    from tfconvbias.training.engine.output import write_to
    from tfconvbias.training.engine.task import Workplace, execute_apart
    from tfconvbias.training.entry_point import stop_on_termination
    from tfconvbias.training.execution import Deadline

    place = Workplace(Deadline(None))
    with os.fdopen(replies, "wb") as stream:
        while True:
            packed = orders.get()
            with stop_on_termination():
                # Here, so that what cannot be imported ends the process, and its log says why.
                # The order that the process which started this one packed.
                order = pickle.loads(packed)  # nosec B301
                write_to(order.log)
                reply = execute_apart(order, place)
            # What the run has compiled would stay in memory.
            keras.utils.clear_session()
            sys.stdout.flush()
            stream.write(reply.packed())
            stream.flush()


def _read(stream: BinaryIO, orders: queue.SimpleQueue) -> None:
    """Pass orders on; without the parent nobody waits for what is under way."""
    while True:
        size = stream.read(8)
        packed = stream.read(int.from_bytes(size, "big")) if len(size) == 8 else b""
        if not packed:
            # At once: files are complete or absent, and a second driver may be waiting for locks.
            os._exit(1)
        orders.put(packed)


if __name__ == "__main__":
    work()
