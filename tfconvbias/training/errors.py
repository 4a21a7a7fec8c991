"""Errors that a user can mend: the command line prints them without a traceback."""


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
    """Some runs of a study came to no end, since their processes were lost; the others are kept."""


class LostProcessError(RecipeError, RuntimeError):
    """Another of the processes that train together has ended, or cannot be reached."""
