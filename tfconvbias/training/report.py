"""A self-contained HTML page from run folders alone."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from tfconvbias import analysis, plots
from tfconvbias.training.run_folder import RunFolder
from tfconvbias.training.table import table_rows

_MOST_LAYERS = 4
_MIN_NONZEROS = 20

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 80em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .3em .8em; border-bottom: 1px solid #ccc; }
td { text-align: right; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } figcaption, .note { color: #555; } figure { margin: 1.5em 0; }
"""


def write_report(
    folders: Mapping[str, RunFolder], path: str | Path, title: str, first_layer: str | None = None
) -> Path:
    """Set the results of finished runs side by side: table, curves, non-zeros, filters.

    Args:
        folders: label → finished run.
        path: HTML file to write; the figures go beside it, into `figures/`, as PNG.
        title: heading of the page.
        first_layer: layer whose filters are drawn; by default each model's first kernel.

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
    figures: dict[str, tuple[str, Figure]] = {
        "accuracy": ("Training and validation over epochs.", plots.accuracy_curves(histories)),
        "nonzeros": (
            f"Weights that are not exactly zero, by layer{_first(layers)}.",
            plots.nonzero_curves(histories, sizes, layers[:_MOST_LAYERS]),
        ),
    }
    for name, folder in folders.items():
        drawn = first_layer_images(keras.saving.load_model(folder.last_model), first_layer)
        if drawn is not None:
            images, least = drawn
            figures[f"filters {name}"] = (
                f"{name}: input weights of first-layer units, drawn at random among those with "
                f"at least {least} non-zero weights. Each is scaled by its own largest weight; "
                "zero is grey.",
                plots.filter_images(images, title=name),
            )
    path = Path(path)
    path.write_text(
        _page(title, table_rows(results), _notes(folders, results), figures), encoding="utf-8"
    )
    _save_figures(path.parent / "figures", figures)
    return path


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
    least = min(_MIN_NONZEROS, max(1, int(counts[min(num, len(counts)) - 1])))
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


def _notes(folders: Mapping[str, RunFolder], results: Mapping[str, Mapping]) -> list[str]:
    notes = []
    for name, row in results.items():
        found = folders[name].environment()
        versions = ", ".join(f"{package} {v}" for package, v in found["versions"].items())
        notes.append(
            f"{name}: data set {row['dataset']}, {row['num_train']} training images, "
            f"{row['epochs']} epochs, seed {row['seed']}, {row['seconds']} s on "
            f"{row['hardware']}, backend {found['backend']}, {versions}, "
            f"commit {found['commit']}. Folder: {folders[name].path}"
        )
    return notes


def _page(
    title: str,
    rows: Sequence[Mapping[str, str]],
    notes: Sequence[str],
    figures: Mapping[str, tuple[str, Figure]],
) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    pictures = "".join(
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(_png(figure)).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, (caption, figure) in figures.items()
    )
    origin = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<table><tr>{heads}</tr>{body}</table>{pictures}"
        f'<h2>How it was measured</h2><ul class="note">{origin}</ul></html>\n'
    )


def _save_figures(folder: Path, figures: Mapping[str, tuple[str, Figure]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, figure) in figures.items():
        stem = "".join(c if c.isalnum() else "-" for c in name.lower())
        (folder / f"{stem}.png").write_bytes(_png(figure))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
