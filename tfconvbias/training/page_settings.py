"""What decided the results that a page shows, as the page states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfconvbias.training.command_line import options_of
from tfconvbias.training.config import Config
from tfconvbias.training.data_config import dataset_label
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.table import OPTIMIZERS

_MAIN = {
    "dataset": "data set",
    "datasets": "data sets",
    "images": "images",
    "num_train": "training images",
    "optimizer": "optimizer",
    "learning_rate": "learning rate",
    "learning_rates": "learning rates",
    "embedded_learning_rate": "learning rate, embedded",
    "scratch_learning_rates": "learning rates from scratch",
    "fine_tune_learning_rate": "learning rate, fine-tuning",
    "fine_tune_learning_rates": "learning rates, fine-tuning",
    "l1_conv": "λ, convolutions",
    "l1_conv_values": "λ, convolutions",
    "l1": "λ, other layers",
    "l1_values": "λ, other layers",
    "l1s": "λ of β-LASSO",
    "alphas": "α of the penalty",
    "beta": "β",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "dropout_rate": "dropout",
    "schedule": "schedule",
    "augment": "augmentation",
    "epochs": "epochs",
    "embedded_epochs": "epochs, embedded",
    "sparse_epochs": "epochs with the penalty",
    "fine_tune_epochs": "epochs, fine-tuning",
    "steps": "steps",
    "sweep_steps": "steps of the sweeps",
    "batch_size": "batch",
    "s_channels": "α of the S family",
    "d_channels": "α of the D family",
    "kept": "shares of the weights kept",
    "num_samples": "training images assumed",
    "delta": "δ",
    "seed": "seed",
    "seeds": "seeds",
    "num_seeds": "number of seeds",
}
"""Fields that every reader asks for, in their order, with their names on a page."""

_NONE = "–"
_OF_BETA_LASSO = ("l1_conv", "l1", "beta")
_WHERE_IMAGES_LIE = ("dataset", "datasets", "images")


class Setting(NamedTuple):
    """One setting: its name on the page, its value, and what the option's help says of it."""

    name: str
    value: str
    help: str = ""


class ShownSettings(NamedTuple):
    """The settings of a study, or of runs; those without a value are left out.

    Attributes:
        main: The settings that every reader asks for: of a study, or those that all runs share.
        others: A study's other settings that decide its result.
        runs: Rows of a table of the settings in which runs differ.
    """

    main: Sequence[Setting] = ()
    others: Sequence[Setting] = ()
    runs: Sequence[Mapping[str, str]] = ()


def shown_settings(settings: Config | Mapping[str, RunFolder]) -> ShownSettings:
    """What a page shows of a study's configuration, or of finished runs.

    Raises:
        ValueError: If there is no run.
    """
    if isinstance(settings, Config):
        return ShownSettings(*_settings_of(settings))
    if not settings:
        raise ValueError("`settings` must be a configuration, or hold runs. Received: none")
    rows = setting_rows({name: _fields_of(folder) for name, folder in settings.items()})
    shared = {name for name in rows[0] if len(rows) == 1 or len({row[name] for row in rows}) == 1}
    main = [
        Setting(name, rows[0][name])
        for name in rows[0]
        if name in shared - {"run"} and rows[0][name] != _NONE
    ]
    own = [{name: row[name] for name in row if name not in shared} for row in rows]
    return ShownSettings(main, runs=own if len(rows) > 1 else ())


def setting_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """The settings of runs as rows of a table; runs of the same settings share a row.

    λ and β are those of β-LASSO and stand as dashes where another optimizer trained.

    Args:
        runs: name → the fields that decided its result.

    Example:
        >>> rows = setting_rows({"S-FC": {"optimizer": "sgd", "learning_rate": 0.1, "beta": 50.0}})
        >>> rows
        [{'run': 'S-FC', 'optimizer': 'SGD', 'learning rate': '0.1', 'β': '–'}]
    """
    known = [key for key in _MAIN if any(key in fields for fields in runs.values())]
    names: dict[tuple[str, ...], list[str]] = {}
    for name, fields in runs.items():
        optimizer = str(fields.get("optimizer", "beta_lasso"))
        cells = tuple(
            _value(key, fields[key], optimizer) if key in fields else _NONE for key in known
        )
        names.setdefault(cells, []).append(name)
    return [
        {"run": _shared(shared)}
        | {_MAIN[key]: cell for key, cell in zip(known, cells, strict=True)}
        for cells, shared in names.items()
    ]


def _settings_of(config: Config) -> tuple[list[Setting], list[Setting]]:
    """The settings of a configuration: those that every reader asks for, and the others.

    Fields that only say where results are kept are left out, but not the names of the images, and
    not seeds that can be added later.
    """
    decides = config.identity()
    main, others = {}, []
    for option in options_of(config):
        name = option.name
        if name not in decides and name not in _MAIN:
            continue
        shown = Setting(
            _name(name, decides),
            _value(name, option.value, str(decides.get("optimizer", "beta_lasso"))),
            option.help,
        )
        if shown.value == _NONE:
            continue
        if name in _MAIN:
            main[name] = shown
        else:
            others.append(shown)
    return [main[name] for name in _MAIN if name in main], others


def _fields_of(folder: RunFolder) -> dict[str, Any]:
    """The fields that decided a run's result, and the images that it saw."""
    stored, row = folder.config(), folder.result() or {}
    images = str(stored.pop("images", "")).rpartition(" ")[0]
    found = {"dataset": row.get("dataset", images), "num_train": row.get("num_train")}
    return {**stored, **found}


def _value(name: str, value: Any, optimizer: str) -> str:
    if name in _OF_BETA_LASSO and optimizer != "beta_lasso":
        return _NONE
    if name == "optimizer":
        return OPTIMIZERS.get(str(value), str(value))
    if name in ("num_train", "num_samples"):
        return "all" if value is None else f"{value:,}"
    if name in _WHERE_IMAGES_LIE and value:
        values = (value,) if isinstance(value, str) else value
        return ", ".join(dataset_label(str(part)) for part in values)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == ():
        return _NONE
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def _name(field: str, decides: Mapping[str, Any]) -> str:
    """A field's name on a page; where there is one λ, it is not that of the other layers."""
    if field == "l1" and not {"l1_conv", "l1_conv_values"} & decides.keys():
        return "λ"
    return _MAIN.get(field, field.replace("_", " "))


def _shared(names: Sequence[str]) -> str:
    """Names of runs with the same settings; of many the first and the last one."""
    most = 4
    if len(names) <= most:
        return "; ".join(names)
    return f"{names[0]}; …; {names[-1]} ({len(names)} runs)"
