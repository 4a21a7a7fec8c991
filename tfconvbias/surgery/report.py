"""A model before and after surgery, side by side."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import keras

from tfconvbias.arguments import checked
from tfconvbias.surgery.architecture import Architecture, architecture
from tfconvbias.text_table import format_table


@dataclass
class Report:
    """A model before and after surgery. Print it for a table.

    Attributes:
        before: The model's architecture, which tells what of it can go.
        after: The smaller model's own architecture.
        parameters: All weights before and after, with those of normalizations.
    """

    before: Architecture
    after: Architecture
    parameters: tuple[int, int]

    def __str__(self) -> str:
        by_name = {layer.name: layer for layer in self.after.layers}
        rows = []
        for old in self.before.layers:
            new = by_name.get(old.name)
            rows.append(
                {
                    "layer": old.name,
                    "kernels": f"{old.kernels} → {new.kernels if new else 0}",
                    "size": f"{old.kernel_size} → {new.kernel_size if new else 0}",
                    "multiply-adds": f"{old.multiply_adds:,} → {new.multiply_adds if new else 0:,}",
                }
            )
        totals = [
            (
                f"total: parameters {self.parameters[0]:,} → {self.parameters[1]:,}, "
                f"multiply-adds {self.before.total('multiply_adds'):,} → "
                f"{self.after.total('multiply_adds'):,} "
                f"({100 * self.multiply_add_ratio:.1f} %; "
                f"with live channels and sizes alone "
                f"{self.before.total('theoretical_multiply_adds'):,})"
            )
        ]
        kept = [f"{name}: {reason}" for name, reason in self.before.explanations.items()]
        return "\n".join([format_table(rows, markdown=False), *totals, *kept])

    @property
    def multiply_add_ratio(self) -> float:
        """Multiply-adds after divided by those before."""
        before = self.before.total("multiply_adds")
        return self.after.total("multiply_adds") / before if before else math.nan

    def to_json(self) -> str:
        """The same numbers as JSON."""
        return json.dumps(asdict(self), indent=2)


@checked
def report(before: keras.Model, after: keras.Model, opaque: tuple[Any, ...] = ()) -> Report:
    """Compares a model with what `compact` made of it.

    Args:
        before: The (thresholded) model.
        after: The compact model.
        opaque: Names or classes of layers that are unknown, to be taken as they are.

    Returns:
        The `Report`: print it, or `to_json()`. It says why zero kernels stayed where they did.
    """
    return Report(
        architecture(before, opaque=opaque),
        architecture(after, opaque=opaque),
        (before.count_params(), after.count_params()),
    )
