"""Settings of each row, by data set and epochs, in a file: found by a search, used by a table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from tfconvbias.training import (
    ConfigError,
    RunConfig,
    counted,
    dataset_label,
    label,
    read_json,
    write_json,
)

Chosen = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""Data set → epochs → network and optimizer, such as "S-FC, SGD" → fields of `RunConfig`."""


def settings_key(config: RunConfig) -> str:
    """The name under which a file holds a run's settings, such as "S-FC, β-LASSO".

    Kernels of another size than the family's own belong to it: "RESNET18-CONV 5×5, SGD".
    """
    name = label({"model": config.model_name, "optimizer": config.optimizer})
    if config.kernel_size is None:
        return name
    model, optimizer = name.split(", ")
    return f"{model} {config.kernel_size}×{config.kernel_size}, {optimizer}"


def write_settings(file: Path, config: RunConfig, fields: Mapping[str, Any]) -> None:
    """Add a run's settings to a file, or put them in the place of older ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(file.with_suffix(".lock")):
        content = read_json(file) if file.exists() else {}
        by_epochs = content.setdefault(dataset_label(config.dataset), {})
        rows = by_epochs.setdefault(str(config.epochs), {})
        rows[settings_key(config)] = dict(fields)
        write_json(file, content)


def read_settings(file: str) -> Chosen:
    """Read a file of settings.

    Raises:
        ConfigError: If there is none, or it is not as it should be.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        for by_epochs in content.values():
            for rows in by_epochs.values():
                for fields in rows.values():
                    RunConfig().replace(**fields)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(
            "settings must be a JSON file: data set → epochs → row, such as 'S-FC, SGD' → fields "
            f"of a run. Received: settings={file!r} ({error})"
        ) from error
    return content


def settings_of(chosen: Chosen, row: str, config: RunConfig) -> dict[str, Any]:
    """A run's settings: those of the row's name, or of its network and optimizer.

    Args:
        chosen: From `read_settings`.
        row: The row's name in its table.
        config: The run without them.

    Raises:
        ConfigError: If there are none.
    """
    rows = chosen.get(dataset_label(config.dataset), {}).get(str(config.epochs), {})
    for name in (row, settings_key(config)):
        if name in rows:
            return dict(rows[name])
    known = "; ".join(
        f"{dataset}, {epochs} epochs: {', '.join(found)}"
        for dataset, by_epochs in chosen.items()
        for epochs, found in by_epochs.items()
    )
    raise ConfigError(
        f"The settings have none for {row} on {dataset_label(config.dataset)} after "
        f"{counted(config.epochs, 'epoch')}. They have some for {known}."
    )
