"""The report of a sweep over structured sparsity: tables, findings, the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfconvbias.arguments import checked
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.studies.structured_sparsity.figures import network_title, sparsity_figures
from tfconvbias.studies.structured_sparsity.result import SparsityResult
from tfconvbias.studies.structured_sparsity.sweep import run_sparsity
from tfconvbias.training import environment_note, format_table, write_page


@checked
def report_sparsity(config: SparsityConfig) -> None:
    """Run a sweep, print its table and findings and write its report.

    Args:
        config: What to run, and where to keep it.

    Raises:
        CompactionError: If a compact network computes something else than the thresholded one.
        ConfigError: If the data set is too small, or the augmentation is unknown.
        RunFolderError: If the folder holds another sweep, or this one without `resume`.
        RunPausedError: If the time was over before the last training.
        TrainingDivergedError: If a loss became NaN or infinite.
        data.DatasetUnavailableError: If a named data set is not available.
    """
    result = run_sparsity(config)
    page = write_sparsity_report(result)
    print("\n" + format_table(sparsity_table(result)) + "\n")
    print("\n".join(sparsity_findings(result)))
    print(f"Report: {page}")


@checked
def write_sparsity_report(result: SparsityResult) -> Path:
    """Write findings, tables and every figure into the run folder.

    Returns:
        The path of the page.
    """
    kind = "residual" if result.config.residual else "plain"
    return write_page(
        result.folder.path / "report.html",
        f"Structured sparsity: {result.config.base}, {kind}",
        {"Networks": sparsity_table(result), "Layers": layer_table(result)},
        sparsity_figures(result),
        [
            trained_on(result),
            "Times are those of the inference of one batch, as ratios to the base's in the same "
            "process: medians over turns in which both are timed. Test accuracies are those after "
            "the last epoch.",
        ],
        findings=sparsity_findings(result),
        settings=result.config,
        folders={"all networks": result.folder},
    )


def trained_on(result: SparsityResult) -> str:
    """The images of a sweep, and where it ran, in sentences."""
    row, found = result.base, result.folder.part("base").environment()
    return (
        f"Data set {row['dataset']}, {row['num_train']:,} training and {row['num_test']:,} test "
        f"images. Trained on {environment_note(found)}."
    )


def sparsity_table(result: SparsityResult) -> list[dict[str, str]]:
    """One row per network: accuracies, size and time."""
    table = []
    for row in result.rows:
        found = row["kind"] == "found"
        table.append(
            {
                "network": network_title(row),
                "with penalty, %": _percent(row["test_accuracy_penalized"]) if found else "",
                "thresholded, %": _percent(row["test_accuracy_thresholded"]) if found else "",
                "test, %": _percent(row["test_accuracy"]),
                "parameters": f"{row['parameters']:,}",
                "multiply-adds": f"{row['multiply_adds']:,}",
                "of the base": f"{100 * row['multiply_adds_ratio']:.1f} %",
                "theoretical": f"{row['theoretical_multiply_adds']:,}" if found else "",
                "time": f"{row['latency_ratio']:.2f}",
                "layers gone": str(len(row["vanished"])) if found else "",
                "correlation": _number(row["kernel_correlation"]) if found else "",
            }
        )
    return table


def layer_table(result: SparsityResult) -> list[dict[str, str]]:
    """One row per layer: in each network, the kernels that are kept and their size."""
    table = []
    for index, layer in enumerate(result.base["architecture"]):
        row = {"layer": layer["name"], "base": _kernels(layer, "kernels", "kernel_size")}
        for found in result.of_kind("found"):
            own = found["architecture"][index]
            row[network_title(found)] = _kernels(own, "kept_kernels", "kept_kernel_size")
        table.append(row)
    return table


def sparsity_findings(result: SparsityResult) -> list[str]:
    """What the sweep found, in sentences that follow from its rows alone."""
    base, found = result.base, result.of_kind("found")
    if not found:
        return ["The smallest α has removed every kernel: no network was found."]
    near = [row for row in found if row["test_accuracy"] >= base["test_accuracy"] - 0.01]
    sentences = []
    if near:
        best = min(near, key=lambda row: row["multiply_adds_ratio"])
        sentences.append(
            f"Within one point of the base ({_percent(base['test_accuracy'])} %), the smallest "
            f"network has {100 * best['multiply_adds_ratio']:.1f} % of its multiply-adds and "
            f"{100 * best['latency_ratio']:.0f} % of its inference time: {network_title(best)} "
            f"with {_percent(best['test_accuracy'])} %."
        )
    else:
        sentences.append(
            f"No network found is within one point of the base ({_percent(base['test_accuracy'])} "
            "%)."
        )
    sentences += _beaten(result)
    gone = {network_title(row): row["vanished"] for row in found if row["vanished"]}
    for name, layers in gone.items():
        layer = "the layer" if len(layers) == 1 else f"{len(layers)} layers:"
        sentences.append(f"{name} has lost {layer} {', '.join(layers)}.")
    for row in found:
        if row["messages"]:
            sentences.append(f"{network_title(row)}: {' '.join(row['messages'])}")
    identities = sum(row["identity_kernels"] for row in found)
    sentences.append(
        f"Kernels that hand one channel on unchanged (eq. 24), in all networks found: {identities}."
    )
    return sentences


def _beaten(result: SparsityResult) -> list[str]:
    """Which networks found a baseline beats: as accurate at least, for no more multiply-adds."""
    baselines = [*result.of_kind("uniform"), *result.of_kind("random")]
    beaten: dict[str, list[str]] = {}
    for row in result.of_kind("found"):
        for other in baselines:
            is_as_good = other["test_accuracy"] >= row["test_accuracy"]
            if is_as_good and other["multiply_adds"] <= row["multiply_adds"]:
                beaten.setdefault(network_title(other), []).append(network_title(row))
    if not baselines:
        return [
            "No baseline was trained, so that nothing is shown to be better than a narrower base."
        ]
    return [
        f"{name} is at least as accurate as {', '.join(rows)}, with no more multiply-adds: there "
        "the method has found nothing that a narrower network would not give."
        for name, rows in beaten.items()
    ]


def _kernels(layer: Mapping[str, Any], count: str, size: str) -> str:
    if not layer[count]:
        return "–"
    suffix = "" if layer["kind"] == "Dense" else f" of {layer[size]}×{layer[size]}"
    return f"{layer[count]}{suffix}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
