"""A configuration as a command line."""

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tfconvbias.training.config import Config
from tfconvbias.training.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse(
    config: AnyConfig,
    *,
    description: str | None = None,
    demo: Mapping[str, Any] | None = None,
    argv: Sequence[str] | None = None,
) -> AnyConfig:
    """Read a configuration from the command line; every `option` field is an option.

    A field `base_channels` becomes `--base-channels`, a bool `--resume` / `--no-resume`, a
    `Literal` a choice, a `T | None` accepts the word none, a `tuple[T, ...]` takes several values.
    The field's help and its default make the line in `--help`. Fields of a configuration that this
    one holds are options too; those in `config.fixed` are not.

    Args:
        config: The configuration that holds the defaults.
        description: Text above the options, usually the recipe's `__doc__`.
        demo: Fields that `--demo` changes (small, embedded data). Options given beside `--demo`
            win over it. `None`: no such option.
        argv: Arguments; `sys.argv[1:]` by default.

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
    for field, hint, default in options_of(config):
        _add_option(parser, field, hint, default)
    given = vars(parser.parse_args(argv))
    changes: dict[str, Any] = dict(demo or {}) if given.pop("demo", False) else {}
    changes.update(given)
    try:
        return config.replace(**changes)
    except ConfigError as error:
        parser.error(str(error))


def options_of(config: Config) -> Iterator[tuple[dataclasses.Field, Any, Any]]:
    """Field, type and value of each option, those of inner configurations after the own ones."""
    seen = set(config.fixed)
    pending: list[Config] = [config]
    while pending:
        part = pending.pop(0)
        hints = typing.get_type_hints(type(part))
        for field in dataclasses.fields(part):
            if "help" in field.metadata and field.name not in seen:
                yield field, hints[field.name], getattr(part, field.name)
            seen.add(field.name)
        pending += part.inner().values()


def arguments_of(config: Config, default: Config) -> str:
    """The options that turn `default` into `config`, ready to paste after a recipe's name."""
    words = []
    values = {field.name: value for field, _, value in options_of(config)}
    for field, _, usual in options_of(default):
        value = values.get(field.name, usual)
        if value == usual:
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
