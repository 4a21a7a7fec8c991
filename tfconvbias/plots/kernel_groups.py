"""Nested groups of a kernel's positions, and how many kernels have which size."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tfconvbias.arguments import checked
from tfconvbias.plots.figure import legend_below, panels


@checked
def group_supports(supports: Mapping[str, np.ndarray]) -> Figure:
    """The positions of a kernel that each of its nested groups holds, as coloured squares.

    Args:
        supports: Title of a row → boolean array `(groups, rows, cols)`: whether the position
            belongs to the group.

    Returns:
        A figure with one row of panels per strategy and one panel per group.

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", Figure 2.
    """
    columns = max(len(groups) for groups in supports.values())
    figure = Figure(figsize=(1.4 * columns, 1.7 * len(supports)), layout="constrained")
    for row, (name, groups) in enumerate(supports.items()):
        for number, group in enumerate(groups, start=1):
            axis = figure.add_subplot(len(supports), columns, row * columns + number)
            axis.pcolormesh(group[::-1], cmap="Blues", vmin=0, vmax=1.6, edgecolors="0.6")
            axis.set(xticks=(), yticks=(), aspect="equal", title=f"G{chr(0x2080 + number)}")
            if number == 1:
                axis.set_ylabel(name.replace("_", " "))
    return figure


@checked
def size_snakes(
    base: Sequence[Mapping[int, int]], sizes: Mapping[str, Sequence[Mapping[int, int]]]
) -> Figure:
    """Number of kernels of each size along the depth, around a middle line, one panel per size.

    Args:
        base: For each layer of the base, size → number of kernels; drawn dashed.
        sizes: Name of an architecture → the same for each of its layers.

    Returns:
        A figure with one panel for each size that occurs, 0 for removed kernels among them; the
        architectures lie over each other in each panel.

    Raises:
        ValueError: If an architecture has another number of layers than the base.

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", Figure 3.
    """
    occurring = sorted({s for one in (base, *sizes.values()) for layer in one for s in layer})
    figure, axes = panels(max(1, len(occurring)), width=3.2, height=2.8)
    edges = np.arange(len(base) + 1) + 0.5
    for axis, size in zip(axes, occurring, strict=False):
        for index, (name, layers) in enumerate(sizes.items()):
            if len(layers) != len(base):
                raise ValueError(
                    f"`sizes` must have a mapping for each of the {len(base)} layers of `base`. "
                    f"Received: {len(layers)} for {name!r}"
                )
            half = np.array([layer.get(size, 0) for layer in layers]) / 2
            axis.stairs(
                half, edges, baseline=-half, fill=True, alpha=0.4, color=f"C{index}", label=name
            )
        frame = np.array([layer.get(size, 0) for layer in base]) / 2
        for side in (frame, -frame):
            axis.stairs(side, edges, baseline=None, color="k", linestyle="--", linewidth=0.8)
        title = f"size {size}" if size else "size 0 (removed)"
        axis.set(title=title, xlabel="layer", ylabel="kernels")
    if sizes and occurring:
        legend_below(figure, axes[0], len(sizes))
    return figure
