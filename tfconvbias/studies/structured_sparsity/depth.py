"""Depth: which layers a residual network and a plain one lose on the same path of α."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tfconvbias.training.report_page import write_page
from tfconvbias.training.sparsity_config import SparsityConfig
from tfconvbias.training.sparsity_report import (
    sparsity_findings,
    width_figure,
    write_sparsity_report,
)
from tfconvbias.training.sparsity_sweep import SparsityResult, run_sparsity

from tfconvbias.training.table import format_table


def report_sparsity_depth(config: SparsityConfig) -> None:
    """Sweep a residual and a plain network, print what each has lost and write the reports.

    Args:
        config: what to run, and where to keep it; `residual` is set here, and there are no
            baselines.

    Raises:
        As `run_sparsity`.
    """
    folder = Path(config.run_dir)
    results = {
        name: run_sparsity(
            dataclasses.replace(
                config,
                residual=name == "residual",
                uniform_widths=(),
                random_widths=0,
                run_dir=str(folder / name),
            )
        )
        for name in ("residual", "plain")
    }
    table = depth_table(results)
    notes, figures = [], {}
    for name, result in results.items():
        write_sparsity_report(result)
        notes += [f"{name}: {sentence}" for sentence in sparsity_findings(result)]
        if result.of_kind("found"):
            caption, figure = width_figure(result)
            figures[name] = (f"{name.capitalize()} network. {caption}", figure)
    tables = {"": table} if table else {}
    page = write_page(
        folder / "report.html", "Structured sparsity and depth", tables, figures, notes
    )
    if table:
        print("\n" + format_table(table) + "\n")
    print("\n".join(notes))
    print(f"Report: {page}")


def depth_table(results: Mapping[str, SparsityResult]) -> list[dict[str, str]]:
    """One row for each network and α: what is left of its convolutions.

    Args:
        results: name of the network → its sweep.
    """
    table = []
    for name, result in results.items():
        for row in result.of_kind("found"):
            layers = [layer for layer in row["architecture"] if layer["kind"] != "Dense"]
            left = [layer for layer in layers if layer["name"] not in row["vanished"]]
            table.append(
                {
                    "network": name,
                    "α": f"{row['alpha']:g}",
                    "τ": f"{row['tau']:g}",
                    "convolutions": str(len(layers)),
                    "left": str(len(left)),
                    "of one kernel": str(sum(layer["kept_kernels"] == 1 for layer in left)),
                    "kept by a warning": str(len(row["messages"])),
                    "identity kernels": str(row["identity_kernels"]),
                    "thresholded, %": f"{100 * row['test_accuracy_thresholded']:.2f}",
                    "fine-tuned, %": f"{100 * row['test_accuracy']:.2f}",
                    "multiply-adds": f"{row['multiply_adds_ratio']:.1%}",
                }
            )
    return table
