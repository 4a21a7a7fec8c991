"""KerasTuner searches over the configurations of training runs."""

from tfconvbias.tuning.augmentation_search import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.entry_points import (
    search_augmentation_recipe,
    tune_recipe,
    tune_sparsity_recipe,
)
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.hypermodels import BetaLassoHyperModel, SGDHyperModel, hypermodel
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search import search
from tfconvbias.tuning.search_config import SearchConfig
from tfconvbias.tuning.sparsity_search import (
    SparsitySearchConfig,
    StructuredSparsityHyperModel,
    search_sparsity,
)

__all__ = [
    "AugmentationSearchConfig",
    "BetaLassoHyperModel",
    "SGDHyperModel",
    "SearchConfig",
    "SearchError",
    "SearchResults",
    "SparsitySearchConfig",
    "StructuredSparsityHyperModel",
    "hypermodel",
    "search",
    "search_augmentation",
    "search_augmentation_recipe",
    "search_sparsity",
    "tune_recipe",
    "tune_sparsity_recipe",
]
