"""How much memory is left, for work that would take more to be refused before it begins."""

import contextlib
import contextvars
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_is_counted = contextvars.ContextVar("_is_counted", default=True)


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """Inside, nothing says how much is left: for networks of which only the shapes are made."""
    token = _is_counted.set(False)
    try:
        yield
    finally:
        _is_counted.reset(token)


def available_bytes() -> int | None:
    """Memory that is still available, or `None` if nothing says.

    The smaller one of main memory, where arrays are made, and of the accelerator that holds the
    variables.
    """
    if not _is_counted.get():
        return None
    limits = [found for found in (_main_memory(), _accelerator_memory()) if found is not None]
    return min(limits, default=None)


def _accelerator_memory() -> int | None:
    """What is left on the accelerator that holds the variables, `None` without one.

    JAX and PyTorch say it. TensorFlow says what it has handed out itself; the total is the limit
    that the user has set on the device, or else that of the card as its driver gives it. Without
    such a limit other processes' share is not seen, as TensorFlow takes nearly all that is free at
    its start, so the answer may be too large. Without a limit and without NVIDIA's driver
    (`nvidia-smi`) nothing is known.
    """
    import keras

    if keras.config.backend() == "jax":
        import jax

        # None on a CPU.
        found = jax.local_devices()[0].memory_stats() or {}
        if "bytes_limit" in found:
            return found["bytes_limit"] - found.get("bytes_in_use", 0)
    if keras.config.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.mem_get_info()[0]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if devices:
            total = _tensorflow_limit(tf, devices[0]) or _card_memory()
            if total is not None:
                return max(total - tf.config.experimental.get_memory_info("GPU:0")["current"], 0)
    return None


def _tensorflow_limit(tf, device) -> int | None:
    """What TensorFlow was told to take of a device at most."""
    configured = tf.config.get_logical_device_configuration(device) or []
    limit = configured[0].memory_limit if configured else None
    return None if limit is None else int(limit * 2**20)


def _card_memory() -> int | None:
    """The memory of the first visible card, by its driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", first or "0"]
    try:
        answer = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=10, check=True
        )
        return int(answer.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        # No answer, or "[N/A]": then nothing is known, which is what `None` says.
        return None


def _main_memory() -> int | None:
    limits = []
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if group.exists() and used.exists():
        limit = group.read_text(encoding="utf-8").strip()
        if limit != "max":
            limits.append(max(int(limit) - int(used.read_text(encoding="utf-8")), 0))
    if not limits and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def readable(num_bytes: float) -> str:
    """A number of bytes for people, such as 281.9 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.4g} TiB"
