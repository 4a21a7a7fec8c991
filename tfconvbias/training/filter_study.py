"""First-layer filters as images, and how local they are: Neyshabur 2020, Figures 4 and 7–9."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from tfconvbias import analysis, plots
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.report import first_layer_images
from tfconvbias.training.run_config import option
from tfconvbias.training.study import Findings, Results, Study, dataset_label, origin_cells, percent

ROWS: Mapping[str, Mapping[str, Any]] = {
    "S-FC, SGD": {"connectivity": "dense", "optimizer": "sgd"},
    "S-FC, β-LASSO": {"connectivity": "dense", "optimizer": "beta_lasso"},
    "S-LOCAL, SGD": {"connectivity": "local", "optimizer": "sgd"},
}


@dataclasses.dataclass(frozen=True)
class FilterStudy(Study):
    """Filters of S-FC under SGD and β-LASSO and of S-LOCAL, drawn at random.

    Units are drawn among those with at least 20 non-zero input weights; where fewer units than
    asked for have as many, the bound is lowered and the caption says so. Beside the pictures
    stands what they show in numbers: the weights' spread around their centroid and their share in
    the best window, against the same weights on permuted pixels.
    """

    fixed = ("family", "connectivity", "optimizer", "hidden_units")

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
        for cell, runs in results.items():
            first = runs[0]
            model = keras.saving.load_model(first.folder.last_model, compile=False)
            side = min(model.input_shape[1:3])
            if self.window > side:
                raise ConfigError(
                    f"window must not exceed the images' side, {side}. "
                    f"Received: window={self.window}"
                )
            found = analysis.layer_locality(model, window=self.window, max_units=self.max_units)
            rows.append(
                {
                    "model": cell.row,
                    **origin_cells(cell, runs),
                    "test, %": percent(runs, "test_accuracy"),
                    "units measured": str(found.num_units),
                    "spread, pixels": f"{found.spread:.2f}",
                    "pixels permuted": f"{found.permuted_spread:.2f}",
                    "ratio": f"{found.spread_ratio:.3f}",
                    f"share in {self.window}×{self.window}, %": f"{100 * found.window_share:.1f}",
                    "share, pixels permuted, %": f"{100 * found.permuted_window_share:.1f}",
                    "ratio of shares": f"{found.window_share_ratio:.2f}",
                }
            )
            name = f"{cell.row}, {dataset_label(cell.dataset)}"
            drawn = first_layer_images(model, num=self.num_filters)
            if drawn is not None:
                images, least = drawn
                figures[f"filters {name}"] = (
                    f"{name}, seed {first.row['seed']}: input weights of {len(images)} first-layer "
                    f"units, drawn at random among those with at least {least} non-zero weights. "
                    "Each is scaled by its own largest weight; zero is grey.",
                    plots.filter_images(images, title=name),
                )
        remark = (
            "Localities are those of each row's first seed, over units with at least 20 non-zero "
            "input weights; they are compared with the same weights after a permutation of pixels."
        )
        return Findings({"": rows}, figures, [remark])
