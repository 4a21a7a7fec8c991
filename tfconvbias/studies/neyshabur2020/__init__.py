"""Neyshabur, "Towards Learning Convolutions from Scratch", 2020: its tables and figures."""

from tfconvbias.studies.neyshabur2020 import paper_targets
from tfconvbias.studies.neyshabur2020.description_table import (
    DescriptionTableConfig,
    description_rows,
    report_description_lengths,
)
from tfconvbias.studies.neyshabur2020.filter_study import FilterStudy
from tfconvbias.studies.neyshabur2020.kernel_size_study import KernelSizeStudy
from tfconvbias.studies.neyshabur2020.nonzero_study import NonzeroStudy
from tfconvbias.studies.neyshabur2020.paper_table import PaperTable
from tfconvbias.studies.neyshabur2020.parameter_scaling import (
    ParameterScaling,
    parameter_counts,
    report_parameter_scaling,
)
from tfconvbias.studies.neyshabur2020.permutation_study import PermutationStudy
from tfconvbias.studies.neyshabur2020.protocol import Protocol
from tfconvbias.studies.neyshabur2020.protocol_report import report_protocol
from tfconvbias.studies.neyshabur2020.protocol_runs import Outcome, ProtocolRuns, Trial
from tfconvbias.studies.neyshabur2020.search import SEARCH
from tfconvbias.studies.neyshabur2020.tables import (
    PROTOCOL,
    S_FC_BETA_LASSO,
    TABLE_1,
    TABLE_2,
)
from tfconvbias.studies.neyshabur2020.width_study import WidthStudy

__all__ = [
    "PROTOCOL",
    "SEARCH",
    "S_FC_BETA_LASSO",
    "TABLE_1",
    "TABLE_2",
    "DescriptionTableConfig",
    "FilterStudy",
    "KernelSizeStudy",
    "NonzeroStudy",
    "Outcome",
    "PaperTable",
    "ParameterScaling",
    "PermutationStudy",
    "Protocol",
    "ProtocolRuns",
    "Trial",
    "WidthStudy",
    "description_rows",
    "paper_targets",
    "parameter_counts",
    "report_description_lengths",
    "report_parameter_scaling",
    "report_protocol",
]
