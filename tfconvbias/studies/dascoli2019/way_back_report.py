"""The table of the square and of the way back, over seeds."""

from pathlib import Path

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.studies.dascoli2019.way_back import (
    WayBackConfig,
    WayBackResult,
    read_way_back,
    run_way_back,
)
from tfconvbias.training import (
    MissingRunsError,
    counted,
    environment_note,
    format_table,
    leaders,
    write_page,
)

_TITLES = {
    "conv": "conv: shared, local",
    "wide": "wide: shared, not local",
    "local": "local: not shared, local",
    "dense": "dense: neither",
}
_COLUMNS = (
    ("test, %", "test_accuracy"),
    ("projected, %", "projected"),
    ("fine-tuned, %", "fine_tuned"),
    ("validation, %", "validation_accuracy"),
    ("δ, %", "off_local"),
    ("broken sharing, %", "broken_sharing"),
    ("off-local weights not zero, %", "off_local_nonzero"),
    ("local weights alone, %", "local_alone"),
)


@checked
def report_way_back(config: WayBackConfig) -> None:
    """Run the study, print its table and write its report.

    Args:
        config: What to run, and where to keep it.

    Raises:
        ConfigError: If the data set does not hold what is asked for.
        MissingRunsError: If processes of some networks were lost; the others are reported first.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If the time was over before the last network.
        TrainingDivergedError: If a loss became NaN or infinite.
    """
    missing = None
    try:
        result = run_way_back(config)
    except MissingRunsError as error:
        missing, result = error, read_way_back(config)
        if not result.rows:
            raise
    page = write_way_back_report(result, missing)
    print("\n" + format_table(way_back_table(result)) + "\n")
    print(f"Report: {page}")
    if missing is not None:
        raise missing


@checked
def write_way_back_report(result: WayBackResult, missing: MissingRunsError | None = None) -> Path:
    """Write the table into the run folder.

    Args:
        result: The study.
        missing: Which networks it lacks.

    Returns:
        The path of the page.
    """
    return write_page(
        result.folder.path / "report.html",
        "Locality and weight sharing, each relaxed by itself, and the way back",
        {"": way_back_table(result)},
        {},
        [
            f"Trained on {environment_note(result.folder.environment())}.",
            f"Means over {counted(len(result.rows), 'seed')}, ± the standard deviation where "
            "there are several. Validation images chose the epoch of each network. All networks "
            "of a seed start from the same CNN and train for the same number of epochs at the same "
            "rate. "
            "Projected: onto convolutions, before any further step. Fine-tuned: trained on as a "
            "CNN, again with the epoch chosen on validation images; in the first row the CNN "
            "itself trains on.",
        ],
        findings=[*([] if missing is None else [missing.summary]), *way_back_findings(result)],
        settings=result.config,
        folders={"all seeds": result.folder},
    )


def way_back_findings(result: WayBackResult) -> list[str]:
    """Which network is the most accurate, and which one on its way back to convolutions."""
    sentences = []
    for key, text in (
        ("test_accuracy", "Highest test accuracy: {}, {:.2f} %."),
        (
            "fine_tuned",
            "Highest test accuracy after the way back to convolutions and fine-tuning: from {}, "
            "{:.2f} %.",
        ),
    ):
        means = {
            _title(name): float(np.mean([row[name][key] for row in result.rows.values()]))
            for name in result.config.networks
            if all(key in row.get(name, {}) for row in result.rows.values())
        }
        if means:
            sentences.append(text.format(leaders(means), 100 * max(means.values())))
    return sentences


@checked
def way_back_table(result: WayBackResult) -> list[dict[str, str]]:
    """One row per network: means over the seeds, and standard deviations."""
    return [
        {"from the same epoch on": _title(name)}
        | {
            heading: _spread([row[name][key] for row in having if key in row[name]])
            for heading, key in _COLUMNS
        }
        for name in result.config.networks
        if (having := [row for row in result.rows.values() if name in row])
    ]


def _title(name: str) -> str:
    return _TITLES.get(name) or f"dense, β-LASSO λ = {name.removeprefix('dense-lasso-')}"


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    mean = f"{100 * np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"
