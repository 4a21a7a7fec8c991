"""Several configurations in one folder, set side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfconvbias.lazy import data
from tfconvbias.terminal import bars
from tfconvbias.training.config import field_names
from tfconvbias.training.data_config import DataConfig, build_dataset
from tfconvbias.training.errors import ConfigError, TrainingDivergedError
from tfconvbias.training.execution import Deadline
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.runner import RunResult, run


def compare(
    rows: Mapping[str, RunConfig], folder: str | Path, deadline: Deadline | None = None
) -> tuple[dict[str, RunResult], dict[str, str]]:
    """Run every row, each in a subfolder of its own; finished rows are read from disk.

    Args:
        rows: Label → configuration. Its `run_dir` is not used, since the label names the subfolder.
        folder: Where the rows' run folders stand.
        deadline: When to stop; by default the first row's `max_minutes` from now on.

    Returns:
        The finished rows by label, and the messages of rows whose loss diverged.

    Raises:
        ConfigError: If two labels would share a subfolder.
        RunPausedError: If the time was over before the last row.
    """
    folders = {name: Path(folder) / slug(name) for name in rows}
    if not rows or len(set(folders.values())) < len(rows):
        raise ConfigError(f"Labels must differ in letters and digits. Received: {list(rows)}")
    deadline = deadline or next(iter(rows.values())).deadline()
    datasets: dict[tuple, data.ImageDataset] = {}
    finished, diverged = {}, {}
    done_before = {name for name in rows if RunFolder(folders[name]).result() is not None}
    epochs = sum(config.epochs for name, config in rows.items() if name not in done_before)
    show = next(iter(rows.values())).shown_as == "bar"
    with bars.open(f"all {len(rows)} runs", epochs, show=show):
        for number, (name, config) in enumerate(rows.items(), start=1):
            is_done = name in done_before
            ending = ": done before" if is_done else ""
            config.tell(f"{'✓ ' if is_done else ''}[{number}/{len(rows)}] {name}{ending}")
            config = config.replace(run_dir=str(folders[name]))
            if not is_done:
                deadline.pause_before(name)
            key = _images(config)
            if key not in datasets:
                datasets[key] = build_dataset(config)
            try:
                finished[name] = run(config, datasets[key], deadline)
            except TrainingDivergedError as error:
                diverged[name] = str(error)
                config.tell(f"{name}: {error}")
    return finished, diverged


def _images(config: RunConfig) -> tuple:
    """What decides which images a configuration loads."""
    names = field_names(DataConfig()) - {"seed", "subset_seed"}
    is_whole = config.num_train is None is config.num_test
    return (*(getattr(config, name) for name in sorted(names)), is_whole or config.drawn_with)


def slug(name: str) -> str:
    """A label as a folder name: ASCII letters and digits, lower case, joined by hyphens."""
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in name.replace("β", "beta"))
    return "-".join(words.lower().split())
