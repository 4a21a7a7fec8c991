"""The experiments at the edge of stability: which runs they need, what is checked, the report."""

import dataclasses
import html
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from tfconvbias.training.stability_run import StabilityRun, stored_run

from tfconvbias import plots
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_config import option

Row = dict[str, Any]

EXPERIMENTS = ("architectures", "controls", "sizes", "patch_sizes")
CONNECTIVITIES = ("dense", "local", "conv")


class Check(NamedTuple):
    """One acceptance criterion as it fell."""

    name: str
    value: float
    wanted: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class StabilitySweep:
    """What the recipe's command line sets; the fields' help stands in their metadata."""

    experiments: tuple[str, ...] = option(EXPERIMENTS, f"some of {', '.join(EXPERIMENTS)}")
    seeds: int = option(3, "seeds 0, 1, … of each run")
    dimension: int = option(40, "d of the inputs")
    dense_width: int = option(256, "units of the dense network")
    local_width: int = option(32, "filters of the local network")
    conv_width: int = option(128, "filters of the convolutional network")
    num_train: int = option(256, "training points, where they aren't varied")
    patch_size: int = option(4, "patch size, where it isn't varied")
    steps: int = option(10_000, "full-batch steps of architectures and controls")
    sweep_steps: int = option(6000, "full-batch steps of sizes and patch_sizes")
    warmup_steps: int = option(1000, "steps over which the rate rises linearly from 0")
    learning_rate: float = option(0.4, "η for half the mean squared error; the edge is 2/η")
    small_learning_rate: float = option(0.05, "η of the control")
    sizes: tuple[int, ...] = option((64, 128, 256, 512, 1024), "numbers of training points")
    patch_sizes: tuple[int, ...] = option((1, 2, 4, 8, 20, 40), "patch sizes, divisors of d")
    run_dir: str = option("runs/edge-of-stability", "folder of rows, figures and report")

    def __post_init__(self):
        unknown = set(self.experiments) - set(EXPERIMENTS)
        if unknown or not self.experiments or self.seeds < 1:
            raise ConfigError(
                f"`experiments` must be some of {', '.join(EXPERIMENTS)}, `seeds` at least 1. "
                f"Received: experiments={self.experiments}, seeds={self.seeds}"
            )
        if len(self.sizes) < 2 or len(self.patch_sizes) < 2:
            raise ConfigError(
                "`sizes` and `patch_sizes` need two values at least. "
                f"Received: sizes={self.sizes}, patch_sizes={self.patch_sizes}"
            )
        self.runs()  # each run refuses values that don't fit together

    def runs(self) -> dict[str, list[StabilityRun]]:
        """The runs of each experiment; the ones that two experiments share are equal."""
        widths = {
            "dense": self.dense_width,
            "local": self.local_width,
            "conv": self.conv_width,
        }
        shared = {"warmup_steps": self.warmup_steps, "dimension": self.dimension}

        def runs(connectivity, width=None, **fields):
            return [
                StabilityRun(connectivity, width or widths[connectivity], seed=seed, **fields)
                for seed in range(self.seeds)
            ]

        base = shared | {
            "num_train": self.num_train,
            "patch_size": self.patch_size,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
        }
        sweep = base | {"steps": self.sweep_steps}
        found = {
            "architectures": [r for c in CONNECTIVITIES for r in runs(c, **base)],
            "controls": runs("conv", 2 * self.conv_width, **base)
            + [
                r
                for c in CONNECTIVITIES
                for r in runs(c, **(base | {"learning_rate": self.small_learning_rate}))
            ],
            "sizes": [
                r
                for c in ("dense", "conv")
                for n in self.sizes
                for r in runs(c, **(sweep | {"num_train": n}))
            ],
            "patch_sizes": [
                r for m in self.patch_sizes for r in runs("conv", **(sweep | {"patch_size": m}))
            ],
        }
        return {name: found[name] for name in EXPERIMENTS if name in self.experiments}


def run_stability(sweep: StabilitySweep) -> tuple[dict[str, list[Row]], list[Check]]:
    """Train what isn't in the run folder yet, check the criteria and write the report.

    Returns:
        The rows of each experiment, and its criteria as they fell.

    Raises:
        TrainingDivergedError: If a run diverges; the finished rows stay in the folder.
    """
    folder = Path(sweep.run_dir)
    planned = sweep.runs()
    total = sum(map(len, planned.values()))
    rows: dict[str, list[Row]] = {}
    done = 0
    for experiment, runs in planned.items():
        rows[experiment] = []
        for run in runs:
            done += 1
            row = stored_run(run, folder / "rows")
            rows[experiment].append(row)
            print(
                f"[{done}/{total}] {experiment}: {run.name}  train {row['train_error']:.3f}  "
                f"gap {row['gap']:.3f}  λη/2 {row['relative_sharpness']:.3f}  {row['seconds']} s",
                flush=True,
            )
    checks = check(rows)
    for found in checks:
        print(f"{_verdict(found)}  {found.name}: {found.value:.3g}, wanted {found.wanted}")
    print(f"Report: {write_stability_report(rows, checks, folder)}")
    return rows, checks


def check(rows: Mapping[str, Sequence[Row]]) -> list[Check]:
    """The acceptance criteria of the experiments that `rows` holds."""
    checks = []
    everything = [row for found in rows.values() for row in found]
    slack = max(
        norm - bound
        for row in everything
        for norm, bound in zip(
            row["history"]["path_norm"], row["history"]["path_norm_bound"], strict=True
        )
    )
    checks.append(Check("path norm − bound, largest of all measurements", slack, "≤ 0", slack <= 0))
    if "architectures" in rows:
        checks += _check_architectures(rows["architectures"])
    if "sizes" in rows:
        slopes = gap_slopes(rows["sizes"])
        checks += [
            Check(
                "slope of log gap against log n, dense",
                slopes["dense"][0],
                "> −0.2",
                slopes["dense"][0] > -0.2,
            ),
            Check(
                "slope of log gap against log n, conv",
                slopes["conv"][0],
                "< −0.4",
                slopes["conv"][0] < -0.4,
            ),
        ]
    if "patch_sizes" in rows:
        checks += _check_patch_sizes(rows["patch_sizes"])
    return checks


def gap_slopes(rows: Iterable[Row]) -> dict[str, tuple[float, float]]:
    """Log–log slope of the gap against n and its standard error, for each connectivity."""
    import numpy as np
    from scipy import stats

    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        config = row["config"]
        points.setdefault(config["connectivity"], []).append((config["num_train"], row["gap"]))
    slopes = {}
    for connectivity, pairs in points.items():
        fit = stats.linregress(*np.log(np.array(pairs)).T)
        slopes[connectivity] = (float(fit.slope), float(fit.stderr))
    return slopes


def medians(rows: Iterable[Row], key: str, column: str) -> dict[Any, float]:
    """The median of a column over seeds, for each value of a configuration field."""
    groups: dict[Any, list[float]] = {}
    for row in rows:
        groups.setdefault(row["config"][key], []).append(row[column])
    return {value: statistics.median(found) for value, found in groups.items()}


def _check_architectures(rows: Sequence[Row]) -> list[Check]:
    train = medians(rows, "connectivity", "train_error")
    gap = medians(rows, "connectivity", "gap")
    ratios = [row["relative_sharpness"] for row in rows]
    half = min(gap["dense"], gap["local"]) / 2
    return [
        Check("λη/2, smallest of all runs", min(ratios), "≥ 0.85", min(ratios) >= 0.85),
        Check("λη/2, largest of all runs", max(ratios), "≤ 1.1", max(ratios) <= 1.1),
        Check("training error, dense", train["dense"], "< 0.1", train["dense"] < 0.1),
        Check("training error, local", train["local"], "< 0.35", train["local"] < 0.35),
        Check("training error, conv", train["conv"], "> 0.6", train["conv"] > 0.6),
        Check(
            "gap, conv", gap["conv"], f"< {half:.3g}, half of dense and local", gap["conv"] < half
        ),
    ]


def _check_patch_sizes(rows: Sequence[Row]) -> list[Check]:
    from scipy import stats

    train = medians(rows, "patch_size", "train_error")
    gap = medians(rows, "patch_size", "gap")
    correlation = float(stats.spearmanr(list(train), list(train.values())).statistic)
    checks = [
        Check(
            "Spearman correlation of m and training error",
            correlation,
            "< −0.8",
            correlation < -0.8,
        )
    ]
    for m, value in sorted(gap.items()):
        if m <= 2:
            checks.append(Check(f"gap, m = {m}", value, "< 0.3", value < 0.3))
        elif m >= 8:
            checks.append(Check(f"gap, m = {m}", value, "> 1", value > 1))
    return checks


def write_stability_report(
    rows: Mapping[str, Sequence[Row]], checks: Sequence[Check], folder: Path
) -> Path:
    """Figures as PNG and one HTML page: criteria, table, figures, how it was measured."""
    figures = stability_figures(rows)
    place = folder / "figures"
    place.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(place / f"{name}.png", dpi=110)
    criteria = _table(
        ["criterion", "value", "wanted", ""],
        [[c.name, f"{c.value:.3g}", c.wanted, _verdict(c)] for c in checks],
    )
    pictures = "".join(f'<p><img src="figures/{name}.png" alt="{name}"></p>' for name in figures)
    tables = "".join(
        f"<h2>{html.escape(name)}</h2>{_table(*_summary(found))}" for name, found in rows.items()
    )
    first = next(iter(rows.values()))[0]["environment"]
    origin = f"{first['hardware']}, backend {first['backend']}, {first['versions']}"
    page = folder / "report.html"
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Edge of stability</title>'
        "<style>body { font-family: sans-serif; margin: 2em } td, th { padding: .2em .7em; "
        "text-align: left } img { max-width: 100% }</style><h1>Edge of stability</h1>"
        "<p>The criteria are meant for the recipe's own sizes and steps. All errors are mean "
        "squared errors, sharpness is that of half of it.</p>"
        f"{criteria}{pictures}{tables}<p>{html.escape(origin)}</p></html>\n",
        encoding="utf-8",
    )
    return page


def stability_figures(rows: Mapping[str, Sequence[Row]]) -> dict[str, Figure]:
    """The figures of the experiments that `rows` holds."""
    figures = {}
    if "architectures" in rows:
        histories = {
            row["config"]["connectivity"]: row["history"]
            for row in rows["architectures"]
            if row["config"]["seed"] == 0
        }
        figures["architectures"] = plots.sharpness_curves(histories)
    if "sizes" in rows:
        gaps: dict[str, dict[int, list[float]]] = {}
        for row in rows["sizes"]:
            config = row["config"]
            by_size = gaps.setdefault(config["connectivity"], {})
            by_size.setdefault(config["num_train"], []).append(row["gap"])
        figures["sizes"] = plots.gap_against_size(gaps, gap_slopes(rows["sizes"]))
    if "patch_sizes" in rows:
        values: dict[str, dict[float, list[float]]] = {"train_error": {}, "gap": {}}
        for row in rows["patch_sizes"]:
            ratio = row["config"]["patch_size"] / row["config"]["dimension"]
            for column, found in values.items():
                found.setdefault(ratio, []).append(row[column])
        figures["patch_sizes"] = plots.against_patch_size(values["train_error"], values["gap"])
    return figures


def _summary(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Medians (smallest – largest) over seeds of each configuration."""
    fields = ("connectivity", "width", "num_train", "patch_size", "learning_rate", "steps")
    columns = ["train_error", "excess_risk", "gap", "relative_sharpness", "path_norm"]
    columns += ["path_norm_bound", "active_share", "seconds"]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row["config"][field] for field in fields), []).append(row)
    lines = []
    for key, found in groups.items():
        line = [str(value) for value in key] + [str(len(found))]
        for column in columns:
            values = [row[column] for row in found]
            line.append(f"{statistics.median(values):.3f} ({min(values):.3f} – {max(values):.3f})")
        lines.append(line)
    return [*fields, "seeds", *columns], lines


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _verdict(found: Check) -> str:
    return "pass" if found.passed else "FAIL"
