"""Several configurations in one folder, set side by side."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

from tfconvbias import data
from tfconvbias.training.build import build_dataset
from tfconvbias.training.errors import ConfigError, RunPausedError, TrainingDivergedError
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.runner import RunResult, run


def compare(
    rows: Mapping[str, RunConfig], folder: str | Path
) -> tuple[dict[str, RunResult], dict[str, str]]:
    """Run every row, each in a subfolder of its own; finished rows are read from disk.

    Args:
        rows: label → configuration; `run_dir` and `tensorboard` paths follow from the label.
        folder: where the rows' run folders stand.

    Returns:
        The finished rows by label, and the messages of rows whose loss diverged.

    Raises:
        ConfigError: If two labels would share a subfolder.
        RunPausedError: If `max_minutes`, which here are those of all rows together, are over.
    """
    started = time.perf_counter()
    folders = {name: Path(folder) / slug(name) for name in rows}
    if len(set(folders.values())) < len(rows):
        raise ConfigError(f"Labels must differ in letters and digits. Received: {list(rows)}")
    datasets: dict[tuple, data.ImageDataset] = {}
    finished, diverged = {}, {}
    for number, (name, config) in enumerate(rows.items(), start=1):
        if config.verbose != "silent":
            print(f"\n[{number}/{len(rows)}] {name}", flush=True)
        drawn = config.seed if config.num_train is not None else None
        key = (config.dataset, config.data_dir, config.num_train, config.permute_pixels, drawn)
        if key not in datasets:
            datasets[key] = build_dataset(config)
        left = config.max_minutes
        if left is not None:
            left -= (time.perf_counter() - started) / 60
            if left <= 0 and RunFolder(folders[name]).result() is None:
                raise RunPausedError(
                    f"{name} is still to run, but max_minutes={config.max_minutes:g} are over. "
                    "The same command with --resume continues."
                )
        try:
            finished[name] = run(
                dataclasses.replace(
                    config,
                    run_dir=str(folders[name]),
                    # A finished row is read whatever the time.
                    max_minutes=left if left is None or left > 0 else None,
                ),
                datasets[key],
            )
        except TrainingDivergedError as error:
            diverged[name] = str(error)
            print(f"{name}: {error}", flush=True)
    return finished, diverged


def slug(name: str) -> str:
    """A label as a folder name: ASCII letters and digits, lower case, joined by hyphens."""
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in name.replace("β", "beta"))
    return "-".join(words.lower().split())
