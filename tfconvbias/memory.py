"""How much memory is left, for work that would take more to be refused before it begins."""

import os
from pathlib import Path

import keras


def available_bytes() -> int | None:
    """Memory that is still available, or `None` if nothing says.

    The smaller one of main memory, where arrays are made, and of the accelerator that holds the
    variables.
    """
    limits = [found for found in (_main_memory(), _accelerator_memory()) if found is not None]
    return min(limits, default=None)


def _accelerator_memory() -> int | None:
    """What JAX or PyTorch say; TensorFlow tells what is taken, not what is left."""
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
