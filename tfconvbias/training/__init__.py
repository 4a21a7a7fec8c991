"""Run configuration, build, run, resume, report and the command line of the recipes."""

from tfconvbias.training import command_line, paper_targets
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.build import build_dataset, build_model, build_optimizer
from tfconvbias.training.comparison import compare
from tfconvbias.training.description_table import DescriptionTableConfig, describe_models
from tfconvbias.training.entry_points import compare_recipe, run_recipe
from tfconvbias.training.errors import (
    ConfigError,
    RunFolderError,
    RunPausedError,
    TrainingDivergedError,
)
from tfconvbias.training.experiment import experiment_recipe
from tfconvbias.training.filter_study import FilterStudy
from tfconvbias.training.kernel_size_study import KernelSizeStudy
from tfconvbias.training.nonzero_study import NonzeroStudy
from tfconvbias.training.paper_table import PaperTable
from tfconvbias.training.parameter_scaling import ParameterScaling, scaling_recipe
from tfconvbias.training.patch_geometry import PatchGeometryConfig, run_patch_geometry
from tfconvbias.training.permutation_study import PermutationStudy
from tfconvbias.training.report import write_report
from tfconvbias.training.run_config import RunConfig, option
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.runner import RunResult, run
from tfconvbias.training.sparsity_config import SparsityConfig
from tfconvbias.training.sparsity_depth import report_sparsity_depth
from tfconvbias.training.sparsity_report import report_sparsity, write_sparsity_report
from tfconvbias.training.sparsity_sweep import SparsityResult, run_sparsity
from tfconvbias.training.stability_images import StabilityImages, run_stability_images
from tfconvbias.training.stability_run import StabilityRun, stability_row
from tfconvbias.training.stability_sweep import StabilitySweep, run_stability
from tfconvbias.training.study import Study, study_recipe
from tfconvbias.training.switch_time import (
    SwitchTimeConfig,
    SwitchTimeResult,
    run_switch_time,
)
from tfconvbias.training.switch_time_report import switch_time_recipe, write_switch_time_report
from tfconvbias.training.width_study import WidthStudy

__all__ = [
    "ConfigError",
    "DescriptionTableConfig",
    "FilterStudy",
    "KernelSizeStudy",
    "NonzeroStudy",
    "PaperTable",
    "ParameterScaling",
    "PatchGeometryConfig",
    "PermutationStudy",
    "RunConfig",
    "RunFolder",
    "RunFolderError",
    "RunPausedError",
    "RunResult",
    "ShuffledBatches",
    "SparsityConfig",
    "SparsityResult",
    "StabilityImages",
    "StabilityRun",
    "StabilitySweep",
    "Study",
    "SwitchTimeConfig",
    "SwitchTimeResult",
    "TrainingDivergedError",
    "WidthStudy",
    "build_dataset",
    "build_model",
    "build_optimizer",
    "command_line",
    "compare",
    "compare_recipe",
    "describe_models",
    "experiment_recipe",
    "option",
    "paper_targets",
    "report_sparsity",
    "report_sparsity_depth",
    "run",
    "run_patch_geometry",
    "run_recipe",
    "run_sparsity",
    "run_stability",
    "run_stability_images",
    "run_switch_time",
    "scaling_recipe",
    "stability_row",
    "study_recipe",
    "switch_time_recipe",
    "write_report",
    "write_sparsity_report",
    "write_switch_time_report",
]
