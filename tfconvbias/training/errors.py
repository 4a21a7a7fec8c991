"""Errors that a user can mend: the command line prints them without a traceback."""


class RecipeError(Exception):
    """Any of the errors here, and of searches; a recipe ends with its message alone."""


class ConfigError(RecipeError, ValueError):
    """A configuration field has a value that can't be used."""


class RunFolderError(RecipeError, RuntimeError):
    """A run folder holds something else than the run that was asked for."""


class RunPausedError(RuntimeError):
    """The time that a run was given is over; a checkpoint is kept, and the run can be resumed."""


class TrainingDivergedError(RecipeError, RuntimeError):
    """The loss became NaN or infinite; the last good model is kept in the run folder."""
