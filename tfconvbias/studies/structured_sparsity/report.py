"""The report of a sweep over structured sparsity: tables, findings, every figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from tfconvbias.training.report_page import write_page
from tfconvbias.training.sparsity_config import SparsityConfig
from tfconvbias.training.sparsity_sweep import SparsityResult, run_sparsity

from tfconvbias import analysis, plots
from tfconvbias.training.table import format_table

_COSTS = {
    "multiply-adds, % of the base": lambda row, base: 100 * row["multiply_adds_ratio"],
    "parameters, % of the base": lambda row, base: 100 * row["parameters"] / base["parameters"],
    "inference time, % of the base": lambda row, base: 100 * row["latency_ratio"],
}
_MOST_PANELS = 5
_MOST_KERNELS = 32


def report_sparsity(config: SparsityConfig) -> None:
    """Run a sweep, print its table and findings and write its report.

    Args:
        config: what to run, and where to keep it.

    Raises:
        As `run_sparsity`.
    """
    result = run_sparsity(config)
    page = write_sparsity_report(result)
    print("\n" + format_table(sparsity_table(result)) + "\n")
    print("\n".join(sparsity_findings(result)))
    print(f"Report: {page}")


def write_sparsity_report(result: SparsityResult) -> Path:
    """Write findings, tables and every figure into the run folder; the page's path."""
    how = result.base["environment"]
    versions = ", ".join(f"{package} {v}" for package, v in how["versions"].items())
    kind = "residual" if result.config.residual else "plain"
    return write_page(
        result.folder / "report.html",
        f"Structured sparsity: {result.config.base}, {kind}",
        {"Networks": sparsity_table(result), "Layers": layer_table(result)},
        sparsity_figures(result),
        [
            *sparsity_findings(result),
            ", ".join(f"{name} = {value}" for name, value in result.config.identity().items()),
            f"{result.base['num_train']} training and {result.base['num_test']} test images, "
            f"{how['hardware']}, backend {how['backend']}, {versions}, commit {how['commit']}",
            "Time: median over turns of the inference of one batch, beside the base's in the same "
            "process. Test accuracies are those after the last epoch.",
        ],
    )


def sparsity_table(result: SparsityResult) -> list[dict[str, str]]:
    """One row a network."""
    table = []
    for row in result.rows:
        found = row["kind"] == "found"
        table.append(
            {
                "network": _title(row),
                "with penalty, %": _percent(row["test_accuracy_penalized"]) if found else "",
                "thresholded, %": _percent(row["test_accuracy_thresholded"]) if found else "",
                "test, %": _percent(row["test_accuracy"]),
                "parameters": f"{row['parameters']:,}",
                "multiply-adds": f"{row['multiply_adds']:,}",
                "of the base": f"{row['multiply_adds_ratio']:.1%}",
                "theoretical": f"{row['theoretical_multiply_adds']:,}" if found else "",
                "time": f"{row['latency_ratio']:.2f}",
                "layers gone": str(len(row["vanished"])) if found else "",
                "correlation": _number(row["kernel_correlation"]) if found else "",
            }
        )
    return table


def layer_table(result: SparsityResult) -> list[dict[str, str]]:
    """One row a layer: live kernels and the kernel size that is kept, network by network."""
    table = []
    for index, layer in enumerate(result.base["architecture"]):
        row = {"layer": layer["name"], "base": _kernels(layer, "kernels", "kernel_size")}
        for found in result.of_kind("found"):
            own = found["architecture"][index]
            row[_title(found)] = _kernels(own, "kept_kernels", "kept_kernel_size")
        table.append(row)
    return table


def sparsity_findings(result: SparsityResult) -> list[str]:
    """What the sweep found, in sentences that follow from its rows alone."""
    base, found = result.base, result.of_kind("found")
    if not found:
        return ["The smallest α has removed every kernel: no network was found."]
    near = [row for row in found if row["test_accuracy"] >= base["test_accuracy"] - 0.01]
    sentences = []
    if near:
        best = min(near, key=lambda row: row["multiply_adds_ratio"])
        sentences.append(
            f"Within one point of the base ({_percent(base['test_accuracy'])} %), the smallest "
            f"network has {best['multiply_adds_ratio']:.1%} of its multiply-adds and "
            f"{best['latency_ratio']:.0%} of its inference time: {_title(best)} with "
            f"{_percent(best['test_accuracy'])} %."
        )
    else:
        sentences.append(
            f"No network found is within one point of the base ({_percent(base['test_accuracy'])} "
            "%)."
        )
    gone = {_title(row): row["vanished"] for row in found if row["vanished"]}
    for name, layers in gone.items():
        sentences.append(f"{name}: {len(layers)} layers are gone ({', '.join(layers)}).")
    for row in found:
        if row["messages"]:
            sentences.append(f"{_title(row)}: {' '.join(row['messages'])}")
    identities = sum(row["identity_kernels"] for row in found)
    sentences.append(
        f"Kernels that hand one channel on unchanged (eq. 24), in all networks found: {identities}."
    )
    return sentences


def sparsity_figures(result: SparsityResult) -> dict[str, tuple[str, Figure]]:
    """File name → caption and figure."""
    config, base, found = result.config, result.base, result.of_kind("found")
    figures = {
        "frontier": (
            "Test accuracy against three costs; each label is the network's α. Figures 4 and 5.",
            plots.accuracy_frontier(_series(result)),
        ),
        "path": (
            "Along the path: live kernels, test accuracy of the penalized network, mean absolute "
            "correlation of the kernels of a layer.",
            plots.path_curves(
                {"base": result.histories["base"]}
                | {
                    f"α = {alpha:g}": result.histories[f"alpha-{alpha:g}"]
                    for alpha in config.alphas
                    if f"alpha-{alpha:g}" in result.histories
                },
                {
                    "live_kernels": "live kernels",
                    "test_accuracy": "test accuracy",
                    "kernel_correlation": "kernel correlation",
                },
            ),
        ),
    }
    if found:
        shown = _spread(found)
        convolutions = [i for i, x in enumerate(base["architecture"]) if x["kind"] != "Dense"]
        figures["snakes"] = width_figure(result)
        figures["kernel-sizes"] = (
            "Sizes of the live kernels of each layer.",
            plots.kernel_size_histograms(
                {
                    _title(row): [
                        {int(k): v for k, v in row["architecture"][i]["sizes"].items()}
                        for i in convolutions
                    ]
                    for row in shown
                }
            ),
        )
    for row in [base, *_spread(found, 2)]:
        figures[f"kernels {row['name']}"] = (
            f"First-layer kernels after training, {_title(row)}.",
            plots.filter_images(_first_kernels(result.folder / row["name"] / "model.keras")),
        )
    return figures


def width_figure(result: SparsityResult) -> tuple[str, Figure]:
    """Caption and figure: live kernels of each convolution, of the base and of what was found."""

    def column(row: Mapping[str, Any], field: str) -> list[int]:
        return [layer[field] for layer in row["architecture"] if layer["kind"] != "Dense"]

    return (
        "Live kernels along the depth; dashed: the base. Figures 1 and 3.",
        plots.width_snakes(
            column(result.base, "kernels"),
            {_title(row): column(row, "live_kernels") for row in _spread(result.of_kind("found"))},
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
    """At most so many rows, first and last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _first_kernels(file: Path) -> np.ndarray:
    model = keras.saving.load_model(file, compile=False)
    kernel = next(k for k in analysis.kernels(model).values() if len(k.shape) == 4)
    images = np.moveaxis(keras.ops.convert_to_numpy(kernel), -1, 0)[:_MOST_KERNELS]
    # More than three channels can't be colours: the first one stands for all.
    return images if images.shape[-1] in (1, 3) else images[..., :1]


def _title(row: Mapping[str, Any]) -> str:
    if row["kind"] == "found":
        tau = f", τ = {row['tau']:g}" if row["tau"] else ""
        return f"α = {row['alpha']:g}{tau}"
    if row["kind"] == "uniform":
        return f"base, widths × {row['factor']:g}"
    return row["name"].replace("-", " ")


def _kernels(layer: Mapping[str, Any], count: str, size: str) -> str:
    if not layer[count]:
        return "–"
    suffix = "" if layer["kind"] == "Dense" else f" of {layer[size]}×{layer[size]}"
    return f"{layer[count]}{suffix}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
