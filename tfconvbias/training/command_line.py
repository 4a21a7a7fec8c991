"""A configuration as a command line."""

import argparse
import dataclasses
import inspect
import shlex
import sys
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tfconvbias.training.config import Config
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import Kept

AnyConfig = TypeVar("AnyConfig", bound=Config)

started_by: str | None = None
"""The command that a recipe was started by, such as "tcb run"; none: Python itself."""

typed: tuple[str, ...] | None = None
"""The options that the running recipe was given; none: no recipe is running."""


def parse(
    config: AnyConfig,
    *,
    description: str | None = None,
    demo: Mapping[str, Any] | None = None,
    argv: Sequence[str] | None = None,
    fixed: Collection[str] = (),
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
        fixed: Further fields that are no options, since the recipe is about their values.

    Returns:
        A configuration of the same class.

    Raises:
        SystemExit: With status 2 and a message, for an unknown option or a bad value.
    """
    found = parser(config, description=description, demo=demo, fixed=fixed)
    return chosen(config, found, argv, demo)


def parser(
    config: Config,
    *,
    description: str | None = None,
    demo: Mapping[str, Any] | None = None,
    fixed: Collection[str] = (),
) -> argparse.ArgumentParser:
    """The parser of a configuration's options; arguments as in `parse`."""
    found = argparse.ArgumentParser(
        prog=None if started_by is None else program_name(),
        usage="%(prog)s [OPTION VALUE ...]; --help shows the options",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if demo is not None:
        shown = " ".join(
            f"--{name.replace('_', '-')} {_shown(value)}" for name, value in demo.items()
        )
        found.add_argument(
            "--demo", action="store_true", help=f"small and offline, in minutes: {shown}"
        )
    groups: dict[str, Any] = {}
    for option in options_of(config):
        if option.name in fixed:
            continue
        if option.section not in groups:
            groups[option.section] = found.add_argument_group(option.section)
        _add_option(groups[option.section], option)
    return found


def chosen(
    config: AnyConfig,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    demo: Mapping[str, Any] | None = None,
) -> AnyConfig:
    """The configuration with the options that were given; arguments as in `parse`."""
    given = vars(parser.parse_args(argv))
    changes: dict[str, Any] = dict(demo or {}) if given.pop("demo", False) else {}
    changes.update(given)
    try:
        return config.replace(**changes)
    except ConfigError as error:
        parser.error(str(error))


class Option(NamedTuple):
    """A field that is an option.

    Attributes:
        name: The field's name.
        help: What `--help` says of it.
        hint: Its type.
        value: Its value, the option's default.
        section: The heading under which `--help` shows it.
    """

    name: str
    help: str
    hint: Any
    value: Any
    section: str


def options_of(config: Config) -> list[Option]:
    """The options of a configuration and of those that it holds, section by section."""
    found = []
    seen = set(config.fixed)
    pending: list[Config] = [config]
    while pending:
        part = pending.pop(0)
        hints = typing.get_type_hints(type(part))
        for field in dataclasses.fields(part):
            if "help" in field.metadata and field.name not in seen:
                found.append(
                    Option(
                        field.name,
                        field.metadata["help"],
                        hints[field.name],
                        getattr(part, field.name),
                        _section(type(part), field.name),
                    )
                )
            seen.add(field.name)
        pending += part.inner().values()
    sections = [Config.section, *(option.section for option in found)]
    # How a run is kept and shown comes last, since it matters least.
    return sorted(found, key=lambda o: (o.section == Kept.section, sections.index(o.section)))


def _section(kind: type, name: str) -> str:
    """The section of the class that brought a field in; others may have changed its default."""
    owners = [c for c in kind.__mro__ if name in inspect.get_annotations(c)]
    return owners[-1].__dict__.get("section", Config.section)


def arguments_of(config: Config, default: Config) -> str:
    """The options that turn `default` into `config`, ready to paste after a recipe's name."""
    words = []
    values = {option.name: option.value for option in options_of(config)}
    for option in options_of(default):
        value = values.get(option.name, option.value)
        if value == option.value:
            continue
        flag = "--" + option.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words.append(f"{flag} {_shown(value)}")
    return " ".join(words)


def program_name(recipe: str | None = None) -> str:
    """A recipe as a user types it: with `tcb run` if he did.

    Args:
        recipe: Name of the recipe; by default the one that is running.
    """
    if started_by is not None:
        return f"{started_by} {recipe or Path(sys.argv[0]).stem}"
    return f"python {sys.argv[0]}" if recipe is None else f"python recipes/{recipe}.py"


def typed_command() -> str | None:
    """The running recipe with the options that it was given, but for `--resume`.

    `None` where no recipe is running, such as in a notebook.
    """
    if typed is None:
        return None
    options = [word for word in typed if word != "--resume"]
    return " ".join([program_name(), *map(shlex.quote, options)])


def _add_option(parser: Any, option: Option) -> None:
    flag = "--" + option.name.replace("_", "-")
    text = f"{option.help} [{_shown(option.value)}]".replace("%", "%%")
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
    kind, optional = _unwrap_optional(option.hint)
    origin = typing.get_origin(kind)
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        return
    if origin is typing.Literal:
        options["choices"] = typing.get_args(kind)
    elif origin is tuple:
        element = typing.get_args(kind)[0]
        # Among words "none" is one of them, unless the default is that there are none.
        word = element if element is str and option.value else _optional(element)
        options.update(nargs="+", action=_TupleAction, type=word, metavar=element.__name__)
    else:
        options.update(type=_optional(kind) if optional else kind, metavar=kind.__name__.upper())
    parser.add_argument(flag, **options)


def _shown(value: Any) -> str:
    """A default as it is typed."""
    if isinstance(value, tuple):
        return shlex.join(map(str, value)) or "none"
    return "none" if value is None else shlex.quote(str(value))


class _TupleAction(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, () if values == [None] else tuple(values))


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
