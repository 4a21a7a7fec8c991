"""Studies whose rows may have settings of their own, found by the protocol."""

from __future__ import annotations

import dataclasses

from tfconvbias.studies.neyshabur2020.chosen_settings import Chosen, read_settings, settings_of
from tfconvbias.studies.study import Cell, Study
from tfconvbias.training import ConfigError, RunConfig, option

_ROWS_OWN = ("family", "connectivity", "optimizer", "kernel_size", "beta")


@dataclasses.dataclass(frozen=True)
class TunedStudy(Study):
    """A study that can read each row's settings from a file.

    Raises:
        ConfigError: As for `Study`.
    """

    settings: str | None = option(
        None,
        "file of settings for each row, data set and number of epochs, as protocol.py writes it; "
        "none: the same for all",
    )

    def runs(self) -> dict[str, tuple[Cell, RunConfig]]:
        """Label → cell and configuration of every run, with the row's own settings if asked for.

        Raises:
            ConfigError: If a row has no settings in the file, or they contradict the row.
        """
        planned = super().runs()
        if self.settings is None:
            return planned
        chosen = read_settings(self.settings)
        return {
            name: (cell, self._with_settings(chosen, cell, config))
            for name, (cell, config) in planned.items()
        }

    def _with_settings(self, chosen: Chosen, cell: Cell, config: RunConfig) -> RunConfig:
        fields = settings_of(chosen, cell.row, config)
        own = self.variants()[cell.row]
        for name in _ROWS_OWN:
            if name in own and name in fields and fields[name] != own[name]:
                raise ConfigError(
                    f"The settings of {cell.row} have {name}={fields[name]!r}, but the row's own "
                    f"is {own[name]!r}. A row needs settings under its own name."
                )
        return config.replace(**fields)
