"""Names that try to break out of a page, and what a page must be whatever names it shows."""

import base64
import hashlib
import html.parser
import re

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \"' $x^$ $$y$$ \\(z\\) {{ 7 * 7 }} "
    "\udcff\n&amp; </style></title>" + "w" * 200
)

PRINTABLE = HOSTILE.replace("\udcff", "")
"""The same without what a terminal cannot show."""

_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "ul", "li", "div"),
    *("table", "thead", "tbody", "tr", "th", "td", "pre", "code", "details", "summary", "figure"),
    *("img", "figcaption", "span", "a", "script", "picture", "source", "dl", "dt", "dd"),
}


class _Parts(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.scripts, self.policy, self.links = [], "", [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert tag in _TAGS, tag
        assert not [name for name in found if name.startswith("on")]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag == "a":
            self.links.append(found["href"])
        if tag == "img":
            assert found["src"].startswith("data:image/png;base64,")
        if tag == "source":
            assert found["srcset"].startswith("data:image/png;base64,")
        if tag not in ("img", "meta", "source"):
            self.open.append(tag)
        if tag == "script":
            assert "src" not in found
            self.scripts.append((found.get("type"), ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        elif self.open and self.open[-1] != "style":
            self.text += data


def check_harmless(page, *, shows=HOSTILE):
    """Check that a page holds its own script alone, loads nothing, and shows a name as it is.

    Args:
        page: The file.
        shows: A text that must be legible in it.
    """
    parts = _Parts(page.read_text(encoding="utf-8"))
    assert parts.open == []
    rules = dict(rule.split(" ", 1) for rule in parts.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    run = [text for kind, text in parts.scripts if kind != "application/json"]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert re.findall("sha256-([^']+)", rules["script-src"]) == hashes
    assert len(run) == 1
    for link in parts.links:
        assert re.fullmatch(r"[\w./%~-]+", link), link
    wanted = shows.encode("utf-8", "backslashreplace").decode()
    assert " ".join(wanted.split()) in " ".join(parts.text.split())
