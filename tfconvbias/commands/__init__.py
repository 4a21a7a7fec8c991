"""The command `tcb`: what there is, and recipes, reports and comparisons by name."""

from tfconvbias.commands.main import main

__all__ = ["main"]
