"""KerasTuner searches over the configurations of training runs."""

from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.hypermodels import BetaLassoHyperModel, SGDHyperModel, hypermodel
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search import search
from tfconvbias.tuning.search_config import SearchConfig

__all__ = [
    "BetaLassoHyperModel",
    "SGDHyperModel",
    "SearchConfig",
    "SearchError",
    "SearchResults",
    "hypermodel",
    "search",
]
