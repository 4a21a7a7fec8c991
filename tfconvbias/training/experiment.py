"""What the recipe of an experiment with a configuration of its own calls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tfconvbias.training import command_line
from tfconvbias.training.entry_points import guarded

Config = TypeVar("Config")


def experiment_recipe(
    config: Config,
    run: Callable[[Config], Any],
    *,
    description: str | None,
    demo: Mapping[str, Any],
    fixed: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options and run the experiment; errors that the user can mend end as a message.

    Args:
        config: dataclass instance that holds the defaults.
        run: what runs one configuration and prints its results.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        fixed: fields that get no option.
        argv: arguments; `sys.argv[1:]` by default.
    """
    chosen = command_line.parse(config, description=description, demo=demo, fixed=fixed, argv=argv)
    guarded(lambda: run(chosen))
