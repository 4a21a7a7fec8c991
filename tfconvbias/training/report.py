"""Runs as a recipe shows them: a printed table, and a page made from run folders alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, keras, plots
from tfconvbias.training.command_line import arguments_of, program_name
from tfconvbias.training.comparison import compare
from tfconvbias.training.engine import ManyRuns
from tfconvbias.training.errors import TrainingDivergedError
from tfconvbias.training.page import Figures, run_notes, write_page
from tfconvbias.training.plan import print_plan
from tfconvbias.training.run_config import RunConfig
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.runner import run
from tfconvbias.training.slug import slug
from tfconvbias.training.table import conclusion, label, short_table, table_rows

_MOST_LAYERS = 4
MIN_NONZEROS = 20
"""Units with fewer weights are neither drawn nor measured, as in the paper, if enough have more."""
_MOST_UNITS = 500
_WINDOW = 9
_LOCALITY = "Locality of layer 1, against the same weights on permuted pixels"
_LOCALITY_COLUMNS = (
    *("units", "spread, pixels", "permuted", "z"),
    *("share in the best k×k, %", "permuted share, %", "z of the share"),
)


@checked
def report_run(config: RunConfig) -> None:
    """Train one configuration, print its row and write its report."""
    if config.plan is not None:
        print_plan({config.default_run_name(): config})
        return
    result = run(config)
    if not result.is_chief:
        return
    name = label(result.row)
    print(in_short({name: result.row}))
    path = result.folder.path / "report.html"
    command = train_command(config.replace(resume=False))
    page = write_report({name: result.folder}, path, name, command=command)
    print(f"Report: {page}")


def train_command(config: RunConfig) -> str:
    """The command that trains a configuration, with every field that is not the default."""
    return f"{program_name('train')} {arguments_of(config, RunConfig())}".strip()


def command_of(folder: RunFolder) -> str:
    """The command that trains what a run folder holds, on the data set of the stored name."""
    stored, row = folder.config(), folder.result() or {}
    known = {field.name for field in dataclasses.fields(RunConfig)} & stored.keys()
    fields = {name: stored[name] for name in known}
    fields["augment"] = fields["augment"].split(" ")[0]  # a policy's file has its digest beside it
    name = row["dataset"].removesuffix(f"-permuted{fields['permute_pixels']}")
    return train_command(RunConfig(dataset=name, **fields))


@dataclass(frozen=True)
class Comparison(ManyRuns):
    """Several runs that share all but a few fields.

    Args:
        run: What all rows share; its `run_dir` is the folder in which each row has its own.
        rows: Label → the fields in which a row differs.
        title: Heading of the report; it names the folder where `run_dir` is `None`.
    """

    run: RunConfig = RunConfig()
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    title: str = "Comparison"

    @property
    def fixed(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields that all rows set; a field that some rows set is an option for the others."""
        named = [set(changes) for changes in self.rows.values()]
        return tuple(sorted(set.intersection(*named))) if named else ()

    @property
    def folder(self) -> Path:
        """Where the rows' run folders and the report stand."""
        return Path(self.run.run_dir or f"runs/{slug(self.title)}")


def in_short(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """What a terminal shows at the end: the columns that decide, and the conclusion."""
    return "\n".join(["", short_table(rows), "", *conclusion(rows)])


@checked
def report_comparison(config: Comparison) -> None:
    """Train every row, print the table and write one report.

    Raises:
        MissingRunsError: If processes of some rows were lost; the others are reported first.
        TrainingDivergedError: If the loss of a row diverged; the others are reported first.
    """
    configs = {name: config.run.replace(**fields) for name, fields in config.rows.items()}
    if config.run.plan is not None:
        print_plan(configs)
        return
    finished, diverged, missing = compare(configs, config.folder, many=config)
    if finished:
        rows = {name: result.row for name, result in finished.items()}
        print(in_short(rows))
        folders = {name: result.folder for name, result in finished.items()}
        path = config.folder / "report.html"
        remarks = [] if missing is None else [missing.summary]
        page = write_report(folders, path, config.title, remarks=remarks)
        print(f"Report: {page}")
    if missing is not None:
        raise missing
    if diverged:
        raise TrainingDivergedError(f"Diverged: {', '.join(diverged)}.")


@checked
def write_report(
    folders: Mapping[str, RunFolder],
    path: str | Path,
    title: str,
    first_layer: str | None = None,
    command: str | None = None,
    remarks: Sequence[str] = (),
) -> Path:
    """Set the results of finished runs side by side: tables, curves, non-zeros, filters.

    Args:
        folders: label → finished run.
        path: HTML file to write; the figures go beside it, into `figures/`.
        title: heading of the page.
        first_layer: layer whose filters are drawn and whose locality is measured; by default each
            model's first kernel.
        command: what a user types to get these results again; by default the recipe that is
            running, with its options.
        remarks: sentences that stand before the findings, such as which runs are missing.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there is no run, or one is not finished.
    """
    results = {name: row for name, f in folders.items() if (row := f.result()) is not None}
    if not folders or len(results) < len(folders):
        raise ValueError(
            f"Expected finished runs. Received: {[str(f.path) for f in folders.values()]}"
        )
    histories = {name: folder.history() for name, folder in folders.items()}
    sizes = {name: row["kernel_parameters"] for name, row in results.items()}
    layers = list(dict.fromkeys(layer for size in sizes.values() for layer in size))
    figures: Figures = {
        "accuracy": ("Training and validation over epochs.", plots.accuracy_curves(histories)),
        "nonzeros": (
            f"Weights that are not exactly zero, by layer{_first(layers)}.",
            plots.nonzero_curves(histories, sizes, layers[:_MOST_LAYERS]),
        ),
    }
    localities = []
    for name, folder in folders.items():
        model = folder.load_model(folder.last_model, compile=False)
        drawn = first_layer_images(model, first_layer)
        if drawn is not None:
            images, least = drawn
            window = min(_WINDOW, *images.shape[1:3])
            square = f" The square is the {window}×{window} window with most of the weight."
            if window == min(images.shape[1:3]):
                square = ""  # it would be the whole image
            localities.append({"model": name, **locality_cells(model, first_layer, least)})
            figures[f"filters {name}"] = (
                f"{name}: input weights of first-layer units, drawn at random among those with "
                f"at least {least} non-zero weights. Each is scaled by its own largest weight; "
                f"zero is grey.{square}",
                plots.filter_images(images, title=name, window=window),
            )
    tables = {"": table_rows(results)}
    if localities:
        tables[_LOCALITY] = localities
    return write_page(
        path,
        title,
        tables,
        figures,
        run_notes(folders),
        findings=[*remarks, *conclusion(results)],
        settings=folders,
        command=command,
    )


@checked
def locality_cells(
    model: keras.Model, layer_name: str | None = None, min_nonzeros: int = MIN_NONZEROS
) -> dict[str, str]:
    """How local a layer's units are, beside the same weights on permuted pixels, as table cells.

    Args:
        model: a model of images.
        layer_name: the layer; by default the one with the first kernel.
        min_nonzeros: units with fewer non-zero weights are left out; at least 2, since one weight
            alone is always local.
    """
    least = max(2, min_nonzeros)
    found = analysis.layer_locality(
        model,
        layer_name,
        window=min(_WINDOW, *model.input_shape[1:3]),
        min_nonzeros=least,
        max_units=_MOST_UNITS,
    )
    if not found.num_units:
        return dict.fromkeys(_LOCALITY_COLUMNS, "–") | {"units": f"0 with ≥ {least} weights"}
    values = (
        f"{found.num_units:,} with ≥ {least} weights",
        f"{found.spread:.2f}",
        f"{found.permuted_spread:.2f}",
        f"{found.spread_z:.0f}",
        f"{100 * found.window_share:.1f} (k = {found.window})",
        f"{100 * found.permuted_window_share:.1f}",
        f"{found.window_share_z:.0f}",
    )
    return dict(zip(_LOCALITY_COLUMNS, values, strict=True))


@checked
def first_layer_images(
    model: keras.Model, layer_name: str | None = None, num: int = 24
) -> tuple[np.ndarray, int] | None:
    """The filters of a model's first kernel as images, or `None` where it has no such layout.

    Units are drawn at random among those with at least 20 non-zero weights, as in the paper. Where
    fewer than `num` units have as many, the bound is lowered until `num` units meet it.

    Args:
        model: a model of images.
        layer_name: the layer; by default the one with the first kernel.
        num: how many units.

    Returns:
        Images `(filters, rows, cols, channels)`, see `analysis.input_weight_images`, and the bound.
    """
    name = layer_name or next(iter(analysis.kernels(model)))
    layer = model.get_layer(name)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    input_shape = tuple(model.input_shape[1:])
    if input_shape[-1] not in (1, 3):
        return None
    counts = np.sort(analysis.nonzeros_per_unit(kernel))[::-1]
    least = min(MIN_NONZEROS, max(1, int(counts[min(num, len(counts)) - 1])))
    units = analysis.random_units(kernel, num, min_nonzeros=least)
    images = analysis.input_weight_images(
        kernel,
        units,
        input_shape,
        strides=getattr(layer, "strides", 1),
        padding=getattr(layer, "padding", "same"),
    )
    return images, least


def _first(layers: Sequence[str]) -> str:
    hidden = len(layers) - _MOST_LAYERS
    return f" (the first {_MOST_LAYERS}, {hidden} more are in history.csv)" if hidden > 0 else ""
