"""The CPUs and GPUs of this machine, and what each of several processes gets of them."""

import os
import shutil
import subprocess


def num_cpus() -> int:
    """CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        return os.cpu_count() or 1


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    No framework is asked, since it would take memory on each of them.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    found = subprocess.run(
        [program, "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True
    )
    return found.stdout.split() if found.returncode == 0 else []


def share(place: int, num_places: int, devices: list[str], cpus: int) -> dict[str, str]:
    """The environment variables that give a process its share; the user's own settings stay.

    Args:
        place: Number of the process, from 0.
        num_places: How many processes there are.
        devices: The GPUs; each process gets one of them, and where there are fewer GPUs than
            processes, several share one and take memory as they need it.
        cpus: The CPUs, whose threads are divided.

    Example:
        >>> share(1, 2, ["0", "1"], cpus=8)["CUDA_VISIBLE_DEVICES"]
        '1'
    """
    found = threads(cpus // num_places)
    if devices:
        found["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
        if len(devices) < num_places:
            found |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return found


def threads(num: int) -> dict[str, str]:
    """The environment variables that bound the threads of TensorFlow, JAX and PyTorch."""
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC")
    return {name: os.environ.get(name, str(max(1, num))) for name in names}
