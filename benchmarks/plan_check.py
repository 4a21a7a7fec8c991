"""Planned seconds and memory of `--plan` beside measured ones, for small networks on this machine.

    python benchmarks/plan_check.py
    TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/plan_check.py

The plan's efficiency and overhead are measured on the rows of `CALIBRATION`, which are of other
sizes than those that are planned. All times are processor time, of the device's own rates too, so
that other work on the machine does not count; with one thread that is the time on a quiet core.
Memory is what a process takes at its peak above what it had before the model was built.
"""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras  # noqa: F401  # so that no process needs to

from tfconvbias import data, training
from tfconvbias.training import accelerator_table

STEPS = 8
ROUNDS = 2
BATCH = 64
COMMON = training.RunConfig(
    dataset="motifs10",
    num_train=STEPS * BATCH,
    num_test=50,
    batch_size=BATCH,
    epochs=ROUNDS + 1,
    momentum=0.9,
    precision="float32",
    augment="none",
)
LASSO = {"optimizer": "beta_lasso", "momentum": 0.0, "l1": 1e-5, "l1_conv": 1e-5}
CALIBRATION = {
    "S-FC, α = 2": {"connectivity": "dense", "base_channels": 2},
    "ResNet18, 4 channels": {"family": "resnet18", "connectivity": "conv", "base_channels": 4},
}
PLANNED = {
    "S-FC, α = 4": {"connectivity": "dense", "base_channels": 4},
    "S-FC, α = 8": {"connectivity": "dense", "base_channels": 8},
    "S-FC, β-LASSO, α = 8": {"connectivity": "dense", "base_channels": 8, **LASSO},
    "S-CONV, α = 4": {"connectivity": "conv", "base_channels": 4},
    "S-CONV, α = 16": {"connectivity": "conv", "base_channels": 16},
    "S-LOCAL, α = 8": {"connectivity": "local", "base_channels": 8},
    "ResNet18, 8 channels": {"family": "resnet18", "connectivity": "conv", "base_channels": 8},
}
ALL = CALIBRATION | PLANNED


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, which begins with this one's imports.

    So nothing may be computed in this one.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work(*arguments)))
    process.start()
    found = receiver.recv()
    process.join()
    return found


def rates() -> tuple[float, ...]:
    """What this machine reaches, in processor time."""
    accelerator_table.time.perf_counter = time.process_time
    return tuple(training.accelerator("here"))


def measure(name: str, dataset: data.ImageDataset) -> dict[str, float]:
    """One configuration, in this process: processor seconds of a step, and bytes at the peak."""
    config = COMMON.replace(**ALL[name])
    before = resident_bytes()
    model = training.build_model(config, dataset)
    training.compile_model(config, model, config.epochs * STEPS)
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        model.fit(dataset.x_train, dataset.y_train, batch_size=BATCH, shuffle=False, verbose=0)
        seconds.append((time.process_time() - began) / STEPS)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        # The first round compiles.
        "seconds": statistics.median(seconds[1:]),
        "bytes": peak - before,
    }


def resident_bytes() -> int:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def plan(device: training.Accelerator) -> dict[str, dict[str, Any]]:
    """Bound of a step's seconds, and memory, of each configuration."""
    found = {}
    for name, changes in ALL.items():
        config = COMMON.replace(**changes)
        planned = training.plan_run(config, (32, 32, 3), 10, STEPS * BATCH, device, 1.0)
        found[name] = {
            "seconds": planned.seconds / planned.steps,
            "layers": planned.cost.layers,
            "bytes": planned.memory,
        }
    return found


def main() -> None:
    dataset = training.build_dataset(COMMON)
    device = training.Accelerator(*apart(rates))
    measured = {}
    for name in ALL:
        measured[name] = apart(measure, name, dataset)
        print(f"{name}: {measured[name]}", flush=True)
    bounds = plan(device)
    efficiency, overhead = training.efficiency_of(
        [bounds[name]["seconds"] for name in CALIBRATION],
        [bounds[name]["layers"] for name in CALIBRATION],
        [measured[name]["seconds"] for name in CALIBRATION],
    )
    rows = []
    for name in ALL:
        bound, found = bounds[name], measured[name]
        seconds = overhead * bound["layers"] + bound["seconds"] / efficiency
        rows.append(
            {
                "network": name + (" (for the efficiency)" if name in CALIBRATION else ""),
                "layers": str(bound["layers"]),
                "planned ms per step": f"{1e3 * seconds:.1f}",
                "measured": f"{1e3 * found['seconds']:.1f}",
                "planned ÷ measured": f"{seconds / found['seconds']:.2f}",
                "planned MiB": f"{bound['bytes'] / 2**20:.0f}",
                "measured MiB": f"{found['bytes'] / 2**20:.0f}",
            }
        )
    print(training.format_table(rows))
    print(
        f"Rates here, in processor time: {device.single / 1e9:.1f} GFLOP/s, "
        f"{device.bandwidth / 1e9:.1f} GB/s; efficiency {efficiency:.2f}, "
        f"{1e3 * overhead:.2f} ms per layer and step."
    )


if __name__ == "__main__":
    main()
