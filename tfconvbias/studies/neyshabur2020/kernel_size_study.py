"""ResNet18 by kernel size, SGD beside β-LASSO: Neyshabur 2020, Figure 5."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tfconvbias.lazy import plots
from tfconvbias.studies.neyshabur2020.paper_targets import FIGURE_5
from tfconvbias.studies.neyshabur2020.tuned_study import TunedStudy
from tfconvbias.studies.study import Findings, Results, mean, origin_cells, percent
from tfconvbias.training import RunConfig, dataset_label, option
from tfconvbias.training.table import OPTIMIZERS

_PAPER_EPOCHS = 400


def published(dataset: str) -> dict[str, dict[int, float]]:
    """Optimizer → kernel size → the paper's test accuracy in %; nothing for other data sets."""
    found = FIGURE_5.get(dataset, {})
    return {name: found[optimizer] for optimizer, name in OPTIMIZERS.items() if optimizer in found}


@dataclasses.dataclass(frozen=True)
class KernelSizeStudy(TunedStudy):
    """ResNet18 with kernels of several sizes, trained with SGD and with β-LASSO.

    The published values stand beside the real data sets only, and the difference only where the
    runs took the paper's 400 epochs over all training images, pixels in place.
    """

    fixed = (
        *TunedStudy.fixed,
        *("family", "connectivity", "optimizer", "hidden_units"),
        *("kernel_size", "dropout_rate"),
    )

    run: RunConfig = RunConfig(family="resnet18", base_channels=64)
    subject: str = "ResNet18 by kernel size"
    kernel_sizes: tuple[int, ...] = option((3, 5, 7, 9, 11, 13, 15), "sides of the kernels")

    def __post_init__(self):
        super().__post_init__()
        self._distinct("kernel_sizes")
        self._all_positive("kernel_sizes")

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """A row for each optimizer and kernel size."""
        return {
            _row(name, size): {"family": "resnet18", "optimizer": optimizer, "kernel_size": size}
            for size in self.kernel_sizes
            for optimizer, name in OPTIMIZERS.items()
        }

    def findings(self, results: Results) -> Findings:
        """A table, and one figure with one panel per data set."""
        beside = any(cell.dataset in FIGURE_5 for cell in results)
        sizes = {
            _row(name, size): (optimizer, name, size)
            for optimizer, name in OPTIMIZERS.items()
            for size in self.kernel_sizes
        }
        rows = []
        measured: dict[str, dict[str, dict[int, list[float]]]] = {}
        for cell, runs in results.items():
            optimizer, name, size = sizes[cell.row]
            accuracy = 100 * mean(runs, "test_accuracy")
            curves = measured.setdefault(dataset_label(cell.dataset), {})
            found = [100 * run.row["test_accuracy"] for run in runs]
            curves.setdefault(name, {})[size] = found
            weights = sum(runs[0].row["kernel_parameters"].values())
            nonzeros = sum(sum(run.row["nonzeros"].values()) for run in runs) / len(runs)
            rows.append(
                {
                    "kernel size": str(size),
                    "optimizer": name,
                    "test, %": percent(runs, "test_accuracy"),
                    **(self._paper(cell.dataset, optimizer, size, accuracy) if beside else {}),
                    **origin_cells(cell, runs),
                    "kernel weights": f"{weights:,}",
                    "non-zero, %": f"{100 * nonzeros / weights:.2f}",
                }
            )
        theirs = {name: published(name) for name in self.datasets if name in FIGURE_5}
        bars = ", bars of one standard deviation over seeds" if len(self.seeds) > 1 else ""
        caption = f"Test accuracy of ResNet18 against the side of its kernels{bars}" + (
            "; dashed, the paper's (64 channels, 400 epochs)." if theirs else "."
        )
        figure = plots.accuracy_against_kernel_size(measured, theirs)
        conclusion = [_from_small_to_large(dataset, found) for dataset, found in measured.items()]
        return Findings({"": rows}, {"kernel size": (caption, figure)}, conclusion=conclusion)

    def _paper(self, dataset: str, optimizer: str, size: int, accuracy: float) -> dict[str, str]:
        theirs = FIGURE_5.get(dataset, {}).get(optimizer, {}).get(size)
        alike = (
            self.run.epochs == _PAPER_EPOCHS
            and self.run.num_train is None is self.run.permute_pixels
        )
        return {
            "paper, 400 epochs": "–" if theirs is None else f"{theirs:.2f}",
            "difference": "–" if theirs is None or not alike else f"{accuracy - theirs:+.2f}",
        }


def _from_small_to_large(dataset: str, curves: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    sizes = [size for by_size in curves.values() for size in by_size]
    least, most = min(sizes), max(sizes)
    changes = ", ".join(
        f"{name} from {fmean(by_size[least]):.2f} to {fmean(by_size[most]):.2f} %"
        for name, by_size in curves.items()
        if {least, most} <= by_size.keys()
    )
    return f"Test accuracy on {dataset} from {least}×{least} to {most}×{most} kernels: {changes}."


def _row(name: str, size: int) -> str:
    return f"{size}×{size} kernels, {name}"
