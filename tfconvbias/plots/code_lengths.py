"""Figures of description lengths: how many bits each model takes."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import legend_below, panels

_MARKERS = ("o", "x", "s", "^", "D", "v")


@checked
def code_lengths(models: Sequence[str], bits: Mapping[str, Sequence[float]]) -> Figure:
    """The bits of each model's descriptions, one row per model, on a logarithmic axis.

    Args:
        models: Names of the models, from above.
        bits: Kind of description → its bits for each model.

    Returns:
        A figure with one panel; the kinds differ by marker and colour.

    Raises:
        ValueError: If there is no model or no kind, or a kind has not one number for each model.
    """
    if not models or not bits:
        raise ValueError(
            "`models` and `bits` must hold one name or more. "
            f"Received: models={list(models)}, bits of {list(bits)}"
        )
    for name, values in bits.items():
        if len(values) != len(models):
            raise ValueError(
                f"`bits` must have one number for each of the {len(models)} models. "
                f"Received: {len(values)} for {name!r}"
            )
    figure, (axis,) = panels(1, width=8, height=1.2 + 0.28 * len(models))
    places = range(len(models))
    for index, (name, values) in enumerate(bits.items()):
        axis.plot(
            values,
            places,
            label=name,
            color=f"C{index}",
            linestyle="none",
            marker=_MARKERS[index % len(_MARKERS)],
            # Those that lie on each other stay tellable: the ones below are larger, and hollow.
            markersize=max(5, 10 - 2 * index),
            fillstyle="none",
        )
    axis.set(xlabel="bits", xscale="log")
    axis.set_yticks(places, models)
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    legend_below(figure, axis, 3)
    return figure
