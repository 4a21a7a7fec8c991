"""Locality and weight sharing at the edge of stability (arXiv 2603.04807)."""

from tfconvbias.studies.edge_of_stability.criteria import check_stability
from tfconvbias.studies.edge_of_stability.image_regression import (
    ImageRegression,
    image_views,
    regression_points,
    report_image_regression,
    run_image_regression,
)
from tfconvbias.studies.edge_of_stability.images import (
    StabilityImages,
    report_stability_images,
    run_stability_images,
)
from tfconvbias.studies.edge_of_stability.patch_geometry import (
    PatchGeometryConfig,
    check_geometry,
    report_patch_geometry,
    run_patch_geometry,
)
from tfconvbias.studies.edge_of_stability.report import report_stability
from tfconvbias.studies.edge_of_stability.run import StabilityRun, stability_row
from tfconvbias.studies.edge_of_stability.sweep import StabilitySweep, run_stability

__all__ = [
    "ImageRegression",
    "PatchGeometryConfig",
    "StabilityImages",
    "StabilityRun",
    "StabilitySweep",
    "check_geometry",
    "check_stability",
    "image_views",
    "regression_points",
    "report_image_regression",
    "report_patch_geometry",
    "report_stability",
    "report_stability_images",
    "run_image_regression",
    "run_patch_geometry",
    "run_stability",
    "run_stability_images",
    "stability_row",
]
