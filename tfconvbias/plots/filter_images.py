"""Weights as images."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.lib.stride_tricks import sliding_window_view

from tfconvbias.arguments import PositiveInt, checked


@checked
def filter_images(
    images: np.ndarray,
    title: str | None = None,
    columns: int = 8,
    window: PositiveInt | None = None,
) -> Figure:
    """Draw filters side by side in frames, each scaled by its own largest weight.

    A weight of 0 is mid-grey; three channels are drawn as red, green and blue, one as grey.

    Args:
        images: `(filters, rows, cols, channels)` with 1 or 3 channels.
        title: Text above the filters.
        columns: Number of filters per row.
        window: Side of a square that is framed in each filter, where it holds the most of the
            filter's absolute weights: so a speck in a large image is found. `None`: no square.

    Returns:
        A figure, with a line of text in place of the filters if there are none.

    Raises:
        ValueError: If `images` has another number of axes or channels.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have shape (filters, rows, cols, 1 or 3). "
            f"Received: images of shape {images.shape}"
        )
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(1.1 * columns, 1.1 * rows + 0.4), layout="constrained")
    if title:
        figure.suptitle(title, fontsize="medium")
    if len(images) == 0:
        figure.text(0.5, 0.4, "no filter with enough non-zero weights", ha="center")
        return figure
    largest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
    shown = 0.5 + 0.5 * images / np.where(largest > 0, largest, 1)
    for index, image in enumerate(np.repeat(shown, 3 // images.shape[-1], axis=-1)):
        axis = figure.add_subplot(rows, columns, index + 1)
        axis.imshow(image, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color="grey", linewidth=0.5)
        if window is not None and window < min(image.shape[:2]) and images[index].any():
            axis.add_patch(_frame(np.abs(images[index]).sum(axis=-1), window))
    return figure


def _frame(mass: np.ndarray, window: int) -> Rectangle:
    """The square that holds the most mass, half a pixel outside of it."""
    sums = sliding_window_view(mass, (window, window)).sum(axis=(2, 3))
    row, col = np.unravel_index(np.argmax(sums), sums.shape)
    return Rectangle(
        (float(col) - 0.5, float(row) - 0.5),
        window,
        window,
        fill=False,
        edgecolor="tab:orange",
        linewidth=1.2,
    )
