"""Figures of embedded networks: training, landscape, deviation, weights, interpolation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import (
    curve_style,
    legend_below,
    legend_under,
    panels,
    within_percent,
)

History = Mapping[str, Sequence[float]]

_CNN, _FCN = "black", "tab:red"


@checked
def switch_time_curves(
    cnn: History,
    fcn: History,
    efcns: Mapping[int, History],
    *,
    label: str = "eFCN",
    baseline: str = "FCN",
) -> Figure:
    """Training loss and test accuracy against epochs, and embedded runs beside the CNN they left.

    Args:
        cnn: Columns epoch, loss and test_accuracy (fractions), from epoch 0.
        fcn: The same for the standard network.
        efcns: Switch time → the same for the embedded network, in epochs of its own training.
        label: Name of an embedded network.
        baseline: Name of the standard network.

    Returns:
        A figure with three panels. The third is Figure 9 of the paper, in which a dashed line is
        the best accuracy of the standard network.
    """
    figure, axes = panels(3)
    shades = _shades(efcns)
    for axis, (column, name, scale) in zip(
        axes[:2],
        (("loss", "training loss", 1), ("test_accuracy", "test accuracy, %", 100)),
        strict=True,
    ):
        for history, color, text in [
            (cnn, _CNN, "CNN"),
            (fcn, _FCN, baseline),
            *((h, shades[t], f"{label}, t_w = {t}") for t, h in efcns.items()),
        ]:
            values = scale * np.asarray(history[column], dtype=float)
            axis.plot(history["epoch"], values, color=color, label=text)
        _time_axis(axis)
        axis.set(xlabel="epoch", ylabel=name)
        axis.grid(alpha=0.3)
    within_percent(axes[1])
    legend_below(figure, axes[0], 6)
    last = axes[2]
    last.plot(cnn["epoch"], 100 * np.asarray(cnn["test_accuracy"]), color=_CNN, label="CNN")
    best = 100 * max(fcn["test_accuracy"])
    last.axhline(best, color=_FCN, linestyle="--", label=f"best {baseline}")
    points = None
    for time, history in efcns.items():
        points = last.scatter(
            [time] * len(history["epoch"]),
            100 * np.asarray(history["test_accuracy"]),
            c=history["epoch"],
            marker="x",
            cmap="viridis",
            vmin=0,
            vmax=max(max(h["epoch"]) for h in efcns.values()),
        )
    if points is not None:
        figure.colorbar(points, ax=last, label=f"epochs of the {label}")
    last.set(xlabel="epochs of the CNN", ylabel="test accuracy, %")
    within_percent(last)
    last.grid(alpha=0.3)
    return figure


@checked
def against_switch_time(
    rows: Mapping[int, Mapping[str, Any]],
    baselines: Mapping[str, float],
    *,
    label: str = "eFCN",
    spreads: Mapping[int, Mapping[str, float]] | None = None,
) -> Figure:
    """Accuracy, and gradient norm and top Hessian eigenvalue at start and end (Figure 3).

    Args:
        rows: Switch time → test_accuracy, that of the last epoch, and, if they were measured,
            best_test_accuracy, gradient_norm_start, gradient_norm_end, eigenvalue_start and
            eigenvalue_end.
        baselines: Name → accuracy (fraction), drawn as horizontal lines.
        label: Name of an embedded network.
        spreads: Where `rows` are means over seeds, their standard deviations in the same form,
            drawn as bars.

    Returns:
        A figure with one panel, or three if the landscape was measured.
    """
    times = sorted(rows)
    panes = [
        (column, name)
        for column, name in (("gradient_norm", "‖∇L‖"), ("eigenvalue", "largest λ of the Hessian"))
        if all(f"{column}_end" in rows[time] for time in times)
    ]
    figure, axes = panels(1 + len(panes))
    for column, style, name in (
        ("test_accuracy", "x-", label),
        ("best_test_accuracy", "+:", f"{label}, best epoch"),
    ):
        if all(column in rows[t] for t in times):
            values = [100 * rows[t][column] for t in times]
            axes[0].plot(times, values, style, label=name)
            _draw_spread(axes[0], times, values, column, spreads, 100)
    for (name, value), style in zip(baselines.items(), ("-", "--", ":"), strict=False):
        axes[0].axhline(100 * value, color="grey", linestyle=style, label=name)
    axes[0].set(ylabel="test accuracy, %")
    within_percent(axes[0])
    legend_under(axes[0])
    for axis, (column, name) in zip(axes[1:], panes, strict=True):
        for moment in ("start", "end"):
            values = [rows[t][f"{column}_{moment}"] for t in times]
            axis.plot(times, values, "o-", label=f"{moment} of {label} training")
            _draw_spread(axis, times, values, f"{column}_{moment}", spreads, 1)
        axis.set(ylabel=name, yscale="log")
        legend_under(axis, 1)
    for axis in axes:
        axis.set(xlabel="switch time t_w, epochs")
        _time_axis(axis)
        axis.grid(alpha=0.3)
    return figure


def _draw_spread(
    axis: Axes,
    times: Sequence[int],
    values: Sequence[float],
    column: str,
    spreads: Mapping[int, Mapping[str, float]] | None,
    scale: float,
) -> None:
    """Bars in the color of the line that was drawn last."""
    if spreads is not None:
        bars = [scale * spreads[time][column] for time in times]
        axis.errorbar(times, values, bars, fmt="none", ecolor=axis.lines[-1].get_color(), capsize=2)


@checked
def deviation_panels(
    rows: Mapping[int, Mapping[str, Any]],
    baseline: Mapping[str, Any] | None = None,
    *,
    column: str = "off_local",
    baseline_label: str = "FCN",
) -> Figure:
    """Deviation against switch time, first loss and final accuracy (Figures 4 and 10).

    Args:
        rows: Switch time → off_local and broken_sharing (shares of ‖θ‖), loss_start and
            test_accuracy.
        baseline: The same of the standard network.
        column: Horizontal axis of the second and third panel, `"off_local"` or
            `"broken_sharing"`. A locally connected network has no off-local weights.
        baseline_label: Name of the standard network.

    Returns:
        A figure with three panels.
    """
    figure, axes = panels(3)
    times = sorted(rows)
    names = {"off_local": "off-local, δ", "broken_sharing": "broken sharing"}
    for (key, name), style in zip(names.items(), ("o-", "s--"), strict=True):
        axes[0].plot(times, [100 * rows[t][key] for t in times], style, label=name)
    _time_axis(axes[0])
    axes[0].set(xlabel="switch time t_w, epochs", ylabel="share of ‖θ‖, %")
    legend_under(axes[0])
    for axis, measure, name, scale in (
        (axes[1], "loss_start", "training loss at the switch", 1),
        (axes[2], "test_accuracy", "final test accuracy, %", 100),
    ):
        for time in times:
            point = (100 * rows[time][column], scale * rows[time][measure])
            axis.plot(*point, "o", color=_shades(rows)[time])
            axis.annotate(f" {time}", point, fontsize="x-small")
        if baseline is not None:
            point = (100 * baseline[column], scale * baseline[measure])
            axis.plot(*point, "o", color=_FCN, label=baseline_label)
            legend_under(axis)
        axis.set(xlabel=f"{names[column]}, %", ylabel=name)
    within_percent(axes[2])
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


@checked
def masked_accuracy(rows: Mapping[int, Mapping[str, Any]]) -> Figure:
    """Test accuracy with all weights, the local and the off-local ones alone (Figures 7, 11).

    Args:
        rows: Switch time → full, local and off_local (fractions).

    Returns:
        A figure with one panel.
    """
    figure, (axis,) = panels(1)
    times = sorted(rows)
    for index, (column, name) in enumerate(
        (("full", "all weights"), ("local", "local alone"), ("off_local", "off-local alone"))
    ):
        values = [100 * rows[t][column] for t in times]
        axis.plot(times, values, marker="osx"[index], label=name, **curve_style(index))
    within_percent(axis)
    _time_axis(axis)
    axis.set(xlabel="switch time t_w, epochs", ylabel="test accuracy, %")
    legend_under(axis, 3)
    axis.grid(alpha=0.3)
    return figure


@checked
def log_weight_images(
    images: Sequence[Sequence[np.ndarray]], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """A grid of weight images in ln |w|, averaged over channels; 0 stays white (Figures 5, 6, 8).

    Args:
        images: For each row, one image per column, `(rows, cols)` or `(rows, cols, channels)`.
        rows: Names of the rows.
        columns: Names of the columns.

    Returns:
        A figure.
    """
    figure, _ = panels(0, height=0.1)
    figure.set_size_inches(2.6 * len(columns) + 0.6, 2.4 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axis, column in zip(grid[0], columns, strict=True):
        axis.set_title(column)
    for axes, name, pictures in zip(grid, rows, images, strict=True):
        for axis, picture in zip(axes, pictures, strict=True):
            size = np.abs(picture if picture.ndim == 2 else np.abs(picture).mean(axis=-1))
            shown = np.log(size, where=size > 0, out=np.full(size.shape, np.nan))
            drawn = axis.imshow(shown, interpolation="nearest", cmap="viridis")
            figure.colorbar(drawn, ax=axis, shrink=0.8)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name)
    return figure


@checked
def interpolation_panels(paths: Mapping[str, Any], title: str | None = None) -> Figure:
    """Loss and accuracy along paths between two solutions (Figure 12).

    Args:
        paths: Name → `embedding.Interpolation`, all measured on the same data sets.
        title: Text above the panels.

    Returns:
        A figure with a loss and an accuracy panel for each data set.
    """
    names = list(next(iter(paths.values())).loss)
    figure, axes = panels(2 * len(names), width=4)
    for index, name in enumerate(names):
        for column, axis in (("loss", axes[index]), ("accuracy", axes[len(names) + index])):
            for order, (label, path) in enumerate(paths.items()):
                scale = 100 if column == "accuracy" else 1
                values = scale * getattr(path, column)[name]
                axis.plot(path.fractions, values, marker=".", label=label, **curve_style(order))
            if column == "accuracy":
                within_percent(axis)
            unit = ", %" if column == "accuracy" else ""
            axis.set(xlabel="α (0: CNN, 1: embedded)", ylabel=f"{name} {column}{unit}")
            axis.grid(alpha=0.3)
    legend_below(figure, axes[0], len(paths))
    if title:
        figure.suptitle(title)
    return figure


def _time_axis(axis: Axes) -> None:
    """A logarithmic axis that has room for 0, and for the marker of the last time."""
    last = axis.dataLim.x1
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(-0.1, 1.2 * last)


def _shades(keys: Mapping[int, Any]) -> dict[int, Any]:
    """A colour from purple to light green for each switch time."""
    ordered = sorted(keys)
    return {key: colormaps["viridis"](i / max(1, len(ordered))) for i, key in enumerate(ordered)}
