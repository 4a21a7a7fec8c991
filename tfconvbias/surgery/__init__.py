"""From a zeroed model to a smaller one: threshold, measure, cut."""

from tfconvbias.surgery.architecture import Architecture, LayerArchitecture, architecture
from tfconvbias.surgery.compact import compact
from tfconvbias.surgery.densify import densify
from tfconvbias.surgery.identity import identity_kernels
from tfconvbias.surgery.plan import Plan, make_plan
from tfconvbias.surgery.report import Report, report
from tfconvbias.surgery.sparsify import Sparsified, sparsify
from tfconvbias.surgery.sparsity_report import LayerChoice, LayerKind, SparsityReport
from tfconvbias.surgery.threshold import threshold

__all__ = [
    "Architecture",
    "LayerArchitecture",
    "LayerChoice",
    "LayerKind",
    "Plan",
    "Report",
    "Sparsified",
    "SparsityReport",
    "architecture",
    "compact",
    "densify",
    "identity_kernels",
    "make_plan",
    "report",
    "sparsify",
    "threshold",
]
