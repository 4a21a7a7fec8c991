"""Checks a built site: every link within it leads somewhere, and nothing is loaded from elsewhere.

python docs/check_links.py build/docs
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Tags that make a browser load something, and the attribute that says what.
_LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class _Page(HTMLParser):
    """The links, the loaded files and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif values.get(_LOADED.get(tag, "")):
            self.loaded.append(values[_LOADED[tag]])


def problems(site: Path) -> list[str]:
    """What is wrong with a built site, a line for each link."""
    pages = {
        path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    found = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for link in page.loaded:
            if urlsplit(link).netloc:
                found.append(f"{where}: loads {link} from another place")
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                found.append(f"{where}: {link} leads nowhere")
            elif parts.fragment and target in pages:
                anchors = pages[target].anchors
                if not {parts.fragment, unquote(parts.fragment)} & anchors:
                    found.append(f"{where}: {link} names no anchor of its page")
    if not pages:
        found.append(f"{site}: no pages")
    return sorted(set(found))


if __name__ == "__main__":
    lines = problems(Path(sys.argv[1]))
    print("\n".join(lines) or "All links lead somewhere, and nothing is loaded from elsewhere.")
    sys.exit(bool(lines))
