"""What a fixed permutation of all pixels changes: nothing for S-FC, much for S-CONV."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfconvbias.lazy import plots
from tfconvbias.studies.neyshabur2020.tuned_study import TunedStudy
from tfconvbias.studies.study import Cell, Findings, Results, mean, origin_cells, percent
from tfconvbias.training import ConfigError, RunConfig, dataset_label

ROWS: Mapping[str, Mapping[str, Any]] = {
    "S-FC, SGD": {"connectivity": "dense", "optimizer": "sgd"},
    "S-FC, β-LASSO": {"connectivity": "dense", "optimizer": "beta_lasso"},
    "S-CONV, SGD": {"connectivity": "conv", "optimizer": "sgd"},
}
_PLAIN, _PERMUTED = "pixels in place", "pixels permuted"


@dataclasses.dataclass(frozen=True)
class PermutationStudy(TunedStudy):
    """S-FC and S-CONV on the images as they are, and with all pixels permuted alike.

    A dense layer's initial weights are drawn alike for every pixel, so that S-FC's accuracy on
    permuted images has the same distribution; with the same seed it differs as two seeds differ.
    Pixels are permuted after the augmentation, so that S-FC's problem stays the same with any.
    """

    fixed = (*TunedStudy.fixed, "family", "connectivity", "optimizer", "hidden_units")

    run: RunConfig = RunConfig(permute_pixels=1)

    def __post_init__(self):
        super().__post_init__()
        if self.run.permute_pixels is None:
            raise ConfigError("permute_pixels must be a seed. Received: permute_pixels=None")

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Each model on plain and on permuted pixels."""
        return {
            f"{name}, {pixels}": {"family": "s", **fields, "permute_pixels": seed}
            for name, fields in ROWS.items()
            for pixels, seed in ((_PLAIN, None), (_PERMUTED, self.run.permute_pixels))
        }

    def findings(self, results: Results) -> Findings:
        """A table, and one figure per data set."""
        rows, figures, conclusion = [], {}, []
        for dataset in dict.fromkeys(cell.dataset for cell in results):
            pairs = {}
            for name in ROWS:
                plain, permuted = (Cell(f"{name}, {p}", dataset) for p in (_PLAIN, _PERMUTED))
                if plain not in results or permuted not in results:
                    continue
                both = (
                    100 * mean(results[plain], "test_accuracy"),
                    100 * mean(results[permuted], "test_accuracy"),
                )
                pairs[name] = both
                rows.append(
                    {
                        "model": name,
                        f"test, %, {_PLAIN}": percent(results[plain], "test_accuracy"),
                        f"test, %, {_PERMUTED}": percent(results[permuted], "test_accuracy"),
                        "change, points": f"{both[1] - both[0]:+.2f}",
                        **origin_cells(plain, results[plain]),
                    }
                )
            if not pairs:
                continue
            label = dataset_label(dataset)
            changes = (f"of {name} by {y - x:+.2f} points" for name, (x, y) in pairs.items())
            conclusion.append(
                f"Permuting the pixels of {label} changes the test accuracy {', '.join(changes)}."
            )
            figures[f"permutation {label}"] = (
                f"{label}: test accuracy with the pixels in place, and after one fixed "
                f"permutation of them (seed {self.run.permute_pixels}).",
                plots.accuracy_pairs(pairs, (_PLAIN, _PERMUTED), title=label),
            )
        return Findings({"": rows}, figures, conclusion=conclusion)
