"""The switch-time protocol with several seeds: means and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfconvbias.lazy import plots
from tfconvbias.studies.dascoli2019.config import SwitchTimeConfig
from tfconvbias.studies.dascoli2019.protocol import SwitchTimeResult
from tfconvbias.training import MissingRunsError, environment_note, format_table, write_page

_COLUMNS = (
    ("test, %", "test_accuracy", 100),
    ("best, %", "best_test_accuracy", 100),
    ("δ, %", "off_local", 100),
    ("broken sharing, %", "broken_sharing", 100),
    ("‖∇L‖ at the end", "gradient_norm_end", 1),
    ("largest λ at the end", "eigenvalue_end", 1),
    ("local alone, %", "local", 100),
)


def configs_of_seeds(config: SwitchTimeConfig) -> list[SwitchTimeConfig]:
    """One configuration for each seed, on the same images, each with a folder in the run folder."""
    return [
        config.replace(
            seed=seed,
            num_seeds=1,
            subset_seed=config.drawn_with,
            run_dir=str(Path(config.run_dir) / f"seed-{seed}"),
        )
        for seed in range(config.seed, config.seed + config.num_seeds)
    ]


def seeds_table(results: Sequence[SwitchTimeResult]) -> list[dict[str, str]]:
    """One row per network: means over the seeds ± their standard deviations."""
    return [
        {"network": name}
        | {
            heading: _spread([factor * row[key] for row in rows if key in row])
            for heading, key, factor in _COLUMNS
        }
        for name, rows in _rows(results).items()
    ]


def write_seeds_report(
    results: Sequence[SwitchTimeResult],
    folder: str | Path,
    label: str,
    baseline: str,
    missing: MissingRunsError | None = None,
) -> Path:
    """Write the table over all seeds and Figure 3 with their spread.

    Args:
        results: One finished protocol per seed.
        folder: Where to write the page.
        label: Name of an embedded network.
        baseline: Name of the standard network of its shape.
        missing: Which networks other seeds lack.

    Returns:
        The path of the page.
    """
    config, rows = results[0].config, _rows(results)
    times = {t: rows[f"tw-{t}"] for t in config.times}
    keys = sorted({key for found in times.values() for row in found for key in row})
    numbers = [key for key in keys if isinstance(times[config.times[0]][0][key], float)]
    means, spreads = (
        {t: {key: float(of([row[key] for row in found])) for key in numbers} for t, found in
         times.items()}
        for of in (np.mean, _deviation)
    )  # fmt: skip
    levels = {
        name: float(np.mean([row["test_accuracy"] for row in rows[key]]))
        for name, key in (("CNN", "cnn"), (baseline, "fcn"))
    }
    figure = plots.against_switch_time(means, levels, label=label, spreads=spreads)
    return write_page(
        Path(folder) / "report.html",
        f"From the CNN to its embedding, at each switch time, with {len(results)} seeds",
        {"Means and standard deviations": seeds_table(results)},
        {
            "switch-time": (
                "Final and best accuracy, gradient norm and top Hessian eigenvalue: means over "
                f"{len(results)} seeds, bars of one standard deviation. Figure 3.",
                figure,
            )
        },
        [
            f"Trained on {environment_note(results[0].folder.part('fcn').environment())}.",
            "All seeds see the same images; they differ in initial weights and batch order. The "
            "pages of the single seeds stand in the folders beside this page.",
        ],
        findings=[
            *([] if missing is None else [missing.summary]),
            *_findings(results, label, baseline),
        ],
        settings=config.replace(num_seeds=len(results)),
        folders={f"seed {result.config.seed}": result.folder for result in results},
    )


def _findings(results: Sequence[SwitchTimeResult], label: str, baseline: str) -> list[str]:
    """The accuracies of the networks, with the best switch time."""
    rows = _rows(results)
    accuracy = {
        name: f"{_spread([100 * row['test_accuracy'] for row in found])} %"
        for name, found in rows.items()
    }
    times = [name for name in rows if name.startswith("tw-")]
    best = max(times, key=lambda name: np.mean([row["test_accuracy"] for row in rows[name]]))
    return [
        f"Test accuracy of the CNN: {accuracy['cnn']}; of the {baseline}: {accuracy['fcn']}.",
        f"Best {label}: {accuracy[best]}, of switch time {best.removeprefix('tw-')}.",
    ]


def show_seeds(results: Sequence[SwitchTimeResult]) -> str:
    """The table as text."""
    return format_table(seeds_table(results))


def _rows(results: Sequence[SwitchTimeResult]) -> dict[str, list[dict]]:
    """Network → its measurements, one for each seed."""
    accuracies = [result.histories["cnn"]["test_accuracy"] for result in results]
    cnn = [{"test_accuracy": a[-1], "best_test_accuracy": max(a)} for a in accuracies]
    return {"cnn": cnn} | {
        name: [result.rows[name] for result in results] for name in results[0].rows
    }


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4g} ± {_deviation(values):.2g}" if values else ""
