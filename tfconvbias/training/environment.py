"""Where a result was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.lazy import keras

_PACKAGES = ("tfconvbias", "keras", "numpy", "tensorflow", "jax", "torch")


@checked
def environment() -> dict[str, Any]:
    """Versions, commit, backend and hardware, for the run folder and the tables."""
    return {
        "backend": keras.config.backend(),
        "commit": _commit(),
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


@checked
def hardware() -> str:
    """The processors that the backend computes on, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = f"{cores} CPU cores ({_cpu_name()})"
    found = accelerators()
    return f"{', '.join(found)}; {processor}" if found else processor


@checked
def accelerators() -> list[str]:
    """The backend's devices other than CPUs."""
    if keras.config.backend() == "torch":  # Keras lists no devices there
        import torch

        return [f"gpu:{index}" for index in range(torch.cuda.device_count())]
    return [name for name in keras.distribution.list_devices() if "cpu" not in name.lower()]


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree, marked when it has changes; `None` outside a checkout."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        words = ["git", *arguments]
        done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
