"""HTML pages that hold all they show: tables, figures, and how they were measured."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from tfconvbias.arguments import checked
from tfconvbias.lazy import plots
from tfconvbias.training.command_line import typed_command
from tfconvbias.training.config import Config
from tfconvbias.training.errors import RunFolderError
from tfconvbias.training.files import replacing, write_text
from tfconvbias.training.page_settings import shown_settings
from tfconvbias.training.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # arguments are checked without matplotlib

Tables = Mapping[str, Sequence[Mapping[str, str]]]
"""Heading → rows of a table, each from column to text."""
Figures = dict[str, tuple[str, Figure]]
"""Name → caption and figure."""

_BACKENDS = ("tensorflow", "jax", "torch")
_LONGEST_STEM = 80
_MOST_ROWS_FIRST = 20


@checked
def write_page(
    path: str | Path,
    title: str,
    tables: Tables,
    figures: Figures,
    notes: Sequence[str],
    formats: Sequence[str] = ("svg",),
    *,
    findings: Sequence[str],
    settings: Config | Mapping[str, RunFolder],
    command: str | None = None,
    folders: Mapping[str, RunFolder] | None = None,
) -> Path:
    """Write a page, and its figures into `figures/` beside it.

    Every page has the same order: what was found, the command and the settings, tables, figures,
    how it was measured, links to the run folders.

    The page holds its text, style, script and pictures, and loads nothing from elsewhere: a
    content-security policy forbids it, and every text in it is escaped. With the extra `pages`
    installed, figures of curves and points can be explored; the library for that is put into
    `scripts/` beside the page and read when it is first asked for.

    Args:
        path: HTML file to write.
        title: heading of the page.
        tables: heading → rows of equal columns; an empty heading shows none. Tables without rows
            are left out.
        figures: name → caption and figure.
        notes: sentences on how the numbers were measured.
        formats: formats of the figures' files beside PNG, such as `pdf` for a paper.
        findings: what was found, one sentence or more; they come first.
        settings: what decided the results: the configuration of a study, or name → finished run.
        command: what a user types to get these results again; by default the recipe that is
            running, with its options.
        folders: name → folder of a run that the page shows; by default the runs of `settings`.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there are no findings, or no settings.
    """
    if not findings:
        raise ValueError("`findings` must say in a sentence what was found. Received: none")
    path = Path(path)
    if folders is None:
        folders = {} if isinstance(settings, Config) else settings
    drawn = [
        _drawn(path.parent, stem, name, *figures[name], formats)
        for name, stem in _stems(figures).items()
    ]
    shown = [(heading, rows) for heading, rows in tables.items() if rows]
    library = None
    if any(figure["panels"] for figure in drawn):
        library = f"scripts/{_library(path.parent / 'scripts')}"
    # The package's own files, and the only texts that are not escaped.
    style, script = (Markup(_part(name)) for name in ("page.css", "page.js"))  # nosec B704
    text = _template().render(
        policy=_policy(style, script, library is not None),
        style=style,
        script=script,
        library=library,
        title=title,
        findings=findings,
        tables=[found for found in shown if not _is_long(found)],
        long_tables=[found for found in shown if _is_long(found)],
        settings=shown_settings(settings),
        command=command or typed_command(),
        figures=drawn,
        notes=notes,
        folders=[
            (name, _address(os.path.relpath(folder.path, path.parent)))
            for name, folder in folders.items()
        ],
    )
    # Names of files may hold bytes that are no text.
    write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return path


@checked
def run_notes(folders: Mapping[str, RunFolder]) -> list[str]:
    """Where finished runs were trained: one sentence for each hardware, versions and commit.

    Raises:
        RunFolderError: If a run is not finished.
    """
    places: dict[str, list[str]] = {}
    for name, folder in folders.items():
        row, found = folder.result(), folder.environment()
        if row is None:
            raise RunFolderError(f"{folder.path} holds no finished run.")
        seconds = f"{name} ({row['seconds']:,.0f} s)"
        places.setdefault(environment_note(found), []).append(seconds)
    return [f"Trained on {place}: {', '.join(names)}." for place, names in places.items()]


@checked
def environment_note(environment: Mapping[str, Any]) -> str:
    """Hardware, backend, versions and commit, as a run folder keeps them, in a sentence."""
    commit, backend = environment["commit"], environment["backend"]
    versions = ", ".join(
        f"{package} {version}"
        for package, version in environment["versions"].items()
        if package == backend or package not in _BACKENDS
    )
    return f"{environment['hardware']}, backend {backend}, {versions}" + (
        "" if commit is None else f", commit {commit}"
    )


def _drawn(
    folder: Path, stem: str, name: str, caption: str, figure: Figure, formats: Sequence[str]
) -> dict[str, Any]:
    """What the template shows of a figure, whose files are written."""
    plots.show_names_as_they_are(figure)
    png = _png(figure)
    with replacing(folder / "figures" / f"{stem}.png") as unfinished:
        unfinished.write_bytes(png)
    for suffix in formats:
        with replacing(folder / "figures" / f"{stem}.{suffix}") as unfinished:
            figure.savefig(unfinished, format=suffix)
    shown = {
        "name": name,
        "caption": caption,
        "is_wide": figure.get_figwidth() > 2 * figure.get_figheight(),
        "png": base64.b64encode(png).decode(),
        "files": [(s.upper(), _address(f"figures/{stem}.{s}")) for s in ("png", *formats)],
        "panels": plots.interactive(figure) if plots.has_bokeh() else None,
    }
    # Last, since it changes the figure.
    narrow = _png(figure) if plots.stack_panels(figure) else None
    return {**shown, "narrow": narrow and base64.b64encode(narrow).decode()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _is_long(table: tuple[str, Sequence[Mapping[str, str]]]) -> bool:
    """Whether a table would push the figures out of sight."""
    return len(table[1]) > _MOST_ROWS_FIRST


def _stems(figures: Figures) -> dict[str, str]:
    """Name of each figure → name of its files, without a suffix; no two are the same."""
    stems: dict[str, str] = {}
    for name in figures:
        stem = "".join(c if c.isalnum() else "-" for c in name.lower())[:_LONGEST_STEM]
        while stem in stems.values():
            stem = f"{stem}-{len(stems)}"
        stems[name] = stem
    return stems


def _library(folder: Path) -> str:
    """The name of the script that explores figures, which is put into `folder` once."""
    source = plots.bokeh_script()
    content = source.read_bytes()
    name = f"bokeh-{hashlib.sha256(content).hexdigest()[:8]}.min.js"
    if not (folder / name).exists():
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)
    return name


def _policy(style: str, script: str, is_interactive: bool) -> str:
    """What a browser may do with the page: run its own script, and show its own pictures.

    Only the page's script may load another one, the library beside the page, and the library sets
    styles of its own.
    """
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"script-src {_hash(script)}" + (" 'strict-dynamic'" if is_interactive else ""),
            "style-src " + ("'unsafe-inline'" if is_interactive else _hash(style)),
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _address(path: str) -> str:
    """A relative path as a link."""
    return urllib.parse.quote(os.fsencode(path))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Bokeh's references follow what they refer to: the order of keys must stay.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.from_string(_part("page.html"))


@cache
def _part(name: str) -> str:
    file = resources.files("tfconvbias.training") / "page_template" / name
    return file.read_text(encoding="utf-8").strip()
