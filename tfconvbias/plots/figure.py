"""Figures without pyplot's global state."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def legend_below(figure: Figure, axis: Axes, columns: int) -> None:
    """One legend below all panels, of what is drawn on one of them."""
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=max(1, columns),
        fontsize="small",
    )


def panels(num: int, width: float = 5.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with `num` axes side by side, `width` × `height` inches each."""
    figure = Figure(figsize=(width * num, height), layout="constrained")
    return figure, [figure.add_subplot(1, num, index + 1) for index in range(num)]


def whole_numbers() -> MaxNLocator:
    """Ticks for an axis that counts, such as one of epochs."""
    return MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True)
