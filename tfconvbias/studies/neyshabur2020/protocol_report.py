"""The protocol's outcomes as tables, figures and files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, plots
from tfconvbias.studies.neyshabur2020.kernel_size_study import published
from tfconvbias.studies.neyshabur2020.paper_targets import FIGURE_5, PAPER_DATASETS
from tfconvbias.studies.neyshabur2020.protocol import Protocol, kernel_size_row
from tfconvbias.studies.neyshabur2020.protocol_runs import Outcome, ProtocolRuns
from tfconvbias.studies.study import percent
from tfconvbias.training import (
    Figures,
    MissingRunsError,
    RunFolder,
    TrainingDivergedError,
    counted,
    dataset_label,
    first_layer_images,
    format_table,
    run_notes,
    write_page,
    write_rows,
)
from tfconvbias.training.table import OPTIMIZERS

_MOST_UNITS = 500
_WINDOW = 9
_NAMES = ("Chosen on validation images, measured on test images", "Gaps", "Locality of layer 1")
GAPS = (
    ("S-CONV", "S-FC"),
    ("S-CONV", "S-LOCAL"),
    ("S-LOCAL", "S-FC"),
    ("S-CONV", "S-FC β-LASSO"),
    ("S-FC β-LASSO", "S-FC"),
    ("D-CONV", "D-FC"),
    ("D-CONV", "D-LOCAL"),
    *(
        (kernel_size_row(size, "beta_lasso"), kernel_size_row(size, "sgd"))
        for size in FIGURE_5["cifar10"]["sgd"]
    ),
)
"""Pairs of rows whose difference is shown, the first less the second."""


@checked
def report_protocol(protocol: Protocol) -> None:
    """Run what is not on disk yet, print the tables, and write the report.

    The report is written after every length, so that a long study can be looked at on its way.

    Raises:
        MissingRunsError: If processes of some runs were lost; the others are reported first.
        TrainingDivergedError: If the loss of a chosen setting diverged with some seed; the others
            are reported first.
    """
    folder = Path(protocol.folder())
    outcomes: list[Outcome] = []
    localities: dict[str, analysis.Locality] = {}
    tables: dict[str, list[dict[str, str]]] = {}
    runs = ProtocolRuns(protocol)
    for found in runs.outcomes():
        outcomes += found
        for outcome in found:
            for test in outcome.tests:
                localities[str(test.folder.path)] = _locality(test.folder)
        tables = _tables(protocol, outcomes, localities)
        _write(protocol, folder, outcomes, localities, tables, runs.missing)
    if runs.missing is not None and not outcomes:
        raise runs.missing
    for heading in _NAMES:
        if tables[heading]:
            print(f"\n{heading}\n\n{format_table(tables[heading])}")
    for remark in _remarks(protocol):
        print(remark)
    print(f"Settings for the tables' --settings: {folder / 'settings.json'}")
    print(f"Report: {folder / 'report.html'}")
    if runs.missing is not None:
        raise runs.missing
    lost = [
        f"{o.row}, {counted(o.epochs, 'epoch')}, seed {seed}"
        for o in outcomes
        for seed in o.diverged
    ]
    if lost:
        raise TrainingDivergedError(f"Diverged: {'; '.join(lost)}.")


def _write(
    protocol: Protocol,
    folder: Path,
    outcomes: Sequence[Outcome],
    localities: Mapping[str, analysis.Locality],
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    missing: MissingRunsError | None,
) -> None:
    tests = {
        f"{o.row}, {dataset_label(o.dataset)}, {counted(o.epochs, 'epoch')}, "
        f"seed {test.row['seed']}": test
        for o in outcomes
        for test in o.tests
    }
    diverged = [
        f"Diverged: {o.row}, {dataset_label(o.dataset)}, {counted(o.epochs, 'epoch')}, seed {seed}."
        for o in outcomes
        for seed in o.diverged
    ]
    write_rows(folder / "trials.csv", list(_trial_rows(outcomes)))
    write_rows(folder / "tests.csv", list(_test_rows(outcomes, localities)))
    write_page(
        folder / "report.html",
        protocol.table.title,
        tables,
        _figures(outcomes, localities),
        [
            *_remarks(protocol),
            *diverged,
            *run_notes({name: test.folder for name, test in tests.items()}),
        ],
        findings=[*([] if missing is None else [missing.summary]), *_findings(tables)],
        settings={name: test.folder for name, test in tests.items()},
    )


def _findings(tables: Mapping[str, Sequence[Mapping[str, str]]]) -> list[str]:
    """The gaps; of rows without a counterpart their accuracies."""
    gaps = [
        f"{row['gap']} on {row['data set']} after {counted(int(row['epochs']), 'epoch')}: "
        f"{row['points of test accuracy']} points of test accuracy"
        + (f" (standard error {row['standard error']})." if row["standard error"] != "–" else ".")
        for row in tables[_NAMES[1]]
    ]
    accuracies = [
        f"{row['model']} on {row['data set']} after {counted(int(row['epochs']), 'epoch')}: "
        f"test accuracy {row['test, %']} %."
        for row in tables[_NAMES[0]]
    ]
    return gaps or accuracies or ["No chosen setting was trained to its end."]


def _tables(
    protocol: Protocol, outcomes: Sequence[Outcome], localities: Mapping[str, analysis.Locality]
) -> dict[str, list[dict[str, str]]]:
    return {
        _NAMES[0]: [_result_row(protocol, outcome) for outcome in outcomes if outcome.tests],
        _NAMES[1]: [_gap_row(*gap) for gap in _gaps(outcomes)],
        _NAMES[2]: [_locality_row(o, localities) for o in outcomes if o.tests],
        "All settings": [
            {
                "model": row["row"],
                "data set": row["dataset"],
                "epochs": str(row["epochs"]),
                "setting": row["setting"],
                "validation, %": "diverged"
                if row["val_accuracy"] is None
                else f"{100 * row['val_accuracy']:.2f}",
            }
            for row in _trial_rows(outcomes)
        ],
    }


def _result_row(protocol: Protocol, outcome: Outcome) -> dict[str, str]:
    accuracies = [trial.accuracy for trial in outcome.trials if trial.accuracy is not None]
    edge = protocol.grid(outcome.row).at_the_edge(outcome.chosen.setting)
    first = outcome.tests[0].row
    weights = sum(first["kernel_parameters"].values())
    return {
        "model": outcome.row,
        "test, %": percent(outcome.tests, "test_accuracy"),
        **_published(protocol, outcome),
        "data set": dataset_label(outcome.dataset),
        "epochs": str(outcome.epochs),
        "width": str(first["width"]),
        "chosen setting": outcome.chosen.setting.label,
        "settings tried": str(len(outcome.trials)),
        "at the grid's edge": ", ".join(edge) or "–",
        "validation of the grid, best / median / worst, %": " / ".join(
            f"{100 * value:.2f}"
            for value in (max(accuracies), statistics.median(accuracies), min(accuracies))
        ),
        "validation, %": percent(outcome.tests, "val_accuracy"),
        "seeds": ", ".join(str(test.row["seed"]) for test in outcome.tests),
        "kernel weights": f"{weights:,}",
        "non-zero, %": f"{100 * _nonzeros(outcome) / weights:.2f}",
    }


def _published(protocol: Protocol, outcome: Outcome) -> dict[str, str]:
    """The paper's accuracy after as many epochs, where a data set of the paper is among ours."""
    if not set(protocol.table.datasets) & set(PAPER_DATASETS):
        return {}
    theirs = protocol.table.targets.get(outcome.row, {}).get(outcome.dataset, {})
    accuracy = theirs.get(outcome.epochs)
    return {"paper, %": "–" if accuracy is None else f"{accuracy:.2f}"}


def _gaps(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str, int, float, float]]:
    """Label, data set, epochs, difference of the means in points and its standard error."""
    by_name = {(o.row, o.dataset, o.epochs): o for o in outcomes if o.tests}
    for high, low in GAPS:
        for (row, dataset, epochs), outcome in by_name.items():
            other = by_name.get((low, dataset, epochs))
            if row != high or other is None:
                continue
            means, errors = zip(*map(_mean_and_error, (outcome, other)), strict=True)
            yield f"{high} − {low}", dataset, epochs, means[0] - means[1], math.hypot(*errors)


def _mean_and_error(outcome: Outcome) -> tuple[float, float]:
    """Mean test accuracy in % and its standard error, 0 of a single seed."""
    values = [100 * test.row["test_accuracy"] for test in outcome.tests]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), error


def _gap_row(name: str, dataset: str, epochs: int, gap: float, error: float) -> dict[str, str]:
    return {
        "gap": name,
        "data set": dataset_label(dataset),
        "epochs": str(epochs),
        "points of test accuracy": f"{gap:+.2f}",
        "standard error": f"{error:.2f}" if error else "–",
    }


def _locality_row(outcome: Outcome, localities: Mapping[str, analysis.Locality]) -> dict[str, str]:
    """Means over seeds."""
    found = [localities[str(test.folder.path)] for test in outcome.tests]

    def over_seeds(name: str) -> float:
        return statistics.fmean(getattr(one, name) for one in found)

    layer, size = next(iter(outcome.tests[0].row["kernel_parameters"].items()))
    count = statistics.fmean(test.row["nonzeros"][layer] for test in outcome.tests)
    return {
        "model": outcome.row,
        "data set": dataset_label(outcome.dataset),
        "epochs": str(outcome.epochs),
        "weights": f"{size:,}",
        "non-zero": f"{count:,.0f} ({100 * count / size:.2f} %)",
        "units measured": f"{over_seeds('num_units'):.0f}",
        "spread, pixels": f"{over_seeds('spread'):.2f}",
        "permuted": f"{over_seeds('permuted_spread'):.2f}",
        f"share in the best {found[0].window}×{found[0].window}, %": (
            f"{100 * over_seeds('window_share'):.1f}"
        ),
        "permuted share, %": f"{100 * over_seeds('permuted_window_share'):.1f}",
    }


def _figures(outcomes: Sequence[Outcome], localities: Mapping[str, analysis.Locality]) -> Figures:
    figures: Figures = {}
    for dataset in dict.fromkeys(o.dataset for o in outcomes):
        chosen = [o for o in outcomes if o.dataset == dataset and o.tests]
        accuracy: dict[str, dict[int, tuple[float, float]]] = {}
        spread: dict[str, dict[int, tuple[float, float]]] = {}
        gaps: dict[str, dict[int, tuple[float, float]]] = {}
        for o in chosen:
            accuracy.setdefault(o.row, {})[o.epochs] = _mean_and_error(o)
            ratios = [localities[str(test.folder.path)].spread_ratio for test in o.tests]
            error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else 0.0
            spread.setdefault(o.row, {})[o.epochs] = (statistics.fmean(ratios), error)
        for label, of, epochs, gap, error in _gaps(chosen):
            if of == dataset:
                gaps.setdefault(label, {})[epochs] = (gap, error)
        panels = {
            "test accuracy, %": accuracy,
            "gap, points": gaps,
            "spread of layer 1 ÷ permuted": spread,
        }
        name = dataset_label(dataset)
        by_size = _by_kernel_size(chosen)
        if by_size:
            paper = published(dataset)
            figures[f"kernel size {name}"] = (
                "Test accuracy of ResNet18 after the last length against the side of its kernels, "
                "bars of one standard deviation over seeds"
                + ("; dashed, the paper's (64 channels, 400 epochs)." if paper else "."),
                plots.accuracy_against_kernel_size({name: by_size}, {name: paper}),
            )
        figures[f"gaps {name}"] = (
            f"{name}: test accuracy of the chosen settings against the length of training, the "
            "differences between rows, and how local the units of layer 1 are (1: place means "
            "nothing). Bars are standard errors over seeds.",
            plots.spread_curves({label: p for label, p in panels.items() if p}, title=name),
        )
    return figures


def _by_kernel_size(chosen: Sequence[Outcome]) -> dict[str, dict[int, list[float]]]:
    """Optimizer → kernel size → test accuracies of ResNet18 in %, at the last length."""
    curves: dict[str, dict[int, list[float]]] = {}
    last = max((o.epochs for o in chosen), default=0)
    for o in chosen:
        config = o.tests[0].folder.config()
        if config["family"] == "resnet18" and o.epochs == last:
            label = OPTIMIZERS[config["optimizer"]]
            found = [100 * test.row["test_accuracy"] for test in o.tests]
            curves.setdefault(label, {})[config["kernel_size"]] = found
    return curves


def _remarks(protocol: Protocol) -> list[str]:
    count = protocol.num_settings(0)
    later = (
        f" At later lengths the best {', '.join(map(str, protocol.num_kept))} of the length before "
        "were tried, for every row alike."
        if protocol.num_kept
        else ""
    )
    images = " and on the validation images" if protocol.train_on_all else ""
    return [
        f"Every row had {count} setting{'s' * (count > 1)} at each length, trained with seed "
        f"{protocol.search_seed} and judged by the validation accuracy after the last "
        f"epoch.{later} The best one was trained with each of the seeds in the table{images}; only "
        "these runs were measured on the test images, after their last epoch. ± is the standard "
        "deviation over seeds. A pull is λ Σ η of layers that stand for convolutions, a cutoff βλ "
        "by the deviation of the initial weights of layer 1, of ResNet18's last stage."
    ]


def _trial_rows(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    for o in outcomes:
        for trial in o.trials:
            yield {
                "row": o.row,
                "dataset": dataset_label(o.dataset),
                "epochs": o.epochs,
                "setting": trial.setting.label,
                "val_accuracy": trial.accuracy,
                "is_chosen": trial == o.chosen,
            }


def _test_rows(
    outcomes: Sequence[Outcome], localities: Mapping[str, analysis.Locality]
) -> Iterator[dict[str, Any]]:
    for o in outcomes:
        for test in o.tests:
            found = localities[str(test.folder.path)]
            yield {
                "row": o.row,
                "dataset": dataset_label(o.dataset),
                "epochs": o.epochs,
                "setting": o.chosen.setting.label,
                "num_settings": len(o.trials),
                "seed": test.row["seed"],
                "val_accuracy": test.row["val_accuracy"],
                "test_accuracy": test.row["test_accuracy"],
                "train_accuracy": test.row["train_accuracy"],
                "weights": sum(test.row["kernel_parameters"].values()),
                "nonzeros": sum(test.row["nonzeros"].values()),
                "spread": found.spread,
                "permuted_spread": found.permuted_spread,
                "window_share": found.window_share,
                "permuted_window_share": found.permuted_window_share,
                "seconds": test.row["seconds"],
            }


def _nonzeros(outcome: Outcome) -> float:
    return statistics.fmean(sum(test.row["nonzeros"].values()) for test in outcome.tests)


def _locality(folder: RunFolder) -> analysis.Locality:
    model = folder.load_model(folder.last_model, compile=False)
    drawn = first_layer_images(model)
    # One weight alone is always local.
    least = max(2, drawn[1]) if drawn else 2
    window = min(_WINDOW, *model.input_shape[1:3])
    return analysis.layer_locality(model, window=window, min_nonzeros=least, max_units=_MOST_UNITS)
