"""Errors of a search that a user can mend."""


class SearchError(RuntimeError):
    """A search can't start, or ended without a result."""
