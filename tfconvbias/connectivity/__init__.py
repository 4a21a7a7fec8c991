"""Which input feeds which output: shapes, patch index maps, supports and orbits (NumPy only)."""

from tfconvbias.connectivity.patches import axis_indices, patch_indices, tap_counts
from tfconvbias.connectivity.shapes import conv_output_shape, explicit_padding
from tfconvbias.connectivity.support import LocalSupport, local_support

__all__ = [
    "LocalSupport",
    "axis_indices",
    "conv_output_shape",
    "explicit_padding",
    "local_support",
    "patch_indices",
    "tap_counts",
]
