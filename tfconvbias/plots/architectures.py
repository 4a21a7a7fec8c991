"""Learned architectures: widths along the depth, kernel sizes, cost against accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import WholeNumbers, legend_below, panels, within_percent

_STYLES: Mapping[str, Mapping[str, Any]] = {
    "line": {"marker": "o", "linestyle": "-"},
    "before": {"marker": "o", "linestyle": ":", "fillstyle": "none"},
    "points": {"marker": "x", "linestyle": "none"},
    "single": {"marker": "*", "linestyle": "none", "markersize": 14},
}


class Series(NamedTuple):
    """Networks that are drawn in the same style.

    Attributes:
        label: Name in the legend.
        points: Cost name → its value for each network.
        accuracy: Accuracy of each network, in %.
        style: `"line"`, `"before"` (dotted, hollow), `"points"` or `"single"` (a star).
        notes: Texts beside the points of the first panel.
        spread: Standard deviation of each accuracy over seeds, drawn as bars; empty for none.
    """

    label: str
    points: Mapping[str, Sequence[float]]
    accuracy: Sequence[float]
    style: str = "line"
    notes: Sequence[str] = ()
    spread: Sequence[float] = ()


@checked
def accuracy_frontier(
    series: Sequence[Series], title: str | None = None, accuracy: str = "test accuracy, %"
) -> Figure:
    """Accuracy against each cost, one panel per cost.

    Args:
        series: Networks; all must have the same costs.
        title: Text above the panels.
        accuracy: Label of the vertical axes.

    Returns:
        A figure with one panel per cost.

    Raises:
        ValueError: If `series` is empty.

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", Figures 4, 5.
    """
    if not series:
        raise ValueError("`series` must hold at least one series.")
    costs = list(series[0].points)
    figure, axes = panels(len(costs))
    for axis, cost in zip(axes, costs, strict=True):
        for index, one in enumerate(series):
            order = np.argsort(one.points[cost])
            axis.plot(
                np.asarray(one.points[cost])[order],
                np.asarray(one.accuracy)[order],
                color=f"C{index}",
                label=one.label,
                **_STYLES[one.style],
            )
            if one.spread:
                axis.errorbar(
                    one.points[cost],
                    one.accuracy,
                    yerr=one.spread,
                    fmt="none",
                    ecolor=f"C{index}",
                    capsize=3,
                )
        axis.set(xlabel=cost, ylabel=accuracy)
        within_percent(axis)
        axis.grid(alpha=0.3)
    for one in series:
        for x, y, note in zip(one.points[costs[0]], one.accuracy, one.notes, strict=False):
            axes[0].annotate(
                note, (x, y), xytext=(4, -10), textcoords="offset points", fontsize="x-small"
            )
    legend_below(figure, axes[0], len(series))
    if title:
        figure.suptitle(title)
    return figure


@checked
def width_snakes(
    base: Sequence[int], widths: Mapping[str, Sequence[int]], title: str | None = None
) -> Figure:
    """Number of kernels along the depth, drawn around a middle line; dashed for the base.

    Args:
        base: Number of kernels of each layer of the base.
        widths: Panel title → number of live kernels of each layer.
        title: Text above the panels.

    Returns:
        A figure with one panel per learned architecture.

    Raises:
        ValueError: If an architecture has another number of layers than the base.

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", Figure 1.
    """
    figure, axes = panels(max(1, len(widths)), width=3.2, height=2.8)
    depth = np.arange(1, len(base) + 1)
    # Half a layer before the first and after the last one, so that each is a whole step.
    edges = np.concatenate([depth - 0.5, depth[-1:] + 0.5])
    frame = np.asarray(base) / 2
    for axis, (name, live) in zip(axes, widths.items(), strict=False):
        if len(live) != len(base):
            raise ValueError(
                f"`widths` must have a number for each of the {len(base)} layers of `base`. "
                f"Received: {len(live)} for {name!r}"
            )
        half = np.asarray(live) / 2
        axis.stairs(half, edges, baseline=-half, fill=True, alpha=0.7)
        axis.stairs(frame, edges, baseline=None, color="k", linestyle="--", linewidth=0.8)
        axis.stairs(-frame, edges, baseline=None, color="k", linestyle="--", linewidth=0.8)
        axis.set(title=name, xlabel="layer", ylabel="kernels")
        axis.set_yticks(
            [-frame.max(), 0, frame.max()], [f"{frame.max():g}", "0", f"{frame.max():g}"]
        )
    if title:
        figure.suptitle(title)
    return figure


@checked
def kernel_size_histograms(
    sizes: Mapping[str, Sequence[Mapping[int, int]]], title: str | None = None
) -> Figure:
    """Number of live kernels of each size in each layer, as stacked bars.

    Args:
        sizes: Panel title → for each layer a mapping from kernel size to number of kernels.
        title: Text above the panels.

    Returns:
        A figure with one panel per architecture.

    """
    figure, axes = panels(max(1, len(sizes)), width=3.2, height=2.8)
    all_sizes = sorted({s for layers in sizes.values() for layer in layers for s in layer if s})
    for axis, (name, layers) in zip(axes, sizes.items(), strict=False):
        depth = np.arange(1, len(layers) + 1)
        bottom = np.zeros(len(layers))
        for index, size in enumerate(all_sizes):
            counts = np.array([layer.get(size, 0) for layer in layers])
            label = f"{size}×{size}"
            axis.bar(depth, counts, bottom=bottom, width=0.9, color=f"C{index}", label=label)
            bottom += counts
        axis.set(title=name, xlabel="layer", ylabel="live kernels")
    if all_sizes:
        legend_below(figure, axes[0], len(all_sizes))
    if title:
        figure.suptitle(title)
    return figure


@checked
def path_curves(
    stages: Mapping[str, Mapping[str, Sequence[float]]], columns: Mapping[str, str]
) -> Figure:
    """Columns of the histories of consecutive trainings, along all epochs.

    Args:
        stages: Name of a training → history column → one value per epoch.
        columns: History column → axis label.

    Returns:
        A figure with one panel per column.
    """
    figure, axes = panels(len(columns))
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        start = 0
        for index, (name, history) in enumerate(stages.items()):
            values = history[column]
            axis.plot(
                np.arange(start, start + len(values)), values, color=f"C{index % 10}", label=name
            )
            # Each training's first row is measured before its first step, where the last one ended.
            start += len(values) - 1
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(WholeNumbers())
        axis.grid(alpha=0.3)
    legend_below(figure, axes[0], len(stages))
    return figure
