"""The pages of the documentation: their code runs as printed, and what they name exists."""

import importlib.util
import re
from pathlib import Path

import pytest
from markdown_examples import python_blocks, run_blocks, write_weights_of_keras_2
from test_architecture import FLOORS

import tfconvbias as tcb

DOCS = Path(__file__).parent.parent / "docs"
# Not those that the build writes.
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.parent.name not in ("reference", "repository"))
EXECUTED = [page for page in PAGES if python_blocks(page)]
# A name in a page: the package, spelled out or as `tcb`, a folder of it, and a public name.
NAMED = re.compile(r"\b(?:tcb|tfconvbias)\.([a-z]+)\.([A-Za-z_]\w*)")
FOLDER_NAMED = re.compile(r"`(analysis|callbacks|embedding|layers|surgery)\.(\w+)")


def names(page):
    return page.relative_to(DOCS).with_suffix("").as_posix()


def from_docs(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.tensorflow
@pytest.mark.parametrize("page", EXECUTED, ids=names)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kernel = write_weights_of_keras_2("old.h5")
    found = run_blocks(page)
    if page.stem == "keras2":
        loaded = found["locally_connected"].layers[0].get_weights()[0]
        assert loaded[9, 8, 2, 1, 0, 7] == kernel[11, 9, 0, 9, 8, 7]
    elif page.stem == "embed":
        assert max(found["gaps"]) < 1e-5
        assert found["moved"].off_local > 0
    elif page.stem == "own_arrays":
        assert found["sizes"]["conv"] < found["sizes"]["local"] < found["sizes"]["dense"]
    elif page.stem == "prune_and_export":
        assert found["slim"].count_params() < found["network"].count_params()


def test_every_tutorial_is_executed():
    assert {page for page in PAGES if page.parent.name == "tutorials"} - set(EXECUTED) == {
        DOCS / "tutorials" / "index.md"
    }


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for folder, name in {*NAMED.findall(text), *FOLDER_NAMED.findall(text)}:
        assert hasattr(getattr(tcb, folder), name), f"{page.name}: tcb.{folder}.{name}"
    for recipe in re.findall(r"tcb run (\w+)", text):
        assert (DOCS.parent / "recipes" / f"{recipe}.py").is_file(), recipe


def test_the_floors_are_those_that_are_checked():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    shown = {folder: int(floor) for floor, folder in re.findall(r"^\| (\d) \| `(\w+)`", text, re.M)}
    assert shown == {name: floor for name, floor in FLOORS.items() if 0 <= floor <= 8}


def test_links_of_a_built_site_are_checked(tmp_path):
    (tmp_path / "good.html").write_text('<h1 id="top"></h1><a href="good.html#top">top</a>')
    check = from_docs("check_links")
    assert check.problems(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<a href="gone.html">a</a><a href="good.html#gone">b</a>'
        '<script src="https://cdn.example/x.js"></script><a href="https://example.org">ok</a>'
    )
    assert check.problems(tmp_path) == [
        "bad.html: gone.html leads nowhere",
        "bad.html: good.html#gone names no anchor of its page",
        "bad.html: loads https://cdn.example/x.js from another place",
    ]
