"""Matplotlib figures as interactive ones: zoom, values at the pointer, a legend that switches."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.text import Annotation

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import COLORBAR, WholeNumbers, has_named_ticks, shortened

_DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashdot"}
_MARKERS = {
    "o": "circle",
    "x": "x",
    "+": "cross",
    ".": "dot",
    "*": "star",
    "s": "square",
    "D": "diamond",
    "^": "triangle",
    "v": "inverted_triangle",
    "P": "plus",
}


@checked
def has_bokeh() -> bool:
    """Whether Bokeh, which draws the interactive figures, is installed."""
    return importlib.util.find_spec("bokeh") is not None


@checked
def bokeh_script() -> Path:
    """The script that a page needs to show interactive figures, from the installed Bokeh.

    Raises:
        ImportError: If Bokeh is not installed.
    """
    import bokeh

    return Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"


@checked
def interactive(figure: Figure) -> list[dict[str, Any]] | None:
    """The panels of a figure for Bokeh's `embed_item`, one for each panel with data.

    Curves, points, bars, error bars and steps are read off the matplotlib figure, so that there is
    one description of each figure. Linear and logarithmic axes stay what they are; on any other
    scale the data stand where matplotlib puts them, with its ticks.

    Args:
        figure: A figure.

    Returns:
        JSON values, or `None` where the figure shows images or has no data to point at.

    Raises:
        ImportError: If Bokeh is not installed.
    """
    from bokeh.embed import json_item

    axes = [axis for axis in figure.axes if axis.get_label() != COLORBAR]
    if not axes or any(axis.images or _has_mesh(axis) for axis in axes):
        return None
    figure.canvas.draw()
    # Bokeh's own type is that of a standalone document, which is plain JSON.
    drawn = (_Panel(axis).plot for axis in axes)
    return [dict(json_item(plot)) for plot in drawn if plot.renderers] or None


class _Panel:
    """One panel, drawn anew."""

    def __init__(self, axis: Axes):
        from bokeh.models import HoverTool, Range1d
        from bokeh.plotting import figure

        self.axis = axis
        ranges = {
            name: Range1d(*self._places(name, np.asarray(_limits(axis, name))).tolist())
            for name in "xy"
        }
        across, up = _plain(axis.get_xlabel()), _plain(axis.get_ylabel())
        # The title stands above the panel; a legend below it, since phones are narrow.
        self.plot = figure(
            title=_plain(axis.get_title()) or None,
            x_axis_type=_scale(axis, "x"),
            y_axis_type=_scale(axis, "y"),
            x_axis_label=across,
            y_axis_label=up,
            x_range=ranges["x"],
            y_range=ranges["y"],
            height=320,
            sizing_mode="stretch_width",
            tools="pan,box_zoom,wheel_zoom,reset,save",
            active_scroll=None,
        )
        self.plot.toolbar.logo = None
        self.labels: dict[str, list[Any]] = {}
        self.pointed: list[Any] = []
        self._draw()
        self._ticks()
        self._legend()
        self.plot.add_tools(
            HoverTool(
                renderers=self.pointed,
                tooltips=[("", "@series"), (across or "x", "@shown_x"), (up or "y", "@shown_y")],
            )
        )

    def _draw(self) -> None:
        names = dict(_names(self.axis))
        caps = {
            cap
            for container in self.axis.containers
            if isinstance(container, ErrorbarContainer)
            for cap in container.lines[1]
        }
        for line in self.axis.get_lines():
            if line not in caps:
                self._line(line, names.get(line) or str(line.get_label()))
        for collection in self.axis.collections:
            if isinstance(collection, LineCollection):
                self._segments(collection)
            elif isinstance(collection, PathCollection):
                self._points(collection)
        for container in self.axis.containers:
            if isinstance(container, BarContainer):
                self._bars(container)
        for patch in self.axis.patches:
            if isinstance(patch, StepPatch):
                self._steps(patch)
        for text in self.axis.texts:
            self._text(text)

    def _line(self, line: Line2D, name: str) -> None:
        x, y = _numbers(line.get_xdata()), _numbers(line.get_ydata())
        if line.get_transform() != self.axis.transData:
            # A line across the whole panel: one of its coordinates is a share of the panel.
            if len(set(y)) == 1:
                x = np.asarray(self.axis.get_xlim())
            else:
                y = np.asarray(self.axis.get_ylim())
        color, style = _color(line.get_color()), _DASHES.get(str(line.get_linestyle()))
        source = self._source(x, y, name)
        if style:
            self._add(
                name,
                self.plot.line("x", "y", source=source, color=color, line_dash=style, line_width=2),
            )
        marker = str(line.get_marker())
        if marker in _MARKERS:
            hollow = line.get_fillstyle() == "none"
            drawn = self.plot.scatter(
                "x",
                "y",
                source=source,
                marker=_MARKERS[marker],
                size=1.3 * float(line.get_markersize()),
                line_color=color,
                fill_color=None if hollow else color,
            )
            self._add(name, drawn)

    def _segments(self, collection: LineCollection) -> None:
        color = _color(collection.get_colors()[0])
        xs, ys = [], []
        for segment in collection.get_segments():
            xs.append(self._places("x", segment[:, 0]).tolist())
            ys.append(self._places("y", segment[:, 1]).tolist())
        self.plot.multi_line(xs, ys, color=color)

    def _points(self, collection: PathCollection) -> None:
        offsets = np.asarray(collection.get_offsets(), dtype=float)
        colors = [_color(color) for color in np.atleast_2d(collection.get_edgecolor())]
        colors = colors if len(colors) == len(offsets) else colors[:1] * len(offsets)
        name = str(collection.get_label())
        source = self._source(offsets[:, 0], offsets[:, 1], name)
        source.data["color"] = colors
        drawn = self.plot.scatter("x", "y", source=source, marker="x", color="color", size=7)
        self._add(name, drawn)

    def _bars(self, container: BarContainer) -> None:
        bars, name = container.patches, str(container.get_label())
        left = np.array([bar.get_x() for bar in bars])
        width = np.array([bar.get_width() for bar in bars])
        bottom = np.array([bar.get_y() for bar in bars])
        height = np.array([bar.get_height() for bar in bars])
        source = self._source(left + width / 2, height, name)
        ends = {"left": left, "right": left + width, "bottom": bottom, "top": bottom + height}
        source.data.update({key: values.tolist() for key, values in ends.items()})
        drawn = self.plot.quad(
            left="left",
            right="right",
            bottom="bottom",
            top="top",
            source=source,
            color=_color(bars[0].get_facecolor()),
        )
        self._add(name, drawn)

    def _steps(self, patch: StepPatch) -> None:
        values, edges, baseline = patch.get_data()
        if patch.get_fill():
            bottom = np.broadcast_to(0 if baseline is None else baseline, values.shape)
            color = _color(patch.get_facecolor())
            self.plot.quad(
                left=edges[:-1],
                right=edges[1:],
                bottom=bottom,
                top=values,
                color=color,
                fill_alpha=0.7,
            )
        else:
            style = _DASHES.get(str(patch.get_linestyle()), "solid")
            color = _color(patch.get_edgecolor())
            self.plot.line(
                np.repeat(edges, 2)[1:-1], np.repeat(values, 2), color=color, line_dash=style
            )

    def _text(self, text: Any) -> None:
        from bokeh.models.annotations import Label

        if not isinstance(text, Annotation) or text.xycoords != "data":
            return
        x, y = (float(value) for value in text.xy)
        self.plot.add_layout(
            Label(
                x=float(self._places("x", np.array([x]))[0]),
                y=float(self._places("y", np.array([y]))[0]),
                text=_plain(text.get_text()),
                text_font_size="0.75em",
                x_offset=4,
            )
        )

    def _source(self, x: np.ndarray, y: np.ndarray, name: str) -> Any:
        from bokeh.models import ColumnDataSource

        shown = "" if name.startswith("_") else _plain(name)
        return ColumnDataSource(
            {
                "x": self._places("x", x).tolist(),
                "y": self._places("y", y).tolist(),
                "shown_x": [f"{value:.6g}" for value in x],
                "shown_y": [f"{value:.6g}" for value in y],
                "series": [shown] * len(x),
            }
        )

    def _add(self, name: str, drawn: Any) -> None:
        self.pointed.append(drawn)
        if name and not name.startswith("_"):
            self.labels.setdefault(_plain(name), []).append(drawn)

    def _legend(self) -> None:
        from bokeh.models.annotations import Legend, LegendItem

        if not self.labels:
            return
        items = [LegendItem(label={"value": k}, renderers=v) for k, v in self.labels.items()]
        legend = Legend(
            items=items,
            location="left",
            click_policy="hide",
            label_text_font_size="0.8em",
            border_line_color=None,
            spacing=0,
        )
        self.plot.add_layout(legend, "below")
        self.plot.height = 320 + 26 * len(items)

    def _ticks(self) -> None:
        """Matplotlib's ticks where it chose their texts, or where Bokeh lacks the scale.

        Axes that count have no ticks between whole numbers.
        """
        from bokeh.models import BasicTicker

        for name, drawn in (("x", self.plot.xaxis), ("y", self.plot.yaxis)):
            axis = getattr(self.axis, f"{name}axis")
            counts = isinstance(axis.get_major_locator(), WholeNumbers)
            if counts and axis.get_scale() == "linear":
                drawn.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
                continue
            texts = [_plain(t.get_text().replace("\\$", "$")) for t in axis.get_ticklabels()]
            is_chosen = has_named_ticks(axis)
            if not is_chosen and _scale(self.axis, name) == axis.get_scale():
                continue
            low, high = sorted(_limits(self.axis, name))
            places = [float(place) for place in axis.get_ticklocs()]
            kept = [
                (float(self._places(name, np.array([place]))[0]), place, text)
                for place, text in zip(places, texts, strict=False)
                if low <= place <= high
            ]
            drawn.ticker = [place for place, _, _ in kept]
            drawn.major_label_overrides = {
                place: text if is_chosen else f"{value:g}" for place, value, text in kept
            }

    def _places(self, name: str, values: np.ndarray) -> np.ndarray:
        """Where values stand on Bokeh's axis."""
        if _scale(self.axis, name) == getattr(self.axis, f"{name}axis").get_scale():
            return np.asarray(values, dtype=float)
        transform = getattr(self.axis, f"{name}axis").get_transform()
        return transform.transform(np.asarray(values, dtype=float))


def _has_mesh(axis: Axes) -> bool:
    return any(isinstance(found, QuadMesh) for found in axis.collections)


def _scale(axis: Axes, name: str) -> Literal["linear", "log"]:
    return "log" if getattr(axis, f"{name}axis").get_scale() == "log" else "linear"


def _color(value: Any) -> str:
    return to_hex(value)


def _limits(axis: Axes, name: str) -> tuple[float, float]:
    return axis.get_xlim() if name == "x" else axis.get_ylim()


def _numbers(values: Any) -> np.ndarray:
    return np.atleast_1d(np.asarray(values, dtype=float))


def _names(axis: Axes) -> Iterator[tuple[Any, str]]:
    """Lines of error bars, with the names that the whole has in the legend."""
    for container in axis.containers:
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            yield container.lines[0], str(container.get_label())


def _plain(text: str) -> str:
    """A text on one line, without the marks of TeX, for which Bokeh would ask the network."""
    text = shortened(" ".join(text.split()))
    for mark in ("$$", "\\[", "\\("):
        text = text.replace(mark, f"{mark[0]}\u200b{mark[1]}")
    return text
