"""The figures of a sweep over structured sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfconvbias.lazy import analysis, keras, plots
from tfconvbias.studies.structured_sparsity.result import SparsityResult
from tfconvbias.training import Figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COSTS = {
    "multiply-adds, % of the base": lambda row, base: 100 * row["multiply_adds_ratio"],
    "parameters, % of the base": lambda row, base: 100 * row["parameters"] / base["parameters"],
    "inference time, % of the base": lambda row, base: 100 * row["latency_ratio"],
}
_MOST_PANELS = 5
_MOST_KERNELS = 32


def sparsity_figures(result: SparsityResult) -> Figures:
    """File name → caption and figure."""
    config, base, found = result.config, result.base, result.of_kind("found")
    figures: Figures = {
        "frontier": (
            "Test accuracy against three costs; each label is the network's α. Figures 4 and 5.",
            plots.accuracy_frontier(_series(result)),
        ),
        "path": (
            "Along the path: live kernels, test accuracy of the penalized network, and mean "
            "absolute correlation between the kernels of a layer.",
            plots.path_curves(
                {"base": _in_percent(result.histories["base"])}
                | {
                    f"α = {alpha:g}": _in_percent(result.histories[f"alpha-{alpha:g}"])
                    for alpha in config.alphas
                    if f"alpha-{alpha:g}" in result.histories
                },
                {
                    "live_kernels": "live kernels",
                    "test_accuracy": "test accuracy, %",
                    "kernel_correlation": "kernel correlation",
                },
            ),
        ),
    }
    if found:
        shown = _spread(found)
        convolutions = [i for i, x in enumerate(base["architecture"]) if x["kind"] != "Dense"]
        figures["snakes"] = width_figure(result)
        sizes = {network_title(row): _sizes(row, convolutions) for row in shown}
        figures["kernel-sizes"] = (
            "Sizes of the live kernels of each layer.",
            plots.kernel_size_histograms(sizes),
        )
        figures["size-snakes"] = (
            "Kernels of each size along the depth; dashed: the base. Figure 3.",
            plots.size_snakes(_sizes(base, convolutions), sizes),
        )
    for row in [base, *_spread(found, 2)]:
        figures[f"kernels {row['name']}"] = (
            f"First-layer kernels after training, {network_title(row)}.",
            plots.filter_images(_first_kernels(result.model_file(row["name"]))),
        )
    return figures


def _sizes(row: Mapping[str, Any], layers: Sequence[int]) -> list[dict[int, int]]:
    """Size → number of kernels of some of a network's layers."""
    return [
        {int(size): count for size, count in row["architecture"][i]["sizes"].items()}
        for i in layers
    ]


def width_figure(result: SparsityResult) -> tuple[str, Figure]:
    """Caption and figure: live kernels of each convolution, of the base and of what was found."""

    def column(row: Mapping[str, Any], field: str) -> list[int]:
        return [layer[field] for layer in row["architecture"] if layer["kind"] != "Dense"]

    return (
        "Live kernels along the depth; dashed: the base. Figure 1.",
        plots.width_snakes(
            column(result.base, "kernels"),
            {
                network_title(row): column(row, "live_kernels")
                for row in _spread(result.of_kind("found"))
            },
        ),
    )


def _series(result: SparsityResult) -> list[plots.Series]:
    base = result.base

    def points(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
        return {name: [cost(row, base) for row in rows] for name, cost in _COSTS.items()}

    series = [plots.Series("base", points([base]), [100 * base["test_accuracy"]], "single")]
    found = result.of_kind("found")
    for tau in result.config.taus:
        rows = [row for row in found if row["tau"] == tau]
        if not rows:
            continue
        suffix = f", τ = {tau:g}" if len(result.config.taus) > 1 else ""
        for label, column, style in (
            ("thresholded", "test_accuracy_thresholded", "before"),
            ("fine-tuned", "test_accuracy", "line"),
        ):
            series.append(
                plots.Series(
                    label + suffix,
                    points(rows),
                    [100 * row[column] for row in rows],
                    style,
                    [f"{row['alpha']:g}" for row in rows] if style == "line" else (),
                )
            )
    for label, kind, style in (
        ("base, narrower", "uniform", "line"),
        ("random widths", "random", "points"),
    ):
        rows = result.of_kind(kind)
        if rows:
            accuracies = [100 * row["test_accuracy"] for row in rows]
            series.append(plots.Series(label, points(rows), accuracies, style))
    return series


def _spread(rows: Sequence[dict[str, Any]], most: int = _MOST_PANELS) -> list[dict[str, Any]]:
    """At most `most` rows, evenly spaced, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _in_percent(history: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    return {**history, "test_accuracy": [100 * value for value in history["test_accuracy"]]}


def _first_kernels(file: Path) -> np.ndarray:
    model = keras.saving.load_model(file, compile=False)
    kernel = next(k for k in analysis.kernels(model).values() if len(k.shape) == 4)
    images = np.moveaxis(keras.ops.convert_to_numpy(kernel), -1, 0)[:_MOST_KERNELS]
    # More than three channels are no colours: the first one stands for all.
    return images if images.shape[-1] in (1, 3) else images[..., :1]


def network_title(row: Mapping[str, Any]) -> str:
    """What a network is called in tables and figures."""
    if row["kind"] == "found":
        tau = f", τ = {row['tau']:g}" if row["tau"] else ""
        return f"α = {row['alpha']:g}{tau}"
    if row["kind"] == "uniform":
        return f"base, widths × {row['factor']:g}"
    return row["name"].replace("-", " ")
