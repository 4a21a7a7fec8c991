"""Searches over the configurations of training runs, and for augmentation policies.

What derives from KerasTuner's classes is imported when it is used, so that options can be read
without KerasTuner and Keras.
"""

import importlib
from typing import TYPE_CHECKING

from tfconvbias.optional import require
from tfconvbias.tuning.augmentation_config import AugmentationSearchConfig
from tfconvbias.tuning.augmentation_search import search_augmentation
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.report import report_augmentation_search, report_search
from tfconvbias.tuning.results import SearchResults
from tfconvbias.tuning.search import search, without_deprecations
from tfconvbias.tuning.search_config import SearchConfig

if TYPE_CHECKING:
    from tfconvbias.tuning.hypermodels import BetaLassoHyperModel, SGDHyperModel, hypermodel
    from tfconvbias.tuning.oracles import (
        BayesianOracle,
        GridOracle,
        HyperbandOracle,
        RandomOracle,
        WholeFiles,
    )

_LAZY = {
    "BayesianOracle": "oracles",
    "BetaLassoHyperModel": "hypermodels",
    "GridOracle": "oracles",
    "HyperbandOracle": "oracles",
    "RandomOracle": "oracles",
    "SGDHyperModel": "hypermodels",
    "WholeFiles": "oracles",
    "hypermodel": "hypermodels",
}

__all__ = [
    "AugmentationSearchConfig",
    "BayesianOracle",
    "BetaLassoHyperModel",
    "GridOracle",
    "HyperbandOracle",
    "RandomOracle",
    "SGDHyperModel",
    "SearchConfig",
    "SearchError",
    "SearchResults",
    "WholeFiles",
    "hypermodel",
    "report_augmentation_search",
    "report_search",
    "search",
    "search_augmentation",
    "without_deprecations",
]


def __getattr__(name: str):
    if name in _LAZY:
        require("keras_tuner", "tuner", f"tuning.{name}")
        return getattr(importlib.import_module(f"tfconvbias.tuning.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfconvbias.tuning' has no attribute {name!r}")
