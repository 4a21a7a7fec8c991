"""What all configurations share: options with help, checks, and the fields that decide a result."""

import dataclasses
import functools
import math
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from tfconvbias.arguments import check, checked
from tfconvbias.training.errors import ConfigError

_MOST_RUNS = 10_000


@checked
def option(default: Any, help: str, *, decides: bool = True) -> Any:
    """A dataclass field that becomes an option of the command line.

    Args:
        default: The field's default.
        help: The sentence that `--help` shows for it.
        decides: Whether the field decides the result. Fields that only say where a result is kept
            and how it is shown do not: a run may be continued with other values of them.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Walk(Config):
        ...     steps: int = option(10, "how far")
        ...     run_dir: str = option("runs", "where to keep it", decides=False)
        >>> Walk(steps=3).identity()
        {'steps': 3}
    """
    return dataclasses.field(default=default, metadata={"help": help, "decides": decides})


@dataclass(frozen=True)
class Config:
    """Base of all configurations: frozen dataclasses whose fields are made by `option`.

    A configuration may hold another one, such as the run that all rows of a study share. The
    fields of the inner one are options beside those of the outer one; a field that both have is the
    outer one's.

    Raises:
        ConfigError: If a field's annotation does not allow its value.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    """Fields that get no option on the command line, because the configuration sets them itself."""

    section: ClassVar[str] = "this recipe"
    """Heading in `--help` of the fields that a class adds."""

    def __post_init__(self):
        kind: Any = type(self)  # hashable, as every class is, which mypy does not see
        for name, hint in _field_hints(kind).items():
            value = getattr(self, name)
            try:
                check(name, value, hint)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, float) and not math.isfinite(part):
                    raise ConfigError(f"{name} must hold finite numbers. Received: {name}={value}")
                if isinstance(part, str) and not _is_text(part):
                    raise ConfigError(
                        f"{name} must be text; bytes that are no UTF-8, such as those of a "
                        f"folder's name, are not. Received: {name}={part!a}"
                    )

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result, those of an inner configuration among them."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Config):
                found = value.identity() | found
            elif field.metadata.get("decides", False):
                found[field.name] = value
        return found

    def replace(self, **changes: Any) -> Self:
        """A copy with other values; names of an inner configuration's fields reach it.

        Raises:
            TypeError: If there is no field of a name.
            ConfigError: If a value is out of its range.
        """
        own = {field.name for field in dataclasses.fields(self)}
        inner = {name: value for name, value in changes.items() if name not in own}
        changes = {name: value for name, value in changes.items() if name in own}
        for name, value in self.inner().items():
            known = field_names(value)
            reached = {key: inner.pop(key) for key in list(inner) if key in known}
            if reached:
                changes[name] = changes.get(name, value).replace(**reached)
        if inner:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(inner)}.")
        return dataclasses.replace(self, **changes)

    def inner(self) -> dict[str, "Config"]:
        """The configurations that this one holds, by the name of their field."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Config)}

    def _positive(self, *names: str, optional: bool = False) -> None:
        """Check counts: integers of at least 1, or `None` where `optional`."""
        for name in names:
            value = getattr(self, name)
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a positive integer. Received: {name}={value}")

    def _num_runs(self, *names: str, at_least: int = 1) -> None:
        """Check counts of which each stands for a run or more, all of them planned at once."""
        for name in names:
            value = getattr(self, name)
            if not at_least <= value <= _MOST_RUNS:
                raise ConfigError(
                    f"{name} must be a whole number from {at_least} to {_MOST_RUNS}. "
                    f"Received: {name}={value}"
                )

    def _all_positive(self, *names: str) -> None:
        """Check sequences of counts."""
        for name in names:
            values = getattr(self, name)
            if not all(isinstance(value, int) and value >= 1 for value in values):
                raise ConfigError(f"{name} must be positive integers. Received: {name}={values}")

    def _above_zero(self, *names: str) -> None:
        """Check positive finite numbers."""
        for name in names:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be a positive number. Received: {name}={value}")

    def _at_least_zero(self, *names: str) -> None:
        """Check finite numbers that are not negative."""
        for name in names:
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(
                    f"{name} must be a finite number that is not negative. Received: {name}={value}"
                )

    def _seeds(self, *names: str, optional: bool = False) -> None:
        """Check seeds of every generator, one or several, or `None` where `optional`."""
        for name in names:
            value = getattr(self, name)
            seeds = value if isinstance(value, tuple) else (value,)
            if not (value is None and optional) and not all(0 <= s < 2**32 for s in seeds):
                what = "integers" if isinstance(value, tuple) else "an integer"
                raise ConfigError(
                    f"{name} must be {what} from 0 to 2³² − 1. Received: {name}={value}"
                )

    def _distinct(self, *names: str) -> None:
        """Check sequences: one value or more, each once."""
        for name in names:
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(
                    f"`{name}` must hold one value or more, each once. Received: {name}={values}"
                )


def _is_text(value: str) -> bool:
    """Whether a string can be written; file names of other bytes become strings that cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _field_hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def field_names(config: Config) -> set[str]:
    """Names of a configuration's fields, with those of the configurations that it holds."""
    names = {field.name for field in dataclasses.fields(config)}
    return names.union(*(field_names(inner) for inner in config.inner().values()))
