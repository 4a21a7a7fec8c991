"""Optimal Convolutional Architectures Via Structured Sparsity Regularizers (draft)."""

from typing import TYPE_CHECKING

from tfconvbias.studies.structured_sparsity.architecture_table import (
    TABLE_1,
    ArchitectureTable,
    Published,
    architecture_row,
    base_rows,
    group_supports,
    network_depth,
    report_architectures,
)
from tfconvbias.studies.structured_sparsity.comparison import (
    ComparisonResult,
    nonzero_multiply_adds,
    run_comparison,
)
from tfconvbias.studies.structured_sparsity.comparison_config import ComparisonConfig
from tfconvbias.studies.structured_sparsity.comparison_report import (
    comparison_findings,
    comparison_table,
    report_comparison,
    write_comparison_report,
)
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.studies.structured_sparsity.depth import (
    DepthConfig,
    depth_table,
    report_sparsity_depth,
)
from tfconvbias.studies.structured_sparsity.report import report_sparsity, write_sparsity_report
from tfconvbias.studies.structured_sparsity.result import SparsityResult
from tfconvbias.studies.structured_sparsity.search import report_sparsity_search, search_sparsity
from tfconvbias.studies.structured_sparsity.search_config import SparsitySearchConfig
from tfconvbias.studies.structured_sparsity.steps import CompactionError
from tfconvbias.studies.structured_sparsity.sweep import run_sparsity

if TYPE_CHECKING:
    from tfconvbias.studies.structured_sparsity.search_space import StructuredSparsityHyperModel

__all__ = [
    "TABLE_1",
    "ArchitectureTable",
    "CompactionError",
    "ComparisonConfig",
    "ComparisonResult",
    "DepthConfig",
    "Published",
    "SparsityConfig",
    "SparsityResult",
    "SparsitySearchConfig",
    "StructuredSparsityHyperModel",
    "architecture_row",
    "base_rows",
    "comparison_findings",
    "comparison_table",
    "depth_table",
    "group_supports",
    "network_depth",
    "nonzero_multiply_adds",
    "report_architectures",
    "report_comparison",
    "report_sparsity",
    "report_sparsity_depth",
    "report_sparsity_search",
    "run_comparison",
    "run_sparsity",
    "search_sparsity",
    "write_comparison_report",
    "write_sparsity_report",
]


def __getattr__(name: str):
    if name == "StructuredSparsityHyperModel":  # derives from a class of KerasTuner
        from tfconvbias.studies.structured_sparsity import search_space

        return search_space.StructuredSparsityHyperModel
    raise AttributeError(
        f"module 'tfconvbias.studies.structured_sparsity' has no attribute {name!r}"
    )
