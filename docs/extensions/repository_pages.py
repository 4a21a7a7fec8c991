"""Takes Markdown files of the repository into the site, with links that hold there."""

import os
import re
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent
ROOT = DOCS.parent
FOLDER = DOCS / "repository"
FILES = {
    "recipes/README.md": "results.md",
    "saved_models/README.md": "presets.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def page(source: str) -> str:
    """The text of a file of the repository, whose links lead to pages of the site.

    A link to a file that the site does not have becomes plain text.
    """
    folder = (ROOT / source).parent

    def link(match: re.Match) -> str:
        text, target, anchor = match.groups()
        path = Path(os.path.normpath(folder / target))
        inside = path.relative_to(ROOT).as_posix()
        if inside in FILES:
            return f"[{text}]({FILES[inside]}{anchor or ''})"
        if path.suffix == ".md" and path.is_relative_to(DOCS) and inside != "docs/README.md":
            return f"[{text}]({os.path.relpath(path, FOLDER)}{anchor or ''})"
        return text

    return _LINK.sub(link, (ROOT / source).read_text(encoding="utf-8"))


def write() -> None:
    """Write all pages; a page that would not change is left as it is."""
    FOLDER.mkdir(exist_ok=True)
    for source, name in FILES.items():
        text, path = page(source), FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app):
    """Write the pages when the build begins."""
    app.connect("builder-inited", lambda _: write())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
