"""Depth: which layers a residual network and a plain one lose on the same path of α."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfconvbias import plots
from tfconvbias.text_table import format_table
from tfconvbias.training import command_line
from tfconvbias.training.entry_points import guarded
from tfconvbias.training.report_page import write_page
from tfconvbias.training.sparsity_config import SparsityConfig
from tfconvbias.training.sparsity_report import sparsity_findings, write_sparsity_report
from tfconvbias.training.sparsity_sweep import SparsityResult, run_sparsity


def sparsity_depth_recipe(
    config: SparsityConfig,
    *,
    description: str | None,
    demo: Mapping[str, Any],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, sweep both networks, print what each has lost and write the report.

    Args:
        config: the recipe's configuration; `residual` is set here, and there are no baselines.
        description: text of `--help`.
        demo: the fields that `--demo` changes.
        argv: arguments; `sys.argv[1:]` by default.
    """
    fixed = ("residual", "uniform_widths", "random_widths", "baseline_epochs")
    chosen = command_line.parse(config, description=description, demo=demo, fixed=fixed, argv=argv)

    def work() -> None:
        results = {
            name: run_sparsity(
                dataclasses.replace(
                    chosen,
                    residual=name == "residual",
                    uniform_widths=(),
                    random_widths=0,
                    run_dir=str(Path(chosen.run_dir) / name),
                )
            )
            for name in ("residual", "plain")
        }
        table = depth_table(results)
        notes = []
        for name, result in results.items():
            write_sparsity_report(result)
            notes += [f"{name}: {sentence}" for sentence in sparsity_findings(result)]
        page = write_page(
            Path(chosen.run_dir) / "report.html",
            "Structured sparsity and depth",
            {"": table},
            {
                name: (
                    f"Live kernels along the depth, {name} network; dashed: the base.",
                    plots.width_snakes(*_widths(result)),
                )
                for name, result in results.items()
                if result.of_kind("found")
            },
            notes,
        )
        print("\n" + format_table(table) + "\n")
        print("\n".join(notes))
        print(f"Report: {page}")

    guarded(work)


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


def _widths(result: SparsityResult) -> tuple[list[int], dict[str, list[int]]]:
    """Kernels of the base's convolutions, and the live ones for each α."""

    def column(row: Mapping[str, Any], field: str) -> list[int]:
        return [layer[field] for layer in row["architecture"] if layer["kind"] != "Dense"]

    found = {
        f"α = {row['alpha']:g}" + (f", τ = {row['tau']:g}" if row["tau"] else ""): column(
            row, "live_kernels"
        )
        for row in result.of_kind("found")
    }
    return column(result.base, "kernels"), found
