"""Errors of a search that a user can mend."""

from tfconvbias.training.errors import RecipeError


class SearchError(RecipeError, RuntimeError):
    """A search can't start, or ended without a result."""
