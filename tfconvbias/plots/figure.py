"""Figures without pyplot's global state."""

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

from tfconvbias.arguments import checked

COLORBAR = "<colorbar>"
"""Matplotlib's label of the axes that it adds for a colorbar."""

_LINE_STYLES = ("-", "--", "-.", ":")
_MOST_LETTERS = 50
_NARROW_IMAGES = 4


def legend_below(figure: Figure, axis: Axes, columns: int) -> None:
    """One legend below all panels, of what is drawn on one of them."""
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=max(1, columns),
        fontsize="small",
    )


def legend_under(axis: Axes, columns: int = 2) -> None:
    """A panel's own legend below it, where it hides no data."""
    axis.legend(
        fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=max(1, columns)
    )


def panels(num: int, width: float = 5.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with `num` axes side by side, `width` × `height` inches each."""
    figure = Figure(figsize=(width * num, height), layout="constrained")
    return figure, [figure.add_subplot(1, num, index + 1) for index in range(num)]


@checked
def stack_panels(figure: Figure) -> bool:
    """Put panels that stand side by side one below another, for a narrow screen.

    Many small images, such as filters, are put four in a row.

    Returns:
        Whether it was done: a figure of one panel or of several rows of curves stays as it is.
    """
    axes = [axis for axis in figure.axes if axis.get_label() != COLORBAR]
    specs = [axis.get_subplotspec() for axis in axes]
    shapes = {None if spec is None else spec.get_geometry()[:2] for spec in specs}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape is None or len(axes) < 2:
        return False
    rows, columns = shape
    are_images = len(axes) == len(figure.axes) and all(axis.images for axis in axes)
    fewer = _NARROW_IMAGES if are_images and columns > _NARROW_IMAGES else 1
    if fewer == 1 and shape != (1, len(axes)):
        return False
    more = -(-len(axes) // fewer)
    grid = GridSpec(more, fewer, figure=figure)
    for index, axis in enumerate(axes):
        axis.set_subplotspec(grid[index])
    width, height = figure.get_size_inches()
    figure.set_size_inches(width * fewer / columns, height * more / rows)
    for legend in list(figure.legends):
        names = [text.get_text() for text in legend.get_texts()]
        handles = [handle for handle in legend.legend_handles if handle is not None]
        legend.remove()
        figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize="small")
    return True


def curve_style(index: int) -> dict[str, Any]:
    """How the `index`-th curve of a panel is drawn, so that curves on each other stay tellable.

    Each has another colour and another pattern than the one before it, and is thinner, so that the
    one below shows on both sides and in the gaps.
    """
    return {
        "color": f"C{index % 10}",
        "linestyle": _LINE_STYLES[index % len(_LINE_STYLES)],
        "linewidth": max(1.2, 2.7 - 0.3 * index),
    }


def within_percent(axis: Axes) -> None:
    """End a vertical axis of percentages a little beyond 0 and 100, where markers need the room."""
    low, high = axis.get_ylim()
    low, high = max(low, 0.0), min(high, 100.0)
    # Less than the distance of two ticks, so that none stands beyond.
    room = 0.03 * (high - low)
    axis.set_ylim(low - room, high + room)


class WholeNumbers(MaxNLocator):
    """Ticks for an axis that counts, such as one of epochs."""

    def __init__(self) -> None:
        super().__init__("auto", steps=[1, 2, 5, 10], integer=True)


@checked
def show_names_as_they_are(figure: Figure) -> None:
    """Make titles, labels, legends and notes show any name: of a folder, a class, a row.

    A dollar sign is one and starts no formula, characters that cannot be encoded become their
    code, those without a shape become spaces, and a line of more than 50 letters loses its middle.
    """
    for text in _texts(figure):
        text.set_parse_math(False)
        text.set_text(_legible(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if has_named_ticks(axis):
                places = axis.get_ticklocs()
                names = axis.get_major_formatter().format_ticks(list(places))
                # Ticks are made anew at each drawing, so that the text itself must hold no formula.
                axis.set_ticks(places, [_legible(name).replace("$", r"\$") for name in names])


def has_named_ticks(axis: Axis) -> bool:
    """Whether an axis has ticks that were given, with texts that were given."""
    is_given = isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)
    return is_given and isinstance(axis.get_major_locator(), FixedLocator)


def _texts(figure: Figure) -> Iterator[Text]:
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    yield from figure.texts
    for axis in figure.axes:
        yield from (axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts)
    for legend in legends:
        if legend is not None:
            yield from legend.get_texts()


def _legible(text: str) -> str:
    # A plot's own title may have two lines.
    lines = text.encode("utf-8", "backslashreplace").decode().split("\n", 1)
    return "\n".join(shortened("".join(c if c.isprintable() else " " for c in x)) for x in lines)


def shortened(line: str) -> str:
    """A line that loses its middle where it is too long for a figure."""
    half = _MOST_LETTERS // 2
    return line if len(line) <= _MOST_LETTERS else f"{line[:half]} … {line[-half:]}"
