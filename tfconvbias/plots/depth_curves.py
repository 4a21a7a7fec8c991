"""Figures of point clouds: half-space depth and spectrum."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tfconvbias.analysis import PointGeometry
from tfconvbias.arguments import checked
from tfconvbias.plots.figure import curve_style, legend_under, panels


@checked
def depth_and_spectrum(found: Mapping[str, PointGeometry]) -> Figure:
    """P(depth ≥ t), and the cumulative share of variance of the principal components.

    Args:
        found: Label of a point cloud → its geometry.

    Returns:
        A figure with two panels.
    """
    figure, (depth, spectrum) = panels(2)
    for index, (name, cloud) in enumerate(found.items()):
        style = curve_style(index)
        mean = f"{name}: mean {cloud.mean_depth:.4f}"
        depth.plot(cloud.thresholds, cloud.curve, label=mean, **style)
        share = np.cumsum(cloud.spectrum) / cloud.spectrum.sum()
        spectrum.plot(
            range(1, len(share) + 1), share, label=f"{name}: elbow {cloud.elbow}", **style
        )
    depth.set(xlabel="half-space depth t (upper bound)", ylabel="P(depth ≥ t)", yscale="log")
    depth.set(ylim=(1e-4, 1.5))
    spectrum.axhline(0.9, color="grey", linestyle="--", linewidth=1)
    spectrum.set(xlabel="principal components", ylabel="share of variance", xscale="log")
    for axis in (depth, spectrum):
        legend_under(axis)
        axis.grid(alpha=0.3)
    return figure
