"""LocallyConnected2D against its peers: forward and backward, float32, on the CPU.

    python benchmarks/locally_connected.py [--rounds 20] [--threads 2] [--backends tensorflow jax]

Each backend runs in a process of its own; a process times its candidates in turns, so that all
ratios of a table come from one run, and takes medians. The yardstick of a table are the three
batched matrix products that the work contains (outputs, gradient of the kernel, gradient of the
inputs' patches), on arrays that lie ready. All candidates get equal inputs and a cotangent and
return the outputs and both gradients; ours, those of tf_keras of equal weights and PyTorch's are
compared as numbers first. `compile` is the first call: trace, compile, run. `memory` is the peak of
one more process that runs this candidate alone, at four times the batch so that the patches count
most: bytes over what the process held before, less the inputs, weights, outputs and their gradients
that any layer has, in units of the patch tensor. It holds the compiler's memory too (Linux only).

A candidate whose package is missing is reported as missing. Implementation 2 of tf_keras is skipped
where its dense kernel is above 256 MB.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from locally_connected_candidates import CANDIDATES, CASES, MEGABYTE, Case, agreement

CLEAR_PEAK = Path("/proc/self/clear_refs")  # writing 5 lets the peak start anew


def limit_threads(backend, threads):
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)


def time_in_turns(steps, rounds, slow_rounds):
    """Medians in milliseconds. Candidates above a second take part in the first rounds only."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name, step in steps.items():
            if turn >= slow_rounds and statistics.median(times[name]) > 1:
                continue
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def run_case(backend, case, options):
    candidates, notes = CANDIDATES[backend](case)
    steps, compiles = {}, {}
    for name, set_up in candidates.items():
        steps[name] = set_up()
        start = time.perf_counter()
        steps[name]()
        compiles[name] = time.perf_counter() - start
        steps[name]()
    gaps = agreement(case, backend, steps)
    times = time_in_turns(steps, options.rounds, slow_rounds=3)
    memory = {
        name: subprocess_json(backend, options, case=case.name, memory=name)
        for name in candidates
        if not (options.skip_memory or name.startswith("bare") or not CLEAR_PEAK.exists())
    }
    rows = [
        {
            "name": name,
            "milliseconds": times[name],
            "compile": compiles[name],
            "memory": memory.get(name),
            "gap": gaps.get(name),
        }
        for name in candidates
    ]
    return {"rows": rows, "notes": notes}


def process_bytes(field):
    """A line of Linux' account of this process: `VmRSS` is now, `VmHWM` the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def run_memory(backend, case, name):
    """Bytes of the peak of three steps, over what the process holds before the first."""
    candidates, _ = CANDIDATES[backend](Case("warm-up", 2, 8, 1, 3, 1, 2))
    candidates[name]()()
    candidates, _ = CANDIDATES[backend](case)
    CLEAR_PEAK.write_text("5")
    before = process_bytes("VmRSS")
    step = candidates[name]()
    for _ in range(3):
        step()
    return process_bytes("VmHWM") - before


def subprocess_json(backend, options, **arguments):
    command = [sys.executable, __file__, "--worker", backend, "--rounds", str(options.rounds)]
    command += ["--threads", str(options.threads)]
    if options.skip_memory:
        command.append("--skip-memory")
    for key, value in arguments.items():
        command += [f"--{key}", value]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["TF_USE_LEGACY_KERAS"] = "0"
    if backend == "jax":
        environment["JAX_PLATFORMS"] = "cpu"
    environment["CUDA_VISIBLE_DEVICES"] = ""
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-4000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def print_table(backend, case, result):
    rows = {row["name"]: row for row in result["rows"]}
    bare = min(row["milliseconds"] for name, row in rows.items() if name.startswith("bare"))
    ours = min(row["milliseconds"] for name, row in rows.items() if name.startswith("ours"))
    print(f"\n{backend}; {case}; patches {case.patch_bytes / MEGABYTE:.1f} MB")
    print(f"{'':28s}{'ms':>9s}{'/ bare':>9s}{'/ ours':>9s}{'compile s':>11s}{'memory':>9s}")
    for name, row in rows.items():
        memory = "" if row["memory"] is None else f"{row['memory']:.2f}"
        print(
            f"{name:28s}{row['milliseconds']:9.2f}{row['milliseconds'] / bare:9.2f}"
            f"{row['milliseconds'] / ours:9.2f}{row['compile']:11.2f}{memory:>9s}"
        )
    for name, note in result["notes"].items():
        print(f"{name:28s}{note}")
    gaps = {row["name"]: f"{row['gap']:.1e}" for row in rows.values() if row["gap"] is not None}
    print(f"largest difference from ours: {gaps}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="timed turns")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--backends", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--case", choices=CASES, help="only this shape")
    parser.add_argument("--skip-memory", action="store_true", help="time only")
    parser.add_argument("--worker", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        limit_threads(options.worker, options.threads)
        case = CASES[options.case]
        if options.memory:
            larger = replace(case, batch=4 * case.batch)
            excess = run_memory(options.worker, larger, options.memory) - larger.floor_bytes
            print(json.dumps(excess / larger.patch_bytes))
        else:
            print(json.dumps(run_case(options.worker, case, options)))
        return
    if hasattr(os, "sched_setaffinity"):
        # JAX has no option for its threads: it takes one for each core that it is given.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    for backend in options.backends:
        if importlib.util.find_spec(backend) is None:
            print(f"\n{backend}: missing: pip install {backend}")
            continue
        for case in CASES.values():
            if options.case in (None, case.name):
                print_table(backend, case, subprocess_json(backend, options, case=case.name))


if __name__ == "__main__":
    main()
