"""HTML pages that hold all they show: tables, figures, and how they were measured."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfconvbias.training.config import Config
from tfconvbias.training.errors import RunFolderError
from tfconvbias.training.files import replacing, write_text
from tfconvbias.training.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = Mapping[str, Sequence[Mapping[str, str]]]
Figures = dict[str, tuple[str, "Figure"]]
"""Name → caption and figure."""

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 80em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .3em .8em; border-bottom: 1px solid #ccc; }
td { text-align: right; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } figcaption, .note { color: #555; } figure { margin: 1.5em 0; }
"""


def write_page(
    path: str | Path,
    title: str,
    tables: Tables,
    figures: Figures,
    notes: Sequence[str],
    formats: Sequence[str] = (),
) -> Path:
    """Write a page, and its figures as PNG into `figures/` beside it.

    Args:
        path: HTML file to write.
        title: heading of the page.
        tables: heading → rows of equal columns; an empty heading shows none. Tables without rows
            are left out.
        figures: name → caption and figure.
        notes: sentences on how the numbers were measured.
        formats: further formats of the figures' files, such as `pdf` and `svg` for a paper.

    Returns:
        The path of the page.
    """
    path = Path(path)
    drawn = {name: (caption, _png(figure)) for name, (caption, figure) in figures.items()}
    for name, (_, png) in drawn.items():
        stem = "".join(c if c.isalnum() else "-" for c in name.lower())
        with replacing(path.parent / "figures" / f"{stem}.png") as unfinished:
            unfinished.write_bytes(png)
        for suffix in formats:
            with replacing(path.parent / "figures" / f"{stem}.{suffix}") as unfinished:
                figures[name][1].savefig(unfinished, format=suffix)
    write_text(path, _page(title, tables, drawn, notes))
    return path


def run_notes(folders: Mapping[str, RunFolder]) -> list[str]:
    """Data set, epochs, seed, hardware, versions and commit of finished runs, a sentence each.

    Raises:
        RunFolderError: If a run is not finished.
    """
    notes = []
    for name, folder in folders.items():
        row, found = folder.result(), folder.environment()
        if row is None:
            raise RunFolderError(f"{folder.path} holds no finished run.")
        notes.append(
            f"{name}: data set {row['dataset']}, {row['num_train']} training images, "
            f"{row['epochs']} epochs, seed {row['seed']}, {row['seconds']} s on "
            f"{environment_note(found)}. Folder: {folder.path}"
        )
    return notes


def environment_note(environment: Mapping[str, Any]) -> str:
    """Hardware, backend, versions and commit, as a run folder keeps them, in a sentence."""
    versions = ", ".join(f"{package} {v}" for package, v in environment["versions"].items())
    return (
        f"{environment['hardware']}, backend {environment['backend']}, {versions}, "
        f"commit {environment['commit']}"
    )


def config_note(config: Config) -> str:
    """The fields that decide the result, in a sentence."""
    return ", ".join(f"{name} = {value}" for name, value in config.identity().items())


def _page(
    title: str,
    tables: Tables,
    figures: Mapping[str, tuple[str, bytes]],
    notes: Sequence[str],
) -> str:
    shown = "".join(
        (f"<h2>{html.escape(heading)}</h2>" if heading else "") + _table(rows)
        for heading, rows in tables.items()
        if rows
    )
    pictures = "".join(
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, (caption, png) in figures.items()
    )
    origin = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{shown}{pictures}"
        f'<h2>How it was measured</h2><ul class="note">{origin}</ul></html>\n'
    )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{heads}</tr>{body}</table>"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
