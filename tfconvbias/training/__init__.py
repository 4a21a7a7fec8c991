"""Configure, train, resume, compare and report: what every recipe runs on; it knows no paper."""

from tfconvbias.text_table import format_table
from tfconvbias.training import command_line
from tfconvbias.training.accelerator_table import ACCELERATORS, Accelerator, accelerator
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.build import (
    build_model,
    build_optimizer,
    compile_classifier,
    compile_model,
    learning_rate,
    with_precision,
    xla_pays,
)
from tfconvbias.training.comparison import Compared, compare
from tfconvbias.training.config import Config, option
from tfconvbias.training.data_config import DataConfig, build_dataset, dataset_label
from tfconvbias.training.devices import Devices, Layout, Strategy, distribute
from tfconvbias.training.engine import Finished, ManyRuns, Task, Workplace, run_tasks
from tfconvbias.training.entry_point import PAUSED_STATUS, guarded, main
from tfconvbias.training.environment import accelerators, environment, hardware
from tfconvbias.training.errors import (
    ConfigError,
    LostProcessError,
    MissingRunsError,
    RecipeError,
    RunFolderError,
    RunPausedError,
    TrainingDivergedError,
)
from tfconvbias.training.execution import Deadline, Execution, Kept
from tfconvbias.training.files import (
    place_of,
    read_json,
    read_sealed,
    replacing,
    write_json,
    write_rows,
    write_sealed,
    write_text,
)
from tfconvbias.training.layouts import LAYOUTS
from tfconvbias.training.page import (
    Figures,
    Tables,
    environment_note,
    run_notes,
    write_page,
)
from tfconvbias.training.plan import (
    RunPlan,
    StepCost,
    efficiency_of,
    plan_run,
    print_plan,
    step_cost,
)
from tfconvbias.training.report import (
    MIN_NONZEROS,
    Comparison,
    first_layer_images,
    locality_cells,
    report_comparison,
    report_run,
    write_report,
)
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import History, Images, RunFolder
from tfconvbias.training.runner import RunResult, run
from tfconvbias.training.slug import slug
from tfconvbias.training.table import counted, label, leaders, table_rows
from tfconvbias.training.trainer import evaluate, fit

__all__ = [
    "ACCELERATORS",
    "LAYOUTS",
    "MIN_NONZEROS",
    "PAUSED_STATUS",
    "Accelerator",
    "Compared",
    "Comparison",
    "Config",
    "ConfigError",
    "DataConfig",
    "Deadline",
    "Devices",
    "Execution",
    "Figures",
    "Finished",
    "History",
    "Images",
    "Kept",
    "Layout",
    "LostProcessError",
    "ManyRuns",
    "MissingRunsError",
    "RecipeError",
    "RunConfig",
    "RunFolder",
    "RunFolderError",
    "RunPausedError",
    "RunPlan",
    "RunResult",
    "ShuffledBatches",
    "StepCost",
    "Strategy",
    "Tables",
    "Task",
    "TrainingDivergedError",
    "Workplace",
    "accelerator",
    "accelerators",
    "build_dataset",
    "build_model",
    "build_optimizer",
    "command_line",
    "compare",
    "compile_classifier",
    "compile_model",
    "counted",
    "dataset_label",
    "distribute",
    "efficiency_of",
    "environment",
    "environment_note",
    "evaluate",
    "first_layer_images",
    "fit",
    "format_table",
    "guarded",
    "hardware",
    "label",
    "leaders",
    "learning_rate",
    "locality_cells",
    "main",
    "option",
    "place_of",
    "plan_run",
    "print_plan",
    "read_json",
    "read_sealed",
    "replacing",
    "report_comparison",
    "report_run",
    "run",
    "run_notes",
    "run_tasks",
    "slug",
    "step_cost",
    "table_rows",
    "with_precision",
    "write_json",
    "write_page",
    "write_report",
    "write_rows",
    "write_sealed",
    "write_text",
    "xla_pays",
]
