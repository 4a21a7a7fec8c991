"""Writes the pages of the API reference from the docstrings, which are Markdown in Google style.

Griffe reads the sources without importing them, so that the build needs no TensorFlow. Each package
gets a page with one Sphinx directive for each name of its `__all__`; MyST reads the directives, so
that formulas, tables and code of the docstrings are what they are in any other Markdown page.
"""

import ast
import inspect
import logging
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import griffe

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = HERE.parent / "reference"
INDEX = """# API reference

One page for each package. All of it is written from the docstrings; each name is reached as
`tfconvbias.<package>.<name>`, usually after `import tfconvbias as tcb`.

| package | what it holds |
|---|---|
{rows}

```{{toctree}}
:hidden:

{pages}
```
"""
# What a class has from Keras and documents no further.
_UNTOLD = {"build", "call", "get_config", "from_config", "compute_output_shape"}
# A signature is left out where it would be a list of fields, which follows as a list.
_FIELD = "option("
_LONGEST_VALUE = 200


def load() -> griffe.Module:
    """The package as Griffe reads it."""
    # It wants a type for each parameter, which the house gives only where it says something.
    logging.getLogger("griffe").setLevel(logging.ERROR)
    return griffe.load(
        "tfconvbias",
        search_paths=[ROOT],
        allow_inspection=False,
        docstring_parser="google",
        docstring_options={"warnings": False},
    )


def exported(package: griffe.Module) -> list[str]:
    """The names in a package's `__all__`, sorted without regard to case."""
    return sorted((str(name) for name in package.exports or []), key=str.lower)


def find(package: griffe.Module, name: str) -> griffe.Object:
    """What a public name stands for, also where the package imports it only when it is used."""
    # Not `package.members`: there a module hides the function of its name, `surgery.prune` say.
    path = package.imports.get(name)
    if path is not None:
        found = package.modules_collection[path]
        return found.final_target if found.is_alias else found
    if name in package.members:
        return package.members[name]
    for module in package.modules.values():
        inner = module.members.get(name)
        if inner is not None and not inner.is_alias:
            return inner
    raise LookupError(f"{package.path} exports {name!r}, which none of its modules defines")


def package_page(package: griffe.Module) -> str:
    """The page of a package."""
    lines = [f"# tfconvbias.{package.name}", "", *_text(_docstring(package)), ""]
    for name in exported(package):
        lines += [f"## {name}", "", *_entry(find(package, name), f"{package.path}.{name}"), ""]
    return "\n".join(lines)


def _docstring(thing: griffe.Object) -> str:
    return inspect.cleandoc(thing.docstring.value) if thing.docstring else ""


def _first_sentence(thing: griffe.Object) -> str:
    paragraph = _docstring(thing).split("\n\n")[0]
    return " ".join(paragraph.split()).split(". ")[0].rstrip(".") + "."


def _entry(thing: griffe.Object, path: str) -> Iterator[str]:
    """The directive of one name."""
    if not thing.docstring:
        raise LookupError(f"{path} has no docstring")
    if isinstance(thing, griffe.Module):
        yield from _text(_docstring(thing))
        for name in exported(thing):
            yield from ("", f"### {name}", "")
            yield from _entry(find(thing, name), f"{path}.{name}")
    elif isinstance(thing, griffe.Class):
        fields = _fields(thing)
        shown = "" if fields else _signature(thing)
        body = [*_sections(thing), *fields]
        for method in _methods(thing):
            body += ["", *_member(method, f"{path}.{method.name}")]
        yield from _directive("class", path + shown, body)
    elif isinstance(thing, griffe.Function):
        for overload in thing.overloads or ():
            yield f"`{overload.name}{_signature(overload)}`\n"
        yield from _directive("function", path + _signature(thing), list(_sections(thing)))
    else:
        body = list(_text(_docstring(thing)))
        if thing.value is not None and len(str(thing.value)) <= _LONGEST_VALUE:
            body = [f":value: {' '.join(str(thing.value).split())}", "", *body]
        yield from _directive("data", path, body)


def _member(member: griffe.Object, path: str) -> Iterator[str]:
    if "property" in member.labels:
        yield from _directive("property", path, list(_sections(member)), depth=4)
    else:
        shown = path + _signature(member)
        yield from _directive("method", shown, list(_sections(member)), depth=4)


def _directive(kind: str, argument: str, body: list[str], depth: int = 6) -> Iterator[str]:
    fence = "`" * depth
    yield f"{fence}{{py:{kind}}} {argument}"
    yield from body
    yield fence


def _methods(thing: griffe.Class) -> Iterator[griffe.Object]:
    for name, member in thing.members.items():
        hidden = name.startswith("_") or name in _UNTOLD or not member.docstring
        is_method = isinstance(member, griffe.Function) or "property" in member.labels
        if is_method and not hidden:
            yield member


def _signature(thing: griffe.Class | griffe.Function) -> str:
    parts, is_keyword_only = [], False
    if isinstance(thing, griffe.Class) and "NamedTuple" in map(str, thing.bases):
        fields = (m for m in thing.members.values() if isinstance(m, griffe.Attribute))
        return f"({', '.join(f'{field.name}: {field.annotation}' for field in fields)})"
    for parameter in thing.parameters:
        if parameter.name in ("self", "cls"):
            continue
        name = parameter.name.lstrip("*")
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(parameter.kind.value, "")
        if stars == "*":
            is_keyword_only = True
        if parameter.kind.value == "keyword-only" and not is_keyword_only:
            parts.append("*")
            is_keyword_only = True
        part = stars + name
        if parameter.annotation is not None:
            part += f": {parameter.annotation}"
        if parameter.default is not None and not stars:
            part += f" = {parameter.default}"
        parts.append(part)
    result = getattr(thing, "returns", None)
    return f"({', '.join(parts)})" + (f" -> {result}" if result is not None else "")


def _fields(thing: griffe.Class) -> list[str]:
    """The fields of a configuration, each with the help text of its command-line option."""
    lines = []
    for parameter in thing.parameters:
        default = str(parameter.default)
        if not default.startswith(_FIELD):
            continue
        call = ast.parse(default, mode="eval").body
        assert isinstance(call, ast.Call)
        value, meaning = call.args[:2]
        lines.append(f"- `{parameter.name}` = `{ast.unparse(value)}` – {_literal(meaning)}")
    return ["", "**Fields**", "", *lines] if lines else []


def _literal(text: ast.expr) -> str:
    """A string of the sources; what an f-string puts in stands as its expression."""
    if isinstance(text, ast.JoinedStr):
        return "".join(map(_literal, text.values))
    if isinstance(text, ast.FormattedValue):
        return f"`{ast.unparse(text.value)}`"
    return str(ast.literal_eval(text))


def _sections(thing: griffe.Object) -> Iterator[str]:
    """A docstring as Markdown: each Google section becomes a list under its title."""
    if not thing.docstring:
        return
    titles = {"parameters": "Arguments", "raises": "Raises", "returns": "Returns"}
    titles |= {"attributes": "Attributes", "yields": "Yields", "warns": "Warns"}
    for section in thing.docstring.parsed:
        kind = section.kind.value
        yield ""
        if kind == "text":
            yield from _text(section.value)
        elif kind == "admonition":
            yield f"**{section.title}**"
            yield ""
            yield from _text(section.value.description)
        elif kind == "examples":
            yield "**Example**"
            for part, text in section.value:
                yield ""
                yield from _fence(text) if part.value == "examples" else _text(text)
        elif kind in ("returns", "yields"):
            # As it is written: Griffe would take the words before a colon for a type.
            yield from (f"**{titles[kind]}**", "", *_text(_indented(thing, titles[kind])))
        else:
            yield f"**{titles[kind]}**"
            for item in section.value:
                yield ""
                yield from _item(kind, item)


def _indented(thing: griffe.Object, title: str) -> str:
    """The lines of a docstring's section, which are indented under its title."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)*)", _docstring(thing) + "\n", re.MULTILINE)
    assert found is not None, f"{thing.path}: {title}"
    return textwrap.dedent(found.group(1)).strip()


def _item(kind: str, item) -> Iterator[str]:
    label = str(item.annotation) if kind in ("raises", "warns") else getattr(item, "name", "")
    lines = list(_text(item.description))
    yield f"- `{label}` – {lines[0] if lines else ''}"
    yield from ("  " + line if line else "" for line in lines[1:])


def _text(text: str) -> Iterator[str]:
    """A docstring's text, with its doctests and indented formulas as blocks of code."""
    lines = text.splitlines()
    is_code = is_doctest = False
    for number, line in enumerate(lines):
        if line.strip().startswith("```"):
            is_code = not is_code
        before = lines[number - 1] if number else ""
        if not is_code and not is_doctest and re.match(r"\s*>>> ", line):
            indent = line[: len(line) - len(line.lstrip())]
            is_doctest = True
            if before.strip():
                yield ""
            yield f"{indent}```pycon"
        elif is_doctest and not line.strip():
            yield f"{indent}```"
            is_doctest = False
        # A section whose lines are not indented, which Griffe leaves in the text.
        yield re.sub(r"^(Example|Examples|Logs|Reference):$", r"**\1**", line)
    if is_doctest:
        yield f"{indent}```"


def _fence(text: str) -> Iterator[str]:
    yield from ("```pycon", *text.splitlines(), "```")


def write(folder: Path = FOLDER) -> None:
    """Write all pages; a page that would not change is left as it is."""
    package = load()
    rows, pages = [], {}
    names = exported(package)
    for name in names:
        module = package.members[name]
        rows.append(f"| [{name}]({name}.md) | {_first_sentence(module)} |")
        pages[f"{name}.md"] = package_page(module)
    pages["index.md"] = INDEX.format(rows="\n".join(rows), pages="\n".join(names))
    folder.mkdir(exist_ok=True)
    for stale in {path.name for path in folder.glob("*.md")} - pages.keys():
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app):
    """Write the pages when the build begins."""
    app.connect("builder-inited", lambda _: write())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
