"""The paper's tables: rows of networks on data sets, beside the published accuracies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfconvbias.lazy import models, plots
from tfconvbias.studies.neyshabur2020.paper_targets import PAPER_DATASETS, Accuracies
from tfconvbias.studies.neyshabur2020.tuned_study import TunedStudy
from tfconvbias.studies.study import Cell, Findings, Results, mean, origin_cells, percent
from tfconvbias.training import ConfigError, RunConfig, dataset_label, option, slug

_NONE = "–"
_S_TO_D = 10
"""The S family's α by the D family's in the paper's tables, 150 / 15."""


@dataclasses.dataclass(frozen=True)
class PaperTable(TunedStudy):
    """A table of the paper: its rows, or some of them, on some data sets.

    Only the real data sets, by name, get the paper's figures at their side. The difference is
    measured − published, in points, and stands only where the runs took as many epochs as the
    paper's and saw all training images, pixels in place.

    Args:
        definitions: row → the fields that make it, `family` among them.
        targets: row → data set → epochs → published test accuracy, %.

    Raises:
        ConfigError: If a row is unknown; the message lists the valid ones.
    """

    fixed = (*TunedStudy.fixed, "family", "connectivity", "optimizer", "beta", "hidden_units")

    definitions: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    targets: Accuracies = dataclasses.field(default_factory=dict)

    d_base_channels: int | None = option(
        None, f"α of the D rows; none: a {_S_TO_D}th of --base-channels, rounded, at least 1"
    )
    three_fc_units: int | None = option(
        None, "hidden units of 3-FC; none: as many as give it S-FC's number of weights"
    )
    rows: tuple[str, ...] = option((), "rows of the table, case and punctuation aside")

    def __post_init__(self):
        super().__post_init__()
        self._positive("d_base_channels", "three_fc_units", optional=True)
        known = {slug(name): name for name in self.definitions}
        unknown = [name for name in self.rows if slug(name) not in known]
        if unknown:
            valid = ", ".join(f"{name} ({short})" for short, name in known.items())
            raise ConfigError(f"There is no row {', '.join(unknown)}. The rows are: {valid}.")
        # The order and the spelling are the table's.
        asked = [slug(name) for name in self.rows]
        object.__setattr__(self, "rows", tuple(known[name] for name in asked))
        self._distinct("rows")

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """The chosen rows, with their widths."""
        return {
            name: {**self.definitions[name], **self._width(self.definitions[name])}
            for name in self.definitions
            if name in self.rows
        }

    def row(self, name: str, dataset: str) -> RunConfig:
        """The run of one row on one data set, as the table trains it without `settings`.

        Raises:
            KeyError: If there is no such row.
        """
        definition = self.definitions[name]
        return self.on(dataset).replace(**definition, **self._width(definition))

    def findings(self, results: Results) -> Findings:
        """One table, and the curves of each data set."""
        beside = any(cell.dataset in PAPER_DATASETS for cell in results)
        rows = []
        for cell, runs in results.items():
            first = runs[0].row
            nonzeros = sum(sum(run.row["nonzeros"].values()) for run in runs) / len(runs)
            rows.append(
                {
                    "model": cell.row,
                    "test, %": percent(runs, "test_accuracy"),
                    **(self._paper(cell, mean(runs, "test_accuracy")) if beside else {}),
                    **origin_cells(cell, runs),
                    "width": str(first["width"]),
                    "kernel weights": f"{sum(first['kernel_parameters'].values()):,}",
                    "non-zero": f"{nonzeros:,.0f}",
                    "validation, %": percent(runs, "val_accuracy"),
                    "test at best epoch, %": percent(runs, "best_epoch_test_accuracy"),
                }
            )
        figures = {}
        for dataset in dict.fromkeys(cell.dataset for cell in results):
            histories = {
                f"{cell.row}, seed {run.row['seed']}": run.history
                for cell, runs in results.items()
                for run in runs
                if cell.dataset == dataset
            }
            name = dataset_label(dataset)
            figures[f"accuracy {name}"] = (
                f"Training and validation on {name}.",
                plots.accuracy_curves(histories, title=name),
            )
        return Findings({"": rows}, figures, self._remarks(beside))

    def _paper(self, cell: Cell, measured: float) -> dict[str, str]:
        by_epochs = self.targets[cell.row].get(cell.dataset, {})
        columns = sorted({n for found in self.targets.values() for e in found.values() for n in e})
        cells = {
            f"paper, {epochs} epochs": f"{by_epochs[epochs]:.2f}" if epochs in by_epochs else _NONE
            for epochs in columns
        }
        alike = self.run.num_train is None and self.run.permute_pixels is None
        if alike and self.run.epochs in by_epochs:
            cells["difference"] = f"{100 * measured - by_epochs[self.run.epochs]:+.2f}"
        else:
            cells["difference"] = _NONE
        return cells

    def _width(self, definition: Mapping[str, Any]) -> dict[str, int]:
        family = definition["family"]
        if family == "d":
            derived = max(1, round(self.run.base_channels / _S_TO_D))
            return {"base_channels": self.d_base_channels or derived}
        if family == "three_fc":
            budget = models.num_kernel_parameters(
                "s_fc", self.run.base_channels, hidden_ratio=self.run.hidden_ratio
            )
            derived = models.base_channels_for_budget("three_fc", budget)
            return {"hidden_units": self.three_fc_units or derived}
        return {}

    def _remarks(self, beside: bool) -> list[str]:
        if not beside:
            return []
        run = self.run
        settings = (
            f"learning rate {run.learning_rate}, momentum {run.momentum} and weight decay "
            f"{run.weight_decay} with SGD, none with β-LASSO, λ {run.l1_conv} (layers that stand "
            f"for convolutions) and {run.l1} (others), dropout {run.dropout_rate}"
        )
        if self.settings is not None:
            settings = f"each row's own settings, from {self.settings}"
        return [
            "The paper's widths are α = 150 (S), α = 15 (D) and 14,540 hidden units (3-FC); it "
            "picks learning rate, momentum, weight decay, the two λ and dropout for each row by "
            "validation accuracy and augments with Fast AutoAugment. Here: "
            f"α = {run.base_channels}, augment {run.augment}, {settings}."
        ]
