"""A frozen configuration dataclass as a command line."""

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tfconvbias.training.errors import ConfigError

Config = TypeVar("Config")


def parse(
    config: Config,
    *,
    description: str | None = None,
    demo: Mapping[str, Any] | None = None,
    fixed: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> Config:
    """Read a configuration from the command line; every field is an option.

    A field `base_channels` becomes `--base-channels`, a bool `--resume` / `--no-resume`, a
    `Literal` a choice, a `T | None` accepts the word none, a `tuple[T, ...]` takes several values.
    The field's `help` metadata and its default make the line in `--help`.

    Args:
        config: dataclass instance that holds the defaults.
        description: text above the options, usually the recipe's `__doc__`.
        demo: fields that `--demo` changes (small, embedded data). Options given beside `--demo`
            win over it. `None`: no such option.
        fixed: fields that a recipe sets itself; they get no option.
        argv: arguments; `sys.argv[1:]` by default.

    Returns:
        A configuration of the same class.

    Raises:
        SystemExit: With status 2 and a message, for an unknown option or a bad value.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if demo is not None:
        shown = " ".join(f"{name}={value}" for name, value in demo.items())
        parser.add_argument(
            "--demo", action="store_true", help=f"small and offline, in minutes: {shown}"
        )
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if field.name not in fixed:
            _add_option(parser, field, hints[field.name], getattr(config, field.name))
    given = vars(parser.parse_args(argv))
    changes: dict[str, Any] = dict(demo or {}) if given.pop("demo", False) else {}
    changes.update(given)
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except ConfigError as error:
        parser.error(str(error))


def arguments_of(config: Any, default: Any) -> str:
    """The options that turn `default` into `config`, ready to paste behind a recipe's name."""
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == getattr(default, field.name):
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words.append(" ".join([flag, *map(str, value)]))
        else:
            words.append(f"{flag} {'none' if value is None else value}")
    return " ".join(words)


def program_name() -> str:
    """The running recipe as a user types it."""
    return f"python {sys.argv[0]}"


def _add_option(
    parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any, default: Any
) -> None:
    flag = "--" + field.name.replace("_", "-")
    shown = "none" if default is None else default
    text = f"{field.metadata.get('help', '')} [{shown}]".replace("%", "%%")
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
    kind, optional = _unwrap_optional(hint)
    origin = typing.get_origin(kind)
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        return
    if origin is typing.Literal:
        options["choices"] = typing.get_args(kind)
    elif origin is tuple:
        element = typing.get_args(kind)[0]
        options.update(nargs="+", action=_TupleAction, type=element, metavar=element.__name__)
    else:
        options.update(type=_optional(kind) if optional else kind, metavar=kind.__name__.upper())
    parser.add_argument(flag, **options)


class _TupleAction(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(values))


def _optional(kind: type) -> Any:
    def convert(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    convert.__name__ = kind.__name__
    return convert


def _unwrap_optional(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (kind,) = (part for part in typing.get_args(hint) if part is not type(None))
        return kind, True
    return hint, False
