"""Many runs: a graph of tasks, carried out here, by processes of this machine, or by a Ray cluster.

A task is data, a function of a module and a configuration, so that any process can carry it out;
what one task hands to another lies in run folders.
"""

from tfconvbias.training.engine.options import ManyRuns
from tfconvbias.training.engine.progress import Progress, duration
from tfconvbias.training.engine.schedule import run_tasks
from tfconvbias.training.engine.task import Finished, Reply, Task, Workplace

__all__ = [
    "Finished",
    "ManyRuns",
    "Progress",
    "Reply",
    "Task",
    "Workplace",
    "duration",
    "run_tasks",
]
