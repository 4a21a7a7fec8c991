"""Non-zero weights of each layer over training: Neyshabur 2020, Figure 3."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from tfconvbias.lazy import models, plots
from tfconvbias.studies.neyshabur2020.paper_targets import FIGURE_3_LAYERS, FIGURE_3_NONZEROS
from tfconvbias.studies.study import Findings, Results, Study, origin_cells
from tfconvbias.training import RunResult, dataset_label

_ROW = "S-FC, β-LASSO"


@dataclasses.dataclass(frozen=True)
class NonzeroStudy(Study):
    """S-FC under β-LASSO, its layers' non-zero weights beside S-CONV's and S-LOCAL's counts.

    The counts are those of S-CONV and S-LOCAL with the same α. On the real data sets the paper's
    final counts stand beside ours, and as shares of its layers, which are wider: its reference
    lines fit α = 230 and fc1 of width 25α on CIFAR-10, and its S-LOCAL line leaves out the three
    channels.
    """

    fixed = (*Study.fixed, "family", "connectivity", "optimizer", "hidden_units")

    subject: str = "non-zero weights of each layer"

    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """The one row."""
        return {_ROW: {"family": "s", "connectivity": "dense", "optimizer": "beta_lasso"}}

    def findings(self, results: Results) -> Findings:
        """A table by layer, and the curves of each data set."""
        rows, figures, conclusion = [], {}, []
        for cell, runs in results.items():
            label = dataset_label(cell.dataset)
            sizes = runs[0].row["kernel_parameters"]
            references = reference_counts(runs[0], self.run.base_channels, self.run.kernel_size)
            theirs = FIGURE_3_NONZEROS.get(cell.dataset, {})
            for layer, size in sizes.items():
                count = statistics.fmean(run.row["nonzeros"][layer] for run in runs)
                if layer == next(iter(sizes)):
                    conclusion.append(_left(layer, label, count, size, references[layer]))
                rows.append(
                    {
                        "layer": layer,
                        "weights": f"{size:,}",
                        "non-zero": f"{count:,.0f}",
                        "share, %": f"{100 * count / size:.3f}",
                        **{name: f"{n:,}" for name, n in references[layer].items()},
                        **(_published(layer, theirs[layer], cell.dataset) if theirs else {}),
                        **origin_cells(cell, runs),
                    }
                )
            figures[f"nonzeros {label}"] = (
                f"{label}: weights of S-FC that are not exactly zero; dashed, the counts of "
                f"S-CONV and S-LOCAL with the same α = {self.run.base_channels}.",
                plots.nonzero_curves(
                    {f"{_ROW}, seed {run.row['seed']}": run.history for run in runs},
                    {
                        f"{_ROW}, seed {run.row['seed']}": run.row["kernel_parameters"]
                        for run in runs
                    },
                    list(sizes),
                    lines={layer: _lines(counts) for layer, counts in references.items()},
                ),
            )
        columns = list(dict.fromkeys(name for row in rows for name in row))
        full = [{name: row.get(name, "–") for name in columns} for row in rows]
        return Findings({"": full}, figures, conclusion=conclusion)


def reference_counts(
    result: RunResult, base_channels: int, kernel_size: int | None = None
) -> dict[str, dict[str, int]]:
    """Layer → S-CONV's and S-LOCAL's weights at the same α, for a finished S-FC run.

    Args:
        result: of S-FC.
        base_channels: its α.
        kernel_size: side of the receptive fields of the other two; by default 9.
    """
    sizes = result.row["kernel_parameters"]
    model = result.folder.load_model(result.folder.last_model, compile=False)
    rest = {layer: size for layer, size in sizes.items() if layer != "conv1"}

    def count(family: str) -> int:
        return models.num_kernel_parameters(
            family,
            base_channels,
            input_shape=tuple(model.input_shape[1:]),
            classes=model.output_shape[-1],
            kernel_size=kernel_size,
        )

    def first_layer(family: str) -> int:
        # The other layers are those of S-FC.
        return count(family) - count("s_fc") + sizes["conv1"]

    return {
        "conv1": {"S-CONV": first_layer("s_conv"), "S-LOCAL": first_layer("s_local")},
        **{layer: {"S-CONV": size, "S-LOCAL": size} for layer, size in rest.items()},
    }


def _left(layer: str, dataset: str, count: float, size: int, others: Mapping[str, int]) -> str:
    beside = " and ".join(f"{number:,} weights in {name}" for name, number in others.items())
    return (
        f"On {dataset}, {count:,.0f} of the {size:,} weights of {layer} are not zero "
        f"({100 * count / size:.3f} %). With the same α it has {beside}."
    )


def _lines(counts: Mapping[str, int]) -> dict[str, int]:
    """One line for equal counts, whose labels would lie on each other."""
    if len(set(counts.values())) == 1:
        return {" = ".join(counts): next(iter(counts.values()))}
    return dict(counts)


def _published(layer: str, count: int, dataset: str) -> dict[str, str]:
    size = FIGURE_3_LAYERS[layer]
    if layer == "fc2" and dataset == "cifar100":
        size *= 10
    return {"paper, non-zero": f"{count:,}", "paper, share, %": f"{100 * count / size:.3f}"}
