"""Numbers in, matplotlib figures out."""

from tfconvbias.plots.filter_images import filter_images
from tfconvbias.plots.patch_geometry import depth_and_spectrum
from tfconvbias.plots.stability import against_patch_size, gap_against_size, sharpness_curves
from tfconvbias.plots.training_curves import accuracy_curves, nonzero_curves

__all__ = [
    "accuracy_curves",
    "against_patch_size",
    "depth_and_spectrum",
    "filter_images",
    "gap_against_size",
    "nonzero_curves",
    "sharpness_curves",
]
