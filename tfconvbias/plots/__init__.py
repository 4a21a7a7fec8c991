"""Numbers in, matplotlib figures out."""

from tfconvbias.plots.filter_images import filter_images
from tfconvbias.plots.training_curves import accuracy_curves, nonzero_curves

__all__ = ["accuracy_curves", "filter_images", "nonzero_curves"]
