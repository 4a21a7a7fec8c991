"""d'Ascoli et al. 2019, "Finding the Needle in the Haystack with Convolutions"."""

from tfconvbias.studies.dascoli2019.config import SwitchTimeConfig
from tfconvbias.studies.dascoli2019.protocol import SwitchTimeResult, run_switch_time
from tfconvbias.studies.dascoli2019.report import report_switch_time, write_switch_time_report
from tfconvbias.studies.dascoli2019.way_back import WayBackConfig, WayBackResult, run_way_back
from tfconvbias.studies.dascoli2019.way_back_report import (
    report_way_back,
    way_back_table,
    write_way_back_report,
)

__all__ = [
    "SwitchTimeConfig",
    "SwitchTimeResult",
    "WayBackConfig",
    "WayBackResult",
    "report_switch_time",
    "report_way_back",
    "run_switch_time",
    "run_way_back",
    "way_back_table",
    "write_switch_time_report",
    "write_way_back_report",
]
