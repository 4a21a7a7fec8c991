"""Parameters against width and image size, exact and by the paper's formulas: no training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfconvbias import models, plots
from tfconvbias.text_table import format_table
from tfconvbias.training import command_line
from tfconvbias.training.entry_points import guarded
from tfconvbias.training.environment import environment
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.report_page import write_page
from tfconvbias.training.run_config import option

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
class ParameterScaling:
    """What the recipe's command line sets; the fields' help stands in their metadata."""

    alphas: tuple[int, ...] = option((1, 2, 4, 8, 15, 32, 64, 150, 256), "base channels α")
    image_sizes: tuple[int, ...] = option((8, 16, 32, 64, 128, 224), "sides of square RGB images")
    alpha: int = option(15, "α where the image size varies")
    image_size: int = option(32, "side where α varies")
    classes: int = option(10, "number of logits")
    run_dir: str = option("runs/figure-1-parameters", "folder of figure and report")

    def __post_init__(self):
        single = (self.alpha, self.image_size, self.classes)
        if not self.alphas or not self.image_sizes or min(*self.alphas, *self.image_sizes) < 1:
            raise ConfigError(
                "`alphas` and `image_sizes` must hold positive integers. "
                f"Received: alphas={self.alphas}, image_sizes={self.image_sizes}"
            )
        if min(single) < 1:
            raise ConfigError(
                "`alpha`, `image_size` and `classes` must be positive integers. Received: "
                f"alpha={self.alpha}, image_size={self.image_size}, classes={self.classes}"
            )


def scaling_recipe(
    config: ParameterScaling, *, description: str | None, argv: Sequence[str] | None = None
) -> None:
    """Parse the options, print the tables and write the report.

    Args:
        config: the recipe's configuration.
        description: text of `--help`.
        argv: arguments; `sys.argv[1:]` by default.
    """
    chosen = command_line.parse(config, description=description, demo={}, argv=argv)
    guarded(lambda: _run(chosen))


def parameter_counts(alpha: int, image_size: int, classes: int) -> dict[str, tuple[int, float]]:
    """Member → exact number of kernel weights, and the paper's formula.

    Args:
        alpha: base channels.
        image_size: side of square RGB images.
        classes: number of logits.
    """
    shape = (image_size, image_size, 3)
    return {
        name: (
            models.num_kernel_parameters(name, alpha, input_shape=shape, classes=classes),
            formula(alpha, image_size, classes),
        )
        for name, formula in FORMULAS.items()
    }


def _run(config: ParameterScaling) -> None:
    by_alpha = {a: parameter_counts(a, config.image_size, config.classes) for a in config.alphas}
    by_size = {s: parameter_counts(config.alpha, s, config.classes) for s in config.image_sizes}
    tables = {
        f"{config.image_size}×{config.image_size}×3 images": _rows("α", by_alpha),
        f"α = {config.alpha}": _rows("image size", by_size),
    }
    for heading, rows in tables.items():
        print(f"\n{heading}\n\n{format_table(rows)}")
    figure = plots.parameter_curves(
        {
            f"base channels α, {config.image_size}×{config.image_size}×3 images": by_alpha,
            f"image size, α = {config.alpha}": by_size,
        }
    )
    caption = (
        "Kernel weights against base channels and image size: exact counts of the layers (lines) "
        "and the paper's formulas (crosses). The paper's D-LOCAL formula falls short of the layers."
    )
    found = environment()
    page = write_page(
        Path(config.run_dir) / "report.html",
        "Figure 1: parameters",
        tables,
        {"parameters": (caption, figure)},
        [f"Counted, not trained; {config.classes} classes, commit {found['commit']}."],
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


def _title(name: str) -> str:
    return name.upper().replace("_", "-")
