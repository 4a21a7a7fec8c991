"""Run configuration, build, run, resume, report and the command line of the recipes."""

from tfconvbias.training import command_line
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.build import build_dataset, build_model, build_optimizer
from tfconvbias.training.comparison import compare
from tfconvbias.training.entry_points import compare_recipe, run_recipe
from tfconvbias.training.errors import ConfigError, RunFolderError, TrainingDivergedError
from tfconvbias.training.report import write_report
from tfconvbias.training.run_config import RunConfig, option
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.runner import RunResult, run
from tfconvbias.training.stability_run import StabilityRun, stability_row
from tfconvbias.training.stability_sweep import StabilitySweep, run_stability

__all__ = [
    "ConfigError",
    "RunConfig",
    "RunFolder",
    "RunFolderError",
    "RunResult",
    "ShuffledBatches",
    "StabilityRun",
    "StabilitySweep",
    "TrainingDivergedError",
    "build_dataset",
    "build_model",
    "build_optimizer",
    "command_line",
    "compare",
    "compare_recipe",
    "option",
    "run",
    "run_recipe",
    "run_stability",
    "stability_row",
    "write_report",
]
