"""Weights as images."""

import numpy as np
from matplotlib.figure import Figure


def filter_images(images: np.ndarray, title: str | None = None, columns: int = 8) -> Figure:
    """Draw filters side by side, each scaled by its own largest weight.

    A weight of 0 is mid-grey; three channels are drawn as red, green and blue, one as grey.

    Args:
        images: `(filters, rows, cols, channels)` with 1 or 3 channels.
        title: Text above the filters.
        columns: Number of filters per row.

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
    figure = Figure(figsize=(0.9 * columns, 0.9 * rows + 0.4), layout="constrained")
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
        axis.set_axis_off()
    return figure
