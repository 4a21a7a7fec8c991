"""Acceptance criteria: what was measured, what was wanted, and whether it was met."""

import operator
from collections.abc import Sequence
from typing import NamedTuple

_RELATIONS = {"<": operator.lt, "≤": operator.le, ">": operator.gt, "≥": operator.ge}


class Check(NamedTuple):
    """One acceptance criterion and how it turned out.

    Attributes:
        name: What was measured.
        value: The measured value.
        wanted: The bound in words, such as `"< 0.1"`.
        passed: Whether the value meets the bound; NaN never does.
    """

    name: str
    value: float
    wanted: str
    passed: bool

    @classmethod
    def of(cls, name: str, value: float, relation: str, bound: float, remark: str = "") -> "Check":
        """Compare a value with a bound.

        Args:
            name: What was measured.
            value: The measured value.
            relation: `"<"`, `"≤"`, `">"` or `"≥"`, read as "value relation bound".
            bound: The bound.
            remark: Where the bound comes from; it follows the bound in `wanted`.

        Example:
            >>> Check.of("gap", 0.25, "<", 0.5, "half of the dense network's")
            Check(name='gap', value=0.25, wanted="< 0.5, half of the dense network's", passed=True)
        """
        wanted = f"{relation} {bound:.3g}".replace("-", "−")
        if remark:
            wanted += f", {remark}"
        return cls(name, value, wanted, bool(_RELATIONS[relation](value, bound)))

    @property
    def verdict(self) -> str:
        """`"pass"` or `"FAIL"`."""
        return "pass" if self.passed else "FAIL"


def check_rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """The rows of a table of criteria, one row per criterion."""
    return [
        {
            "criterion": check.name,
            "value": f"{check.value:.3g}",
            "wanted": check.wanted,
            "verdict": check.verdict,
        }
        for check in checks
    ]
