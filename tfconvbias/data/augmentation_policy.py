"""Augmentation policies: the operations that they may name, reading and checking."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Magnitudes:
    """The magnitudes of an operation: `level·(high − low) + low`, with either sign if mirrored."""

    low: float
    high: float
    mirrored: bool = False


OPERATIONS = {
    "ShearX": Magnitudes(-0.3, 0.3, mirrored=True),
    "ShearY": Magnitudes(-0.3, 0.3, mirrored=True),
    "TranslateX": Magnitudes(-0.45, 0.45, mirrored=True),
    "TranslateY": Magnitudes(-0.45, 0.45, mirrored=True),
    "Rotate": Magnitudes(-30, 30, mirrored=True),
    "AutoContrast": Magnitudes(0, 1),
    "Invert": Magnitudes(0, 1),
    "Equalize": Magnitudes(0, 1),
    "Solarize": Magnitudes(0, 256),
    "Posterize": Magnitudes(4, 8),
    "Contrast": Magnitudes(0.1, 1.9),
    "Color": Magnitudes(0.1, 1.9),
    "Brightness": Magnitudes(0.1, 1.9),
    "Sharpness": Magnitudes(0.1, 1.9),
    "Cutout": Magnitudes(0, 0.2),
}
"""The operations of policies and their magnitudes."""

PUBLISHED_POLICIES = {
    name: Path(__file__).parent / "policies" / f"fast_autoaugment_{name}.json"
    for name in ("cifar10", "svhn")
}
"""The policies published with Fast AutoAugment, found on CIFAR-10 and SVHN; `policies/LICENSE.txt`
states whose they are."""

Step = tuple[str, float, float]
Policy = tuple[tuple[Step, ...], ...]


def read_policy(policy: str | os.PathLike | Sequence) -> Policy:
    """Check a policy, given as a list or as the path of a JSON file.

    Args:
        policy: A list of sub-policies, each a list of `[operation, probability, level]`, or the
            path of a JSON file with such a list.

    Raises:
        ValueError: If the file cannot be read or holds no such list, an operation is unknown, a
            probability or a level lies outside [0, 1], or a sub-policy is empty.
    """
    if not isinstance(policy, str | os.PathLike):
        return _checked(policy, "`policy`")
    place = f"The policy file {str(policy)!r}"
    try:
        content = json.loads(Path(policy).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{place} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not a JSON file: {error}.") from error
    return _checked(content, place)


def magnitude(operation: str, level: float) -> float:
    """The magnitude of an operation at a level in [0, 1]."""
    found = OPERATIONS[operation]
    return level * (found.high - found.low) + found.low


def _checked(content: Any, place: str) -> Policy:
    if not _is_list(content) or len(content) == 0:
        raise ValueError(f"{place} must be a list of sub-policies. Received: {_shown(content)}")
    return tuple(
        _sub_policy(part, f"{place}, sub-policy {number}") for number, part in enumerate(content)
    )


def _sub_policy(part: Any, place: str) -> tuple[Step, ...]:
    if not _is_list(part) or len(part) == 0:
        raise ValueError(
            f"{place} must be a list of one or more [operation, probability, level]. "
            f"Received: {_shown(part)}"
        )
    return tuple(_step(step, f"{place}, step {number}") for number, step in enumerate(part))


def _step(step: Any, place: str) -> Step:
    if not _is_list(step) or len(step) != 3:
        raise ValueError(
            f"{place} must be [operation, probability, level]. Received: {_shown(step)}"
        )
    operation, probability, level = step
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise ValueError(
            f"{place} must name one of the operations {', '.join(OPERATIONS)}. "
            f"Received: {_shown(operation)}"
        )
    for name, value in (("probability", probability), ("level", level)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(
                f"{place}: the {name} must be a number in [0, 1]. Received: {_shown(value)}"
            )
    return operation, float(probability), float(level)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
