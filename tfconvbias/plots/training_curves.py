"""Accuracy, loss and number of non-zero weights over epochs."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import (
    WholeNumbers,
    curve_style,
    legend_below,
    panels,
    within_percent,
)

History = Mapping[str, Sequence[float]]

NONZEROS = "nonzeros/"
_LEGEND_COLUMNS = 4


@checked
def accuracy_curves(histories: Mapping[str, History], title: str | None = None) -> Figure:
    """Training loss, training accuracy and validation accuracy of several runs.

    Args:
        histories: Label of a run → column → one value per epoch, with the columns epoch, loss,
            accuracy and, where there were validation images, val_accuracy (fractions).
        title: Text above the panels.

    Returns:
        A figure with three panels.
    """
    figure, axes = panels(3)
    columns = (
        ("loss", "training loss", 1),
        ("accuracy", "training accuracy, %", 100),
        ("val_accuracy", "validation accuracy, %", 100),
    )
    for axis, (column, label, scale) in zip(axes, columns, strict=True):
        for index, (name, history) in enumerate(histories.items()):
            if column not in history:
                continue
            # A line through one point cannot be seen.
            marker = "o" if len(history["epoch"]) == 1 else None
            values = [scale * v for v in history[column]]
            axis.plot(history["epoch"], values, marker=marker, label=name, **curve_style(index))
        axis.set(xlabel="epoch", ylabel=label)
        if scale == 100:
            within_percent(axis)
        axis.xaxis.set_major_locator(WholeNumbers())
        axis.grid(alpha=0.3)
    legend_below(figure, axes[0], _LEGEND_COLUMNS)
    if title:
        figure.suptitle(title)
    return figure


@checked
def nonzero_curves(
    histories: Mapping[str, History],
    sizes: Mapping[str, Mapping[str, int]],
    layers: Sequence[str],
    lines: Mapping[str, Mapping[str, int]] | None = None,
) -> Figure:
    """Non-zero weights of each layer over training, on a logarithmic axis.

    Args:
        histories: Label of a run → columns; the column of a layer is `nonzeros/<layer>`.
        sizes: Label of a run → layer → number of weights, drawn at epoch 0.
        layers: Names of the layers, one panel per layer.
        lines: Layer → label → number, drawn as horizontal lines (those of S-CONV and S-LOCAL in
            Neyshabur 2020, Figure 3).

    Returns:
        A figure with one panel per layer.
    """
    figure, axes = panels(len(layers))
    for axis, layer in zip(axes, layers, strict=True):
        for index, (name, history) in enumerate(histories.items()):
            column = f"{NONZEROS}{layer}"
            if column in history:
                counts = [sizes[name][layer], *history[column]]
                axis.plot([0, *history["epoch"]], counts, label=name, **curve_style(index))
        for label, count in (lines or {}).get(layer, {}).items():
            axis.axhline(count, color="grey", linestyle="--", linewidth=1)
            # At the right, as the curves start at the left, and clear of the line.
            axis.annotate(
                label,
                (0.98, count),
                xycoords=("axes fraction", "data"),
                xytext=(0, -3),
                textcoords="offset points",
                horizontalalignment="right",
                verticalalignment="top",
                fontsize="x-small",
            )
        axis.set(xlabel="epoch", ylabel="non-zero weights", title=layer, yscale="log")
        axis.xaxis.set_major_locator(WholeNumbers())
        axis.grid(alpha=0.3)
    legend_below(figure, axes[0], _LEGEND_COLUMNS)
    return figure
