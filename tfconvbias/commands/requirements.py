"""What pip is to install for chosen extras, without what the plain installation brings besides."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires

from tfconvbias.commands.names import CommandError, unknown


def requirements(extras: Sequence[str]) -> list[str]:
    """The requirements of extras, from the installed package's own metadata.

    Raises:
        CommandError: If the package is not installed, or has no such extra.
    """
    try:
        lines = requires("tfconvbias") or []
    except PackageNotFoundError:
        raise CommandError("tfconvbias is not installed, only found on the path.") from None
    by_extra: dict[str, list[str]] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        name = marker.partition("extra ==")[2].strip().strip("'\"")
        if name:
            by_extra.setdefault(name, []).append(requirement.strip())
    for extra in extras:
        if extra not in by_extra:
            unknown("extra", extra, by_extra)
    return list(dict.fromkeys(line for extra in extras for line in by_extra[extra]))
