"""Tasks in fresh Python processes on this machine."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tfconvbias.lazy import keras
from tfconvbias.training.engine.devices import gpus, num_cpus, share
from tfconvbias.training.engine.task import TASKS_PER_PROCESS, Order, Reply

_PROGRAM = Path(__file__).with_name("worker.py")
_PATIENCE_SECONDS = 0.5


class Processes:
    """Carry tasks out in processes of this machine, one at a time in each.

    They do not fork and do not run the caller's script. They end when this process ends, however
    it does: each watches the pipe through which its orders come.

    Args:
        num: How many.
    """

    shares_memory = True

    def __init__(self, num: int):
        self.num_slots = num
        self._replies: queue.SimpleQueue[tuple[_Worker, Reply]] = queue.SimpleQueue()
        devices, cpus = gpus(), num_cpus()
        if devices:
            # This process makes reports meanwhile, on a GPU that a run needs.
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        self._free = [share(place, num, devices, cpus) for place in reversed(range(num))]
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def submit(self, order: Order) -> None:
        """Send an order to an idle process, or to a new one."""
        packed = order.packed()
        worker = self._alive()
        if worker is None:
            worker = _Worker(self._free.pop(), order.log, self._replies)
        self._busy.append(worker)
        worker.send(order.task.name, packed)

    def wait(self) -> list[tuple[str, Reply]]:
        """The next reply, or none after half a second."""
        try:
            worker, reply = self._replies.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            return []
        if worker not in self._busy:
            # An idle process has ended.
            if worker in self._idle:
                self._idle.remove(worker)
                self._free.append(worker.share)
            return []
        self._busy.remove(worker)
        if reply.lost is not None or worker.num_tasks >= TASKS_PER_PROCESS:
            worker.kill()
            self._free.append(worker.share)
        else:
            self._idle.append(worker)
        return [(worker.task, reply)]

    def stop(self) -> None:
        """Ask the runs under way to store their state and end."""
        for worker in self._busy:
            worker.process.terminate()

    def close(self) -> None:
        """Kill all processes; what they have stored is whole."""
        for worker in (*self._busy, *self._idle):
            worker.kill()
        self._busy.clear()
        self._idle.clear()

    def _alive(self) -> _Worker | None:
        """An idle process that has not ended meanwhile."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.poll() is None:
                return worker
            self._free.append(worker.share)
        return None


class _Worker:
    """A process, and the thread that listens to it."""

    def __init__(self, share: dict[str, str], log: str, replies: queue.SimpleQueue):
        self.share = share
        self.task = ""
        self.num_tasks = 0
        environment = {
            **os.environ,
            **share,
            "KERAS_BACKEND": keras.config.backend(),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with Path(log).open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C in a terminal reaches the parent alone.
                start_new_session=True,
            )
        self._thread = threading.Thread(target=self._listen, args=(replies,), daemon=True)
        self._thread.start()

    def send(self, task: str, packed: bytes) -> None:
        """Send an order; that the process has ended, and its pipe is closed, the thread notices."""
        self.task = task
        self.num_tasks += 1
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(len(packed).to_bytes(8, "big") + packed)
            self.process.stdin.flush()

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
        self._thread.join()

    def _listen(self, replies: queue.SimpleQueue) -> None:
        """Pass replies on, and at last how the process ended."""
        # Leaving closes the pipes, and what is still in them is of no use.
        with contextlib.suppress(BrokenPipeError), self.process as process:
            assert process.stdout is not None
            while True:
                try:
                    # What a process that this one started wrote into its own pipe.
                    reply = pickle.load(process.stdout)  # nosec B301
                except (EOFError, pickle.UnpicklingError):
                    replies.put((self, Reply(lost=_end(process.wait()))))
                    return
                replies.put((self, reply))


def _end(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    remark = ", perhaps since memory ran out" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{remark}"
