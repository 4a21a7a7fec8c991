"""First-layer filters as images, and how local they are: Neyshabur 2020, Figures 4 and 7–9."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tfconvbias.lazy import analysis, plots
from tfconvbias.studies.study import Findings, Results, Study, origin_cells, percent
from tfconvbias.training import (
    MIN_NONZEROS,
    ConfigError,
    dataset_label,
    first_layer_images,
    option,
)

ROWS: Mapping[str, Mapping[str, Any]] = {
    "S-FC, SGD": {"connectivity": "dense", "optimizer": "sgd"},
    "S-FC, β-LASSO": {"connectivity": "dense", "optimizer": "beta_lasso"},
    "S-LOCAL, SGD": {"connectivity": "local", "optimizer": "sgd"},
}


@dataclasses.dataclass(frozen=True)
class FilterStudy(Study):
    """Filters of S-FC under SGD and β-LASSO and of S-LOCAL, drawn at random.

    Units are drawn and measured among those with at least 20 non-zero input weights; where fewer
    units than asked for have as many, the bound is lowered and the report says so. Beside the
    pictures stands what they show in numbers: the weights' spread around their centroid and their
    share in the best window, against the same weights on permuted pixels.
    """

    fixed = (*Study.fixed, "family", "connectivity", "optimizer", "hidden_units")

    subject: str = "filters of the first layer"

    num_filters: int = option(24, "units drawn")
    window: int = option(9, "side of the window of the locality")
    max_units: int = option(1000, "units measured, drawn at random")

    def __post_init__(self):
        super().__post_init__()
        self._positive("num_filters", "window", "max_units")

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """The paper's three."""
        return {name: {"family": "s", **fields} for name, fields in ROWS.items()}

    def findings(self, results: Results) -> Findings:
        """A table of localities, and the filters of each row's first seed."""
        rows, figures = [], {}
        spreads: dict[str, list[str]] = {}
        for cell, runs in results.items():
            first = runs[0]
            model = first.folder.load_model(first.folder.last_model, compile=False)
            side = min(model.input_shape[1:3])
            if self.window > side:
                raise ConfigError(
                    f"window must not exceed the images' side, {side}. "
                    f"Received: window={self.window}"
                )
            drawn = first_layer_images(model, num=self.num_filters)
            # One weight alone is always local.
            least = max(2, drawn[1]) if drawn else MIN_NONZEROS
            found = analysis.layer_locality(
                model, window=self.window, max_units=self.max_units, min_nonzeros=least
            )
            rows.append(
                {
                    "model": cell.row,
                    "test, %": percent(runs, "test_accuracy"),
                    "spread, pixels": _number(found.spread, 2),
                    "pixels permuted": _number(found.permuted_spread, 2),
                    "ratio": _number(found.spread_ratio, 3),
                    f"share in {self.window}×{self.window}, %": _number(
                        100 * found.window_share, 1
                    ),
                    "share, pixels permuted, %": _number(100 * found.permuted_window_share, 1),
                    "ratio of shares": _number(found.window_share_ratio, 2),
                    "units measured": f"{found.num_units:,} with ≥ {least} weights",
                    **origin_cells(cell, runs),
                }
            )
            spreads.setdefault(dataset_label(cell.dataset), []).append(
                f"{_number(found.spread_ratio, 3)} for {cell.row}"
            )
            name = f"{cell.row}, {dataset_label(cell.dataset)}"
            if drawn is not None:
                images, least = drawn
                figures[f"filters {name}"] = (
                    f"{name}, seed {first.row['seed']}: input weights of {len(images)} first-layer "
                    f"units, drawn at random among those with at least {least} non-zero weights. "
                    "Each is scaled by its own largest weight; zero is grey. The square is the "
                    f"{self.window}×{self.window} window with most of the unit's weight.",
                    plots.filter_images(images, title=name, window=self.window),
                )
        remark = (
            "Localities are those of each row's first seed, compared with the same weights after a "
            "permutation of pixels. Units with fewer than 20 non-zero input weights are left out, "
            "or fewer than the bound in the table, which falls where too few units have as many."
        )
        conclusion = [
            f"Spread of the first layer's filters on {dataset}, divided by the spread of the same "
            f"weights on permuted pixels (1: place means nothing): {', '.join(found)}."
            for dataset, found in spreads.items()
        ]
        return Findings({"": rows}, figures, [remark], conclusion)


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
