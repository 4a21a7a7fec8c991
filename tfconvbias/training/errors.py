"""Errors that a user can mend: the command line prints them without a traceback."""


class ConfigError(ValueError):
    """A configuration field has a value that can't be used."""


class RunFolderError(RuntimeError):
    """A run folder holds something else than the run that was asked for."""


class RunPausedError(RuntimeError):
    """The time that a run was given is over; a checkpoint is kept, and the run can be resumed."""


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the last good model is kept in the run folder."""
