"""Figures of the spectrum of a Hessian."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tfconvbias.analysis import SpectralDensity
from tfconvbias.arguments import PositiveFloat, PositiveInt, checked
from tfconvbias.plots.figure import legend_under, panels


@checked
def eigenvalue_density(
    densities: Mapping[str, SpectralDensity],
    width: PositiveFloat | None = None,
    num_points: PositiveInt = 1000,
) -> Figure:
    """The smoothed density of eigenvalues on a logarithmic axis.

    Args:
        densities: Label → density, as `analysis.spectral_density` gives it.
        width: Standard deviation of the Gaussian that smooths; by default a hundredth of the range
            of each density's nodes.
        num_points: Points at which each is drawn.

    Returns:
        A figure with one panel. Its vertical axis ends a little below what one eigenvalue adds.
    """
    figure, (axis,) = panels(1)
    lowest = np.inf
    for name, found in densities.items():
        smooth = found.default_width() if width is None else width
        ends = np.nanmin(found.nodes) - 4 * smooth, np.nanmax(found.nodes) + 4 * smooth
        points = np.linspace(*ends, num_points)
        axis.plot(points, found.density(points, smooth), label=name)
        lowest = min(lowest, 0.1 / (found.size * smooth * np.sqrt(2 * np.pi)))
    axis.set(xlabel="eigenvalue", ylabel="density", yscale="log")
    axis.set_ylim(bottom=lowest)
    legend_under(axis)
    axis.grid(alpha=0.3)
    return figure
