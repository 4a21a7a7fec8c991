"""The experiments on the sphere as a user sees them: printed tables, and one page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfconvbias import training
from tfconvbias.arguments import checked
from tfconvbias.lazy import plots
from tfconvbias.studies.check import check_rows
from tfconvbias.studies.edge_of_stability.criteria import check_stability, gap_slopes
from tfconvbias.studies.edge_of_stability.stored_rows import Row
from tfconvbias.studies.edge_of_stability.sweep import (
    StabilitySweep,
    run_stability,
    stored_experiments,
)

Curve = tuple[list[float], list[float]]

_FIELDS = {
    "connectivity": "connectivity",
    "width": "width",
    "num_train": "training points",
    "dimension": "dimension",
    "patch_size": "patch size",
    "views": "views",
    "learning_rate": "η",
    "steps": "steps",
}
_COLUMNS = {
    "train_error": "training error",
    "excess_risk": "excess risk",
    "gap_at_half_time": "gap at half of ηt",
    "gap": "gap",
    "relative_sharpness": "λη/2",
    "path_norm": "path norm",
    "path_norm_bound": "its bound",
    "active_share": "active units",
    "seconds": "seconds",
}
_COUNTED = {
    "sizes": ("num_train", "training points n"),
    "dimensions": ("dimension", "dimension d"),
}
_COMMON = "all seeds"
NOTES = (
    "Tables show medians over seeds, with the smallest and the largest value in brackets.",
    "A gap that grew from half of ηt to its end is a transient: its value is that of the stopping "
    "time, and runs of unequal step size are compared at equal ηt only.",
    "All errors are mean squared errors; the sharpness is that of half the mean squared error.",
)
"""Remarks under every table of such runs."""


@checked
def report_stability(sweep: StabilitySweep) -> None:
    """Run the experiments, print criteria and tables, and write the page.

    Raises:
        MissingRunsError: If processes of some runs were lost; the others are reported first, and
            experiments that lack a run have neither criteria nor figures.
    """
    missing = None
    try:
        rows = run_stability(sweep)
    except training.MissingRunsError as error:
        missing = error
        rows = {name: found for name, found in stored_experiments(sweep).items() if found}
        if not rows:
            raise
    whole = {
        name: rows[name]
        for name, runs in sweep.runs().items()
        if len(rows.get(name, [])) == len(runs)
    }
    tables = {
        "Criteria": check_rows(check_stability(whole)) if whole else [],
        **{name: summary(found) for name, found in rows.items()},
    }
    everything = (row for found in rows.values() for row in found)
    meant = "The criteria are meant for the recipe's own sizes and steps."
    notes = [meant, *NOTES, *environment_notes(everything)]
    findings = [
        *([] if missing is None else [missing.summary]),
        *criteria_findings(tables["Criteria"]),
        *unsettled_findings(rows),
    ]
    show("Edge of stability", sweep, tables, stability_figures(whole), notes, findings)
    if missing is not None:
        raise missing


def show(
    title: str,
    config: training.Kept,
    tables: training.Tables,
    figures: training.Figures,
    notes: Sequence[str],
    findings: Sequence[str],
) -> None:
    """Print tables and findings, and write them into the study's `report.html`, with figures."""
    for heading, rows in tables.items():
        if rows:
            print(f"\n{heading}\n\n{training.format_table(rows)}")
    print("\n" + "\n".join(findings))
    folder = training.RunFolder(config.run_dir or ".")
    page = training.write_page(
        folder.path / "report.html",
        title,
        tables,
        figures,
        notes,
        ("pdf", "svg"),
        findings=findings,
        settings=config,
        folders={"all runs": folder},
    )
    print(f"Report: {page}")


def criteria_findings(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """How many criteria are met, and which are not."""
    missed = [row["criterion"] for row in rows if row["verdict"] != "pass"]
    met = f"{len(rows) - len(missed)} of {len(rows)} criteria are met."
    return [met, *(f"Not met: {name} (see the table of criteria)." for name in missed)]


def unsettled_findings(groups: Mapping[str, Sequence[Row]]) -> list[str]:
    """Of each group of runs, how many had a gap that still changed when they were stopped.

    Such a gap changed by more than a tenth in the second half of the training time ηt.
    """
    counts = []
    for name, rows in groups.items():
        moving = sum(
            abs(row["gap"] - row["gap_at_half_time"])
            > 0.1 * max(abs(row["gap"]), abs(row["gap_at_half_time"]))
            for row in rows
        )
        if moving:
            counts.append(f"{moving} of {len(rows)} runs of {name}")
    if not counts:
        return []
    return [
        f"Not settled, so that the gap is that of the stopping time: {', '.join(counts)} "
        "changed it by more than a tenth in the second half of ηt."
    ]


def environment_notes(rows: Iterable[Row]) -> list[str]:
    """One sentence for each environment in which rows were made."""
    notes = (training.environment_note(row["environment"]) for row in rows)
    return [f"Trained on {note}." for note in dict.fromkeys(notes)]


def stability_figures(rows: Mapping[str, Sequence[Row]]) -> training.Figures:
    """The figures of the experiments that `rows` holds, with their captions."""
    figures: training.Figures = {
        f"{name}-gaps": (
            f"Experiment {name}: gap over training time ηt, one curve for each seed.",
            plots.gap_curves(_gap_panels(found)),
        )
        for name, found in rows.items()
    }
    if "architectures" in rows:
        first = [row for row in rows["architectures"] if row["config"]["seed"] == 0]
        histories = {row["config"]["connectivity"]: row["history"] for row in first}
        figures["architectures"] = (
            "Sharpness against the edge 2/η, errors, and weighted path norm against its bound, "
            "over the steps of seed 0.",
            plots.sharpness_curves(histories),
        )
        figures["units"] = (
            "Path norm of each hidden unit against the share of the training points (of all their "
            "patches) that activate it, before and after training, seed 0. Units that nothing "
            "activates are counted as off.",
            plots.units_of_networks(units_by_connectivity(first)),
        )
    for experiment, (field, name) in _COUNTED.items():
        if experiment in rows:
            figures[experiment] = (
                f"Generalization gap against the number of {name}, with log–log slopes. Points are "
                "medians over seeds; bars go from the smallest to the largest value.",
                plots.gap_against(
                    name,
                    _gaps_by(rows[experiment], field),
                    gap_slopes(rows[experiment], field),
                ),
            )
    if "views" in rows:
        figures["views"] = (
            "Generalization gap by what the patches see. Points are medians over seeds; bars go "
            "from the smallest to the largest value.",
            plots.gaps_by_group(_gaps_by(rows["views"], "views")),
        )
    if "patch_sizes" in rows:
        values: dict[str, dict[float, list[float]]] = {"train_error": {}, "gap": {}}
        for row in rows["patch_sizes"]:
            ratio = row["config"]["patch_size"] / row["config"]["dimension"]
            for column, found in values.items():
                found.setdefault(ratio, []).append(row[column])
        figures["patch_sizes"] = (
            "Training error and gap of the convolutional network against the size of its patches. "
            "Points are medians over seeds; bars go from the smallest to the largest value.",
            plots.against_patch_size(values["train_error"], values["gap"]),
        )
    return figures


def _gaps_by(rows: Sequence[Row], field: str) -> dict[str, dict[Any, list[float]]]:
    """Connectivity → value of a field → gap of each seed."""
    gaps: dict[str, dict[Any, list[float]]] = {}
    for row in rows:
        config = row["config"]
        by_value = gaps.setdefault(config["connectivity"], {})
        by_value.setdefault(config[field], []).append(row["gap"])
    return gaps


def units_by_connectivity(
    rows: Iterable[Row],
) -> dict[str, list[tuple[str, list[float], list[float]]]]:
    """Connectivity → activation rates and path norms of the units before and after training."""
    return {
        row.get("connectivity") or row["config"]["connectivity"]: [
            (label, row["units"][moment]["activation_rate"], row["units"][moment]["path_norm"])
            for label, moment in (("before", "start"), ("after", "end"))
        ]
        for row in rows
    }


def curves_of(rows: Iterable[Row]) -> list[Curve]:
    """Times ηt and gaps of each row."""
    return [(row["history"]["time"], row["history"]["gap"]) for row in rows]


def spreads(rows: Sequence[Row]) -> dict[str, str]:
    """Median (smallest – largest) over rows of each measured column."""
    return {name: _spread([row[column] for row in rows]) for column, name in _COLUMNS.items()}


def _gap_panels(rows: Sequence[Row]) -> dict[str, dict[str, list[Curve]]]:
    """A panel for each connectivity, with curves for what varies in it; else one panel for all."""
    groups: dict[str, dict[str, list[Curve]]] = {}
    for row in rows:
        name = row["config"]["connectivity"]
        others = [other["config"] for other in rows if other["config"]["connectivity"] == name]
        label = ", ".join(
            f"{_FIELDS[field]} {row['config'][field]}"
            for field in _FIELDS
            if field != "steps" and len({other[field] for other in others}) > 1
        )
        groups.setdefault(name, {}).setdefault(label, []).extend(curves_of([row]))
    if all(list(found) == [""] for found in groups.values()):
        return {"gap over training": {name: found[""] for name, found in groups.items()}}
    return {
        name: {label or _COMMON: curves for label, curves in found.items()}
        for name, found in groups.items()
    }


def summary(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Median (smallest – largest) over seeds of each column, one row per configuration."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row["config"][field] for field in _FIELDS), []).append(row)
    return [
        {
            **dict(zip(_FIELDS.values(), map(str, key), strict=True)),
            "seeds": str(len(found)),
            **spreads(found),
        }
        for key, found in groups.items()
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} – {max(values):.3f})"
