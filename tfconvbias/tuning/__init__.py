"""KerasTuner searches over the configurations of training runs; it knows no paper."""

from tfconvbias.tuning.augmentation_search import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.hypermodels import BetaLassoHyperModel, SGDHyperModel, hypermodel
from tfconvbias.tuning.oracles import BayesianOracle, GridOracle, HyperbandOracle
from tfconvbias.tuning.report import report_augmentation_search, report_search
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search import search, without_deprecations
from tfconvbias.tuning.search_config import SearchConfig

__all__ = [
    "AugmentationSearchConfig",
    "BayesianOracle",
    "BetaLassoHyperModel",
    "GridOracle",
    "HyperbandOracle",
    "SGDHyperModel",
    "SearchConfig",
    "SearchError",
    "SearchResults",
    "hypermodel",
    "report_augmentation_search",
    "report_search",
    "search",
    "search_augmentation",
    "without_deprecations",
]
