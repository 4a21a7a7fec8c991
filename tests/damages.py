"""Ways in which a file of a work's folder can be damaged, and how a resumed command answers."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tfconvbias.training.errors import RecipeError


def _cut(file: Path, other: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _emptied(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def _flipped(file: Path, other: Path) -> None:
    """One bit; in a text it turns a digit into another one, where there is one."""
    content = bytearray(file.read_bytes())
    digits = [k for k, byte in enumerate(content) if 48 <= byte <= 57]
    is_text = file.suffix in (".json", ".csv")
    content[digits[len(digits) // 2] if is_text and digits else len(content) // 2] ^= 1
    file.write_bytes(content)


def _removed(file: Path, other: Path) -> None:
    file.unlink()


def _foreign(file: Path, other: Path) -> None:
    """In the place of the file the one of another work."""
    shutil.copyfile(other, file)


def _doubled(file: Path, other: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines, lines[-1]]))


def _folder(file: Path, other: Path) -> None:
    file.unlink()
    file.mkdir()


def _no_json(file: Path, other: Path) -> None:
    file.write_text("[" * 100_000)


def _list(file: Path, other: Path) -> None:
    file.write_text("[1]")


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "cut": _cut,
    "emptied": _emptied,
    "one bit": _flipped,
    "removed": _removed,
    "of another work": _foreign,
    "last line twice": _doubled,
    "a folder": _folder,
    "nested": _no_json,
    "a list": _list,
}


def outcome(file: Path, go_on: Callable[[], object], expected: object) -> str:
    """How resumed work ends: "heals", "clear", or what is wrong with it.

    Args:
        file: The damaged file.
        go_on: Resumes the work; what it returns is compared.
        expected: What undamaged work returns.
    """
    try:
        found = go_on()
    except RecipeError as error:
        text = str(error)
        place = file.name in text or file.parent.name in text
        return "clear" if place and "\n" not in text else f"obscure: {text[:200]}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    return "heals" if found == expected else "WRONG"
