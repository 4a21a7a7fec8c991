"""Means with their spread against the length of training."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import legend_under, panels


@checked
def spread_curves(
    measured: Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]],
    title: str | None = None,
) -> Figure:
    """Means with error bars against epochs, on a logarithmic axis.

    Args:
        measured: Label of a panel's axis → curve → epochs → mean and half the length of its bar.
            A name has one colour in all panels.
        title: Text above the panels.

    Returns:
        A figure with one panel per label.
    """
    figure, axes = panels(len(measured))
    names = list(dict.fromkeys(name for curves in measured.values() for name in curves))
    colors = {name: f"C{index % 10}" for index, name in enumerate(names)}
    for axis, (label, curves) in zip(axes, measured.items(), strict=True):
        lengths = sorted({epochs for points in curves.values() for epochs in points})
        for place, (name, points) in enumerate(curves.items()):
            epochs = sorted(points)
            # A little aside, so that the bars of equal lengths don't hide each other.
            aside = 1 + 0.02 * (place - (len(curves) - 1) / 2)
            axis.errorbar(
                [aside * length for length in epochs],
                [points[length][0] for length in epochs],
                yerr=[points[length][1] for length in epochs],
                marker="o",
                markersize=4,
                capsize=3,
                color=colors[name],
                label=name,
            )
        axis.set(xlabel="epochs", ylabel=label, xscale="log")
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        legend_under(axis)
        if axis.get_ylim()[0] < 0 < axis.get_ylim()[1]:
            axis.axhline(0, color="grey", linewidth=1)
    if title:
        figure.suptitle(title)
    return figure
