"""S-FC with SGD and with β-LASSO, S-CONV and S-LOCAL at the paper's size, in pieces of minutes.

    python benchmarks/real_scale.py --dataset FOLDER            α = 150, 400 epochs (GPU)
    python benchmarks/real_scale.py --dataset FOLDER            the next piece; 0 at the end
    python benchmarks/real_scale.py --dataset FOLDER --peak-tflops 989 --rows s-fc-beta-lasso
    python benchmarks/real_scale.py --demo                      embedded data, small, a minute
    python benchmarks/real_scale.py --dataset FOLDER --device h200      for --plan-efficiency

Each call goes on where the last one stopped and ends before `--minutes` are over, after a
checkpoint; exit status 3 says that there is more to do. The images stay on the device and an epoch
is one execution; where there is an accelerator, compute is in bfloat16. A short table comes last,
and stands in `real_scale.json` too.

Step time is the median over epochs of training time by steps, without validation. FLOP are those
of the model's products: two a multiplication forward, two for the weights' gradient, two for the
inputs' (not in layer 1). Memory is the process's peak, on the accelerator where there is one.

Target on CIFAR-10: S-FC 72.77 / 78.63 % after 400 / 4000 epochs with SGD, 85.19 % after 4000 with
β-LASSO, which leaves layer 1 between S-CONV's 36,450 and S-LOCAL's 9,331,200 weights.
"""

import dataclasses
import statistics
import subprocess
import sys
import time
from pathlib import Path

import keras

from tfconvbias import data, studies, training
from tfconvbias.training import (
    PAUSED_STATUS,
    accelerators,
    format_table,
    guarded,
    read_json,
    slug,
    write_json,
)

TABLE_1 = studies.neyshabur2020.TABLE_1
ROWS = {
    "S-FC, SGD": TABLE_1.definitions["S-FC"],
    "S-FC, β-LASSO": studies.neyshabur2020.S_FC_BETA_LASSO,
    "S-CONV, SGD": TABLE_1.definitions["S-CONV"],
    "S-LOCAL, SGD": TABLE_1.definitions["S-LOCAL"],
}
NAMES = {slug(name): name for name in ROWS}
PIECE = "piece.json"
COLUMNS = (
    *("step, ms", "epoch, s", "TFLOP/s", "MFU, %", "GiB", "train, %", "val, %", "test, %"),
    "non-zero by layer",
)


@dataclasses.dataclass(frozen=True)
class RealScale(training.Config):
    """What all rows share, which rows, and how much of them in this call."""

    fixed = ("family", "connectivity", "optimizer", "hidden_units", "max_minutes", "resume")

    run: training.RunConfig = training.RunConfig()
    rows: tuple[str, ...] = training.option(tuple(NAMES), f"some of {', '.join(NAMES)}")
    minutes: float = training.option(9.0, "end before this time is over")
    peak_tflops: float | None = training.option(
        None, "the device's peak in 10¹² FLOP/s, for the utilisation"
    )
    device: str | None = training.option(
        None, "name in training.ACCELERATORS, or here: write the efficiency that --plan counts with"
    )
    table: bool = training.option(True, "end with the table; without, train one row")

    def __post_init__(self):
        super().__post_init__()
        unknown = [name for name in self.rows if name not in NAMES]
        if unknown or not self.rows:
            raise training.ConfigError(
                f"rows must be some of {', '.join(NAMES)}. Received: {' '.join(unknown)}"
            )
        self._above_zero("minutes", *([] if self.peak_tflops is None else ["peak_tflops"]))

    @property
    def folder(self) -> Path:
        """Where the rows' folders stand."""
        return Path(str(self.run.run_dir))

    def run_config(self, row: str) -> training.RunConfig:
        return self.run.replace(**ROWS[NAMES[row]], run_dir=str(self.folder / row))


CONFIG = RealScale(
    run=TABLE_1.run.replace(
        dataset="cifar10",
        device_epochs="on",
        tensorboard=False,
        verbose="line",
        run_dir="runs/real-scale",
        resume=True,
    ),
)

DEMO = {
    "dataset": "motifs10",
    "num_train": 1024,
    "base_channels": 2,
    "augment": "flip_crop",
    "epochs": 3,
    "batch_size": 128,
    "verbose": "silent",
    "run_dir": "runs/real-scale-demo",
}


def train(config: RealScale, row: str) -> None:
    """Train one row in this process, and note in its folder what only the process knows."""
    deadline = training.Deadline(config.minutes)
    run = config.run_config(row)
    dataset = training.build_dataset(run)
    try:
        training.run(run, dataset, deadline)
    finally:
        folder = config.folder / row
        if folder.exists():
            peaks = [peak_bytes()]
            if (folder / PIECE).exists():
                peaks.append(read_json(folder / PIECE)["peak_bytes"])
            piece: dict[str, float] = {
                "peak_bytes": max(peaks),
                "steps_per_epoch": len(dataset.x_train) // run.batch_size,
                "step_flop": step_flop(run, dataset),
            }
            if config.device is not None:
                cost = training.step_cost(run, dataset.image_shape, dataset.num_classes)
                is_half = training.with_precision(run).precision != "float32"
                device = training.accelerator(config.device)
                piece["bound_seconds"] = cost.bound_seconds(device, is_half)
                piece["layers"] = cost.layers
            write_json(folder / PIECE, piece)


def train_all(config: RealScale, words: list[str]) -> bool:
    """Train each row in a process of its own, so that its memory is its own; whether all are done.

    Args:
        config: the rows and their time.
        words: the options of this call, to be handed on.
    """
    started = time.perf_counter()
    for row in config.rows:
        if training.RunFolder(config.folder / row).result() is not None:
            continue
        left = config.minutes - (time.perf_counter() - started) / 60
        if left <= 0:
            return False
        command = [sys.executable, __file__, *words, "--rows", row, "--minutes", f"{left:.3f}"]
        status = subprocess.run([*command, "--no-table"], check=False).returncode
        if status == PAUSED_STATUS:
            return False
        if status:
            raise SystemExit(status)
    return True


def peak_bytes() -> int:
    """Largest memory that this process has used, on the accelerator where there is one."""
    if accelerators():
        backend = keras.config.backend()
        if backend == "jax":
            import jax

            return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
        if backend == "tensorflow":
            import tensorflow as tf

            return tf.config.experimental.get_memory_info("GPU:0")["peak"]
        import torch

        return torch.cuda.max_memory_allocated()
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def step_flop(config: training.RunConfig, dataset: data.ImageDataset) -> int:
    """Floating-point operations of the products in one training step of an S member."""
    side, _, channels = dataset.image_shape
    alpha, kernel = config.base_channels, config.kernel_size or 9
    units = (-(-side // 2)) ** 2 * alpha
    first = units * channels * (side if config.connectivity == "dense" else kernel) ** 2
    rest = units * 24 * alpha + 24 * alpha * dataset.num_classes
    return config.batch_size * (4 * first + 6 * rest)


def measure(config: RealScale, row: str) -> dict:
    """What the row's folder tells, be it finished or not."""
    folder = training.RunFolder(config.folder / row)
    history = folder.history()
    if not history:
        return {"row": NAMES[row], "epochs": 0}
    piece = read_json(folder.path / PIECE)
    # The first epoch compiles.
    seconds = history["train_seconds"][1:] or history["train_seconds"]
    step = statistics.median(seconds) / piece["steps_per_epoch"]
    peak = None if config.peak_tflops is None else 1e12 * config.peak_tflops
    result = folder.result()
    return {
        "row": NAMES[row],
        "epochs": len(history["epoch"]),
        "step_seconds": step,
        "epoch_seconds": statistics.median(history["seconds"]),
        "flop_per_second": piece["step_flop"] / step,
        "bound_seconds": piece.get("bound_seconds"),
        "layers": piece.get("layers"),
        "utilisation": peak and piece["step_flop"] / step / peak,
        "peak_bytes": piece["peak_bytes"],
        "train_accuracy": history["accuracy"][-1],
        "val_accuracy": history["val_accuracy"][-1],
        "test_accuracy": result and result["test_accuracy"],
        "nonzeros": {
            name.removeprefix("nonzeros/"): int(column[-1])
            for name, column in history.items()
            if name.startswith("nonzeros/")
        },
    }


def cells(config: RealScale, found: dict) -> dict[str, str]:
    """A row of the table."""
    shown = {"row": found["row"], "epochs": f"{found['epochs']} / {config.run.epochs}"}
    if not found["epochs"]:
        return shown | dict.fromkeys(COLUMNS, "–")

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f}"

    values = (
        f"{1000 * found['step_seconds']:.2f}",
        f"{found['epoch_seconds']:.2f}",
        f"{found['flop_per_second'] / 1e12:.3g}",
        share(found["utilisation"]),
        f"{found['peak_bytes'] / 2**30:.1f}",
        share(found["train_accuracy"]),
        share(found["val_accuracy"]),
        share(found["test_accuracy"]),
        " / ".join(f"{count:,}" for count in found["nonzeros"].values()),
    )
    return shown | dict(zip(COLUMNS, values, strict=True))


def report(config: RealScale) -> None:
    """Print the table and store it, with the place where it was measured."""
    run = config.run
    found = [measure(config, row) for row in config.rows]
    print("\n" + format_table([cells(config, row) for row in found]))
    places = {}
    for row in config.rows:
        folder = training.RunFolder(config.folder / row)
        if folder.history():
            places[NAMES[row]] = place = folder.environment()
            print(
                f"{NAMES[row]}: {folder.config()['precision']}, {place['backend']}, "
                f"{place['hardware']}."
            )
    print(
        f"α = {run.base_channels}, batch {run.batch_size}, augment {run.augment}, "
        f"λ {run.l1_conv} / {run.l1}, β {run.beta}, seed {run.seed}."
    )
    tests = {row["row"]: row.get("test_accuracy") for row in found}
    sgd, lasso = tests.get("S-FC, SGD"), tests.get("S-FC, β-LASSO")
    if sgd is not None and lasso is not None:
        print(f"β-LASSO − SGD: {100 * (lasso - sgd):+.2f} points (paper, 4000 epochs: +6.56).")
    content = {"config": config.identity(), "environments": places, "rows": found}
    write_json(config.folder / "real_scale.json", content)


def main() -> None:
    config = training.command_line.parse(CONFIG, description=__doc__, demo=DEMO)
    words = sys.argv[1:]
    if not config.table:
        guarded(lambda: train(config, config.rows[0]))
        return
    is_done = train_all(config, words)
    report(config)
    if not is_done:
        print("There is more to do: the same command goes on.")
        raise SystemExit(PAUSED_STATUS)


if __name__ == "__main__":
    main()
