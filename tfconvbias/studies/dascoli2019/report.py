"""The report of the switch-time protocol: what was found against the paper, and every figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.lazy import plots
from tfconvbias.studies.dascoli2019.config import SwitchTimeConfig
from tfconvbias.studies.dascoli2019.measurements import as_interpolations
from tfconvbias.studies.dascoli2019.protocol import (
    SwitchTimeResult,
    read_switch_time,
    run_switch_time,
)
from tfconvbias.studies.dascoli2019.seeds import configs_of_seeds, show_seeds, write_seeds_report
from tfconvbias.training import (
    Deadline,
    Figures,
    MissingRunsError,
    counted,
    environment_note,
    format_table,
    write_page,
)

_COLUMNS = (
    ("test, %", ("test_accuracy",), 100, ".2f"),
    ("best, %", ("best_test_accuracy",), 100, ".2f"),
    ("train loss", ("loss_start", "loss_end"), 1, ".4f"),
    ("‖∇L‖", ("gradient_norm_start", "gradient_norm_end"), 1, ".3g"),
    ("largest λ", ("eigenvalue_start", "eigenvalue_end"), 1, ".3g"),
    ("δ, %", ("off_local",), 100, ".2f"),
    ("broken sharing, %", ("broken_sharing",), 100, ".2f"),
    ("local alone, %", ("local",), 100, ".2f"),
    ("off-local alone, %", ("off_local_accuracy",), 100, ".2f"),
    ("seconds", ("seconds",), 1, ".0f"),
)
"""Heading, the measurements (joined by arrows), factor and format of each column of the table."""

_PAPERS_RUN = {
    "network": "vanilla",
    "filters": 64,
    "target": "dense",
    "epochs": 150,
    "learning_rate": 0.1,
    "embedded_epochs": 100,
    "embedded_learning_rate": 0.01,
    "batch_size": 250,
    "permute_pixels": None,
}
_PAPERS_DATA = {"dataset": "cifar10", "num_train": 50_000, "num_test": 10_000}
# A folder of other images can have the name and the sizes.
_PAPERS_SOURCE = "TensorFlow Datasets cifar10/"


@checked
def report_switch_time(config: SwitchTimeConfig) -> None:
    """Run the protocol, print its table and findings and write its report.

    Args:
        config: What to run, and where to keep it.

    Raises:
        ConfigError: If the data set does not hold what is asked for, or the embedded network takes
            more memory than there is.
        MissingRunsError: If processes of some points were lost; the others are reported first.
        RunFolderError: If the folder holds another run, or this one without `config.resume`.
        RunPausedError: If the time was over before the last point.
        TrainingDivergedError: If a loss became NaN or infinite.
    """
    if config.num_seeds > 1:
        _report_seeds(config)
        return
    result, missing = _run(config, config.deadline())
    page = write_switch_time_report(result, missing)
    print("\n" + format_table(switch_time_table(result)) + "\n")
    if missing is None:
        print(format_table(findings(result)))
    print(f"Report: {page}")
    if missing is not None:
        raise missing


def _run(
    config: SwitchTimeConfig, deadline: Deadline
) -> tuple[SwitchTimeResult, MissingRunsError | None]:
    """The protocol, or what is there of it and which networks are missing.

    Raises:
        MissingRunsError: If there is no finished network.
    """
    try:
        return run_switch_time(config, deadline=deadline), None
    except MissingRunsError as error:
        result = read_switch_time(config)
        if not result.rows:
            raise
        return result, error


def _report_seeds(config: SwitchTimeConfig) -> None:
    """One run and page for each seed, and a page over all of them."""
    deadline, results = config.deadline(), []
    missing: dict[str, str] = {}
    num_runs = 0
    for one in configs_of_seeds(config):
        config.tell(f"seed {one.seed}")
        num_runs += 2 + len(one.times)
        try:
            result, lost = _run(one, deadline)
        except MissingRunsError as error:
            missing |= {f"seed {one.seed}, {name}": text for name, text in error.missing.items()}
            continue
        write_switch_time_report(result, lost)
        if lost is None:
            results.append(result)
        else:
            missing |= {f"seed {one.seed}, {name}": text for name, text in lost.missing.items()}
    fault = MissingRunsError(missing, num_runs) if missing else None
    # A spread takes two seeds of which nothing is missing.
    if len(results) > 1:
        label, baseline = _label(results[0]), _baseline(results[0])
        page = write_seeds_report(results, config.run_dir, label, baseline, fault)
        print("\n" + show_seeds(results) + "\n")
        print(f"Report: {page}")
    if fault is not None:
        raise fault


@checked
def write_switch_time_report(
    result: SwitchTimeResult, missing: MissingRunsError | None = None
) -> Path:
    """Write findings, table and every figure into the run folder.

    Args:
        result: The protocol.
        missing: Which networks it lacks; the page then holds the table of the others alone.

    Returns:
        The path of the page.
    """
    first, baseline = next(iter(result.rows.items()))
    found = environment_note(result.folder.part(first).environment())
    measured = findings(result) if missing is None else []
    sentences = [
        f"{row['measure'][0].upper()}{row['measure'][1:]}: {row['here']}." for row in measured
    ]
    return write_page(
        result.folder.path / "report.html",
        "From the CNN to its embedding, at each switch time",
        {
            "Beside the paper": [row for row in measured if "paper" in row],
            "Each network": switch_time_table(result),
        },
        switch_time_figures(result) if missing is None else {},
        [
            f"Data set {baseline['dataset']}, {baseline['num_train']:,} training and "
            f"{baseline['num_test']:,} test images. Trained on {found}.",
            "Training losses are means over the steps of an epoch; the one before the first step "
            "is measured in one pass. Arrows lead from the start of a training to its end.",
        ],
        findings=sentences if missing is None else [missing.summary],
        settings=result.config,
        folders={name: result.folder.part(name) for name in ("cnn", *result.rows)},
    )


def findings(result: SwitchTimeResult) -> list[dict[str, str]]:
    """What was found; of the paper's own network, data and trainings beside what it reports."""
    label, standard = _label(result), result.rows["fcn"]
    times = result.config.times
    accuracy = {t: result.rows[f"tw-{t}"]["test_accuracy"] for t in times}
    cnn, fcn = result.histories["cnn"]["test_accuracy"][-1], standard["test_accuracy"]
    best = max(accuracy, key=accuracy.__getitem__)
    ratio = _ratio(result)
    largest = max(result.rows[f"tw-{t}"][ratio] for t in times)
    found = [
        (f"CNN, {counted(result.config.epochs, 'epoch')}", _percent(cnn), "about 72 %"),
        (
            f"{_baseline(result)}, {counted(result.config.embedded_epochs, 'epoch')}",
            _percent(fcn),
            "FCN: 55 to 57.5 %",
        ),
    ]
    if 0 in accuracy:
        holds = "holds" if fcn < accuracy[0] < cnn else "does not hold"
        found += [
            (f"{label} of switch time 0", _percent(accuracy[0]), "eFCN: 62.5 %"),
            (f"{_baseline(result)} < {label}(0) < CNN", holds, "holds"),
        ]
    found += [
        (
            f"best {label}",
            f"{_percent(accuracy[best])} of switch time {best}, "
            f"{'above' if accuracy[best] > cnn else 'not above'} the CNN",
            "near 20, above the CNN",
        ),
    ]
    if ratio == "off_local":
        found += [
            (f"largest δ of a trained {label}", _percent(largest), "8 %"),
            (f"δ of the {_baseline(result)}", _percent(standard["off_local"]), "97 %"),
        ]
    else:
        found += [(f"largest broken sharing of a trained {label}", _percent(largest), "no figure")]
    is_papers = all(getattr(result.config, key) == value for key, value in _PAPERS_RUN.items())
    is_papers &= all(standard[key] == value for key, value in _PAPERS_DATA.items())
    # Rows of the first versions do not say where the images came from.
    is_papers &= standard.get("source", "").startswith(_PAPERS_SOURCE)
    return [{"measure": m, "here": h} | ({"paper": p} if is_papers else {}) for m, h, p in found]


def switch_time_table(result: SwitchTimeResult) -> list[dict[str, str]]:
    """One row per network."""
    history = result.histories["cnn"]
    cnn = {
        "test_accuracy": history["test_accuracy"][-1],
        "best_test_accuracy": max(history["test_accuracy"]),
        "loss_start": history["loss"][0],
        "loss_end": history["loss"][-1],
    }
    titles = {name: f"{_label(result)}, t_w = {name[3:]}" for name in result.rows}
    titles |= {"cnn": "CNN", "fcn": _baseline(result)}
    return [
        {"network": titles[name]}
        | {
            heading: " → ".join(format(factor * row[key], style) for key in keys if key in row)
            for heading, keys, factor, style in _COLUMNS
        }
        for name, row in [("cnn", cnn), *result.rows.items()]
    ]


def switch_time_figures(result: SwitchTimeResult) -> Figures:
    """File name → caption and figure."""
    label = _label(result)
    times = result.config.times
    rows = {t: result.rows[f"tw-{t}"] for t in times}
    fcn = result.rows["fcn"]
    figures: Figures = {
        "curves": (
            "Training loss and test accuracy over time. On the right the embedded networks' "
            f"curves begin at their switch times, and the dashed line is the {_baseline(result)}'s "
            "best accuracy. Figures 2 and 9.",
            plots.switch_time_curves(
                result.histories["cnn"],
                result.histories["fcn"],
                {t: result.histories[f"tw-{t}"] for t in times},
                label=label,
                baseline=_baseline(result),
            ),
        ),
        "switch-time": (
            "Final and best accuracy, gradient norm and top Hessian eigenvalue of the training "
            f"loss on {result.config.curvature_samples} images. Figure 3.",
            plots.against_switch_time(
                rows,
                {
                    "CNN": result.histories["cnn"]["test_accuracy"][-1],
                    _baseline(result): fcn["test_accuracy"],
                },
                label=label,
            ),
        ),
        "deviation": (
            "Deviation from the convolutions. Only the embedded kernels count: no biases, no head, "
            "no rows of padding. Numbers are switch times. Figures 4 and 10.",
            plots.deviation_panels(
                rows,
                fcn,
                column=_ratio(result),
                baseline_label=_baseline(result),
            ),
        ),
        "masked": (
            "Test accuracy with part of the weights set to zero; biases and head stay. Figures 7 "
            "and 11.",
            plots.masked_accuracy(
                {
                    t: {k: row[k] for k in ("full", "local")}
                    | {"off_local": row["off_local_accuracy"]}
                    for t, row in rows.items()
                }
            ),
        ),
    }
    chosen = _three(times)
    images = {name: result.images(name) for name in ("fcn", *(f"tw-{t}" for t in chosen))}
    figures["filters"] = (
        "A first-layer filter in ln |w| before and after training. Figures 5, 6 and 11.",
        plots.log_weight_images(
            [
                [found["start"], found["end"], found["end"] - found["start"]]
                for found in images.values()
            ],
            [_title(name, result) for name in images],
            ["before", "after", "difference"],
        ),
    )
    figures["weights"] = (
        "A slice of the first layer's weights in ln |w|, before and after training. Figure 8.",
        plots.log_weight_images(
            [[found["slice_start"], found["slice_end"]] for found in list(images.values())[1:]],
            [_title(name, result) for name in list(images)[1:]],
            ["before", "after"],
        ),
    )
    for t in chosen:
        stored = rows[t]["paths"]
        if stored:
            figures[f"interpolation-{t}"] = (
                f"Between the CNN after its last epoch and the {label} of switch time {t}. "
                f"{_at_rest(stored)}Figure 12.",
                plots.interpolation_panels(as_interpolations(stored), title=f"t_w = {t}"),
            )
    return figures


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _at_rest(paths: Mapping[str, Any]) -> str:
    """A sentence about how far the string came, where one was relaxed."""
    residuals = paths.get("string", {}).get("residuals")
    if not residuals:
        return ""
    return (
        f"After {counted(len(residuals) - 1, 'epoch')} the forces on the string are "
        f"{100 * residuals[-1] / max(residuals[0], 1e-300):.1f} % of those on the straight line. "
    )


def _label(result: SwitchTimeResult) -> str:
    return {"dense": "eFCN", "local": "LCN", "wide": "wide CNN"}[result.config.target]


def _ratio(result: SwitchTimeResult) -> str:
    """What training can add: off-local weights, or broken sharing where there are none."""
    return "broken_sharing" if result.config.target == "local" else "off_local"


def _baseline(result: SwitchTimeResult) -> str:
    """The network of the embedding's shape that starts from default initialisation."""
    return "FCN" if result.config.target == "dense" else f"standard {_label(result)}"


def _title(name: str, result: SwitchTimeResult) -> str:
    return _baseline(result) if name == "fcn" else f"t_w = {name.removeprefix('tw-')}"


def _three(times: tuple[int, ...]) -> list[int]:
    """First, middle and last switch time."""
    return sorted({times[0], times[len(times) // 2], times[-1]})
