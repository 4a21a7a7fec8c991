"""Optimal Convolutional Architectures Via Structured Sparsity Regularizers (draft)."""

from typing import TYPE_CHECKING

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
    "CompactionError",
    "DepthConfig",
    "SparsityConfig",
    "SparsityResult",
    "SparsitySearchConfig",
    "StructuredSparsityHyperModel",
    "depth_table",
    "report_sparsity",
    "report_sparsity_depth",
    "report_sparsity_search",
    "run_sparsity",
    "search_sparsity",
    "write_sparsity_report",
]


def __getattr__(name: str):
    if name == "StructuredSparsityHyperModel":  # derives from a class of KerasTuner
        from tfconvbias.studies.structured_sparsity import search_space

        return search_space.StructuredSparsityHyperModel
    raise AttributeError(
        f"module 'tfconvbias.studies.structured_sparsity' has no attribute {name!r}"
    )
