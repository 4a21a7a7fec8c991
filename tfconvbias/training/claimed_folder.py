"""A folder that belongs to one configuration: claimed once, found again, never mixed up."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfconvbias.training.errors import RunFolderError


def check_folder(file: Path, wanted: Mapping[str, Any], resume: bool, kind: str = "run") -> bool:
    """Check that a folder is free, or holds this very work and may be continued.

    Args:
        file: the JSON file in the folder that holds the configuration once it is claimed.
        wanted: the configuration's fields that decide the result.
        resume: whether work that is there already may be continued.
        kind: what the folder holds, for messages.

    Returns:
        Whether the folder is claimed already.

    Raises:
        RunFolderError: If the folder holds another configuration, holds this one without `resume`,
            or holds files without a configuration.
    """
    folder = file.parent
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(
                f"{folder} is not empty and holds no {kind}. Choose another --run-dir."
            )
        return False
    check_same(file, wanted, kind)
    if not resume:
        raise RunFolderError(
            f"{folder} already holds this {kind}. Continue it with --resume, "
            "or choose another --run-dir."
        )
    return True


def check_same(file: Path, wanted: Mapping[str, Any], kind: str = "run") -> None:
    """Check that a stored configuration equals the wanted one.

    Args:
        file: the stored configuration.
        wanted: the configuration's fields that decide the result.
        kind: what the folder holds, for messages.

    Raises:
        RunFolderError: If they differ, with the fields and both values.
    """
    stored = json.loads(file.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(wanted))
    different = ", ".join(
        f"{name}: {stored.get(name)!r} there, {wanted.get(name)!r} asked for"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    )
    if different:
        raise RunFolderError(
            f"{file.parent} holds a {kind} with another configuration ({different}). "
            "Choose another --run-dir."
        )


def write_json(file: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a file so that it is complete or absent; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(file)
