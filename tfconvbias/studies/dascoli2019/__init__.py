"""d'Ascoli et al. 2019, "Finding the Needle in the Haystack with Convolutions"."""

from tfconvbias.studies.dascoli2019.config import SwitchTimeConfig
from tfconvbias.studies.dascoli2019.protocol import SwitchTimeResult, run_switch_time
from tfconvbias.studies.dascoli2019.report import report_switch_time, write_switch_time_report

__all__ = [
    "SwitchTimeConfig",
    "SwitchTimeResult",
    "report_switch_time",
    "run_switch_time",
    "write_switch_time_report",
]
