"""What the papers did, over `training` and `tuning`: one folder for each paper.

A study says which runs it needs and what it makes of their results. Papers are imported when they
are used: `tfconvbias.studies.neyshabur2020`, `dascoli2019`, `structured_sparsity`,
`edge_of_stability`. `zoo` is no paper: it trains the models that come with the package.
"""

import importlib

from tfconvbias.studies.study import Cell, Findings, Results, Study, report_study

_PAPERS = ("dascoli2019", "edge_of_stability", "neyshabur2020", "structured_sparsity", "zoo")

__all__ = [
    "Cell",
    "Findings",
    "Results",
    "Study",
    "dascoli2019",
    "edge_of_stability",
    "neyshabur2020",
    "report_study",
    "structured_sparsity",
    "zoo",
]


def __getattr__(name: str):
    if name in _PAPERS:
        return importlib.import_module(f"tfconvbias.studies.{name}")
    raise AttributeError(f"module 'tfconvbias.studies' has no attribute {name!r}")
