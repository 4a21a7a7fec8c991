"""Parameters against width and image size, exact and by the paper's formulas: no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.lazy import models, plots
from tfconvbias.training import (
    Config,
    environment,
    environment_note,
    format_table,
    option,
    write_page,
)

FORMULAS: Mapping[str, Callable[[int, int, int], float]] = {
    "d_conv": lambda a, s, c: (9 * 2**8 + 4 * s**2) * a**2 + (27 + 64 * c) * a,
    "d_local": lambda a, s, c: 13 * s**2 * a**2 + (27 * s**2 + 64 * c) * a,
    "d_fc": lambda a, s, c: (s**4 + 4 * s**2) * a**2 + (3 * s**4 + 64 * c) * a,
    "s_conv": lambda a, s, c: 6 * s**2 * a**2 + (243 + 24 * c) * a,
    "s_local": lambda a, s, c: 6 * s**2 * a**2 + (243 * s**2 / 4 + 24 * c) * a,
    "s_fc": lambda a, s, c: 6 * s**2 * a**2 + (3 * s**4 / 4 + 24 * c) * a,
}
"""Totals of Neyshabur 2020, Tables 3 and 4, as printed, of α, image side s and c classes.

Those of the S family are exact where s is even. Those of the D family are approximate, and the
one of D-LOCAL is not its own: it counts a quarter of the layers' weights.
"""


@dataclasses.dataclass(frozen=True)
class ParameterScaling(Config):
    """Over which widths and image sizes parameters are counted.

    Raises:
        ConfigError: If a value is out of its range.
    """

    base_channels: tuple[int, ...] = option(
        (1, 2, 4, 8, 15, 32, 64, 150, 256), "α: base channels, on images of --at-image-size"
    )
    image_sizes: tuple[int, ...] = option(
        (8, 16, 32, 64, 128, 224), "sides of square RGB images, with --at-base-channels"
    )
    at_base_channels: int = option(15, "α where the image size varies")
    at_image_size: int = option(32, "side of the images where α varies")
    classes: int = option(10, "number of logits")
    run_dir: str = option("runs/figure-1-parameters", "folder of figure and report", decides=False)

    def __post_init__(self):
        super().__post_init__()
        self._positive("at_base_channels", "at_image_size", "classes")
        self._distinct("base_channels", "image_sizes")
        self._all_positive("base_channels", "image_sizes")


@checked
def parameter_counts(
    base_channels: PositiveInt, image_size: int, classes: PositiveInt
) -> dict[str, tuple[int, float]]:
    """Member → exact number of kernel weights, and the paper's formula.

    Args:
        base_channels: α.
        image_size: side of square RGB images.
        classes: number of logits.
    """
    shape = (image_size, image_size, 3)
    return {
        name: (
            models.num_kernel_parameters(name, base_channels, input_shape=shape, classes=classes),
            formula(base_channels, image_size, classes),
        )
        for name, formula in FORMULAS.items()
    }


@checked
def report_parameter_scaling(config: ParameterScaling) -> None:
    """Count, print the tables and write the report."""
    side, width = config.at_image_size, config.at_base_channels
    by_width = {a: parameter_counts(a, side, config.classes) for a in config.base_channels}
    by_size = {s: parameter_counts(width, s, config.classes) for s in config.image_sizes}
    tables = {
        f"{side}×{side}×3 images": _rows("α", by_width),
        f"α = {width}": _rows("image size", by_size),
    }
    for heading, rows in tables.items():
        print(f"\n{heading}\n\n{format_table(rows)}")
    figure = plots.parameter_curves(
        {
            f"base channels α, {side}×{side}×3 images": by_width,
            f"image size, α = {width}": by_size,
        }
    )
    caption = (
        "Kernel weights against base channels and image size: exact counts of the layers (lines) "
        "and the paper's formulas (crosses). The paper's D-LOCAL formula falls short of the layers."
    )
    page = write_page(
        Path(config.run_dir) / "report.html",
        "Figure 1: parameters",
        tables,
        {"parameters": (caption, figure)},
        [f"Counted, not trained, on {environment_note(environment())}."],
        findings=[_agreement([by_width, by_size])],
        settings=config,
    )
    print(f"Report: {page}")


def _rows(head: str, counts: Mapping[int, Mapping[str, tuple[int, float]]]) -> list[dict[str, str]]:
    return [
        {
            head: str(value),
            "model": _title(name),
            "exact": f"{exact:,}",
            "paper's formula": f"{formula:,.0f}",
            "formula / exact": f"{formula / exact:.4f}",
        }
        for value, members in counts.items()
        for name, (exact, formula) in members.items()
    ]


def _agreement(tables: Sequence[Mapping[int, Mapping[str, tuple[int, float]]]]) -> str:
    """How near the formulas come to the counts."""
    ratios: dict[str, list[float]] = {}
    for counts in tables:
        for members in counts.values():
            for name, (exact, formula) in members.items():
                ratios.setdefault(_title(name), []).append(formula / exact)
    ranges = (f"{name} {min(found):.3f} to {max(found):.3f}" for name, found in ratios.items())
    return f"The paper's formulas as shares of the exact counts: {', '.join(ranges)}."


def _title(name: str) -> str:
    return name.upper().replace("_", "-")
