"""Errors that a user can mend: the command line prints them without a traceback."""

from collections.abc import Mapping


class RecipeError(Exception):
    """Base of the errors that the user of a recipe can mend; the recipe ends with the message."""


class ConfigError(RecipeError, ValueError):
    """A configuration field has a value that cannot be used."""


class RunFolderError(RecipeError, RuntimeError):
    """A run folder holds something else than the run that was asked for."""


class RunPausedError(RuntimeError):
    """The time that a run was given is over; a checkpoint is kept, and the run can be resumed."""


class TrainingDivergedError(RecipeError, RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint stays in the run folder."""


class MissingRunsError(RecipeError, RuntimeError):
    """Some runs of a study came to no end, since their processes were lost; the others are kept.

    Args:
        missing: Name of each such run → why it is missing.
        num_runs: How many runs the study has.
    """

    def __init__(self, missing: Mapping[str, str], num_runs: int):
        super().__init__(missing, num_runs)
        self.missing = dict(missing)
        self.num_runs = num_runs

    def __str__(self) -> str:
        lines = [f"  {name}: {text}" for name, text in self.missing.items()]
        return "\n".join([f"{self._count} missing:", *lines])

    @property
    def summary(self) -> str:
        """What a report of the other runs says of them."""
        names = "; ".join(self.missing)
        return f"{self._count} missing: {names}. The same command with --resume continues them."

    @property
    def _count(self) -> str:
        count = len(self.missing)
        return f"{count} of {self.num_runs} runs {'is' if count == 1 else 'are'}"


class LostProcessError(RecipeError, RuntimeError):
    """Another of the processes that train together has ended, or cannot be reached."""
