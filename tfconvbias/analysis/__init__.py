"""Measurements on arrays and models: numbers out, no training."""

from tfconvbias.analysis.curvature import (
    gradient_norm,
    hessian_trace,
    hessian_vector_product,
    sam_sharpness,
    spectral_density,
)
from tfconvbias.analysis.description_length import (
    DescriptionLength,
    LayerCounts,
    description_length,
    generalization_bound,
    sharing_bits,
)
from tfconvbias.analysis.filters import (
    input_weight_images,
    nonzeros_per_unit,
    num_units,
    random_units,
)
from tfconvbias.analysis.hessian_eigenvalues import (
    HessianEigenvalues,
    layer_sharpness,
    top_hessian_eigenvalues,
)
from tfconvbias.analysis.hessian_trace import TraceEstimate
from tfconvbias.analysis.inference_time import inference_times, time_ratio
from tfconvbias.analysis.kernel_correlation import kernel_correlation, pairwise_correlation
from tfconvbias.analysis.locality import (
    Locality,
    layer_locality,
    locality,
    spatial_spread,
    window_share,
)
from tfconvbias.analysis.loss_derivatives import LossDerivatives
from tfconvbias.analysis.patches import (
    ImagePoints,
    ImageTiles,
    Kind,
    Normalization,
    image_patches,
    image_tiles,
)
from tfconvbias.analysis.path_norm import (
    activation_rates,
    active_share,
    path_norm_bound,
    unit_path_norms,
    weighted_path_norm,
)
from tfconvbias.analysis.point_geometry import PointGeometry, point_geometry
from tfconvbias.analysis.sparsity import kernels, num_nonzeros
from tfconvbias.analysis.spectral_density import SpectralDensity
from tfconvbias.analysis.window_coverage import (
    WindowCoverage,
    best_windows,
    layer_window_coverage,
    window_coverage,
)

__all__ = [
    "DescriptionLength",
    "HessianEigenvalues",
    "ImagePoints",
    "ImageTiles",
    "Kind",
    "LayerCounts",
    "Locality",
    "LossDerivatives",
    "Normalization",
    "PointGeometry",
    "SpectralDensity",
    "TraceEstimate",
    "WindowCoverage",
    "activation_rates",
    "active_share",
    "best_windows",
    "description_length",
    "generalization_bound",
    "gradient_norm",
    "hessian_trace",
    "hessian_vector_product",
    "image_patches",
    "image_tiles",
    "inference_times",
    "input_weight_images",
    "kernel_correlation",
    "kernels",
    "layer_locality",
    "layer_sharpness",
    "layer_window_coverage",
    "locality",
    "nonzeros_per_unit",
    "num_nonzeros",
    "num_units",
    "pairwise_correlation",
    "path_norm_bound",
    "point_geometry",
    "random_units",
    "sam_sharpness",
    "sharing_bits",
    "spatial_spread",
    "spectral_density",
    "time_ratio",
    "top_hessian_eigenvalues",
    "unit_path_norms",
    "weighted_path_norm",
    "window_coverage",
    "window_share",
]
