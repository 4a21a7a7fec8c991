"""The house's own rules, read off the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tfconvbias"
RECIPES = sorted((PACKAGE.parent / "recipes").glob("*.py"))
FLOORS = {
    "arguments": -2,
    "registration": -2,
    "compiled": -1,
    "memory": -1,
    "optional": -1,
    "terminal": -1,
    "text_table": -1,
    "lazy": -1,
    "connectivity": 0,
    "data": 0,
    "optimizers": 0,
    "graph": 1,
    "layers": 2,
    "regularizers": 3,
    "analysis": 3,
    "models": 4,
    "embedding": 4,
    "surgery": 4,
    "callbacks": 4,
    "plots": 4,
    "training": 5,
    "tuning": 6,
    "studies": 7,
    "commands": 8,
    "__main__": 9,
}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("tensorflow_datasets", "keras_tuner", "matplotlib", "pandas", "PIL", "sklearn")


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            # A name of `tfconvbias.lazy` stands for the module of that name.
            source = "tfconvbias" if node.module == "tfconvbias.lazy" else node.module
            yield from (f"{source}.{alias.name}" for alias in node.names)


def folder(path):
    """The folder that a module is in, or the module itself where it stands beside the folders."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if part == "__init__" else part


def test_every_folder_has_a_floor():
    found = {folder(path) for path in MODULES} - {None}
    assert found <= FLOORS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    own = folder(path)
    if own in (None, "lazy"):  # `lazy` only names the folders
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "tfconvbias" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        target = parts[1]
        assert target == own or FLOORS[target] < FLOORS[own], f"{own} imports {target}"


@pytest.mark.parametrize("path", [*MODULES, *RECIPES], ids=lambda p: p.name)
def test_public_keras_only(path):
    for name in imports(path):
        assert not name.startswith(("keras.src", "tensorflow.python", "tf_keras")), name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    if folder(path) in ("plots", "training", "tuning", "studies"):
        return
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] not in HEAVY, name


def test_connectivity_needs_numpy_only():
    for path in (PACKAGE / "connectivity").glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"keras", "tensorflow", "jax", "torch"}, path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipes_are_thin(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 85
    assert ast.get_docstring(ast.parse(text)), "a recipe's header gives paper, command and target"
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"keras", "tensorflow", "argparse", "matplotlib"}, tops


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path}: module docstring"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        overload = any(getattr(d, "id", None) == "overload" for d in node.decorator_list)
        if not overload:
            assert ast.get_docstring(node), f"{path}: {node.name}"


def test_import_leaves_heavy_packages_alone():
    """In a fresh process: the package imports, and none of the heavy packages came with it."""
    code = (
        "import sys, keras; before = set(sys.modules); import tfconvbias; "
        "print(' '.join(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & set(HEAVY), loaded & set(HEAVY)


RIDDLES = ("See above", "See there", "can't be had", "a panel a ")


def texts(path):
    """The docstrings and other strings of a source file, each with the line where it begins."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


@pytest.mark.parametrize("path", [*MODULES, *RECIPES], ids=lambda p: p.name)
def test_texts_are_plain_sentences(path):
    """Phrases that sent the reader elsewhere or made him guess do not come back."""
    found = [
        f"{path.name}:{line}: {riddle!r}"
        for line, text in texts(path)
        for riddle in RIDDLES
        if riddle.lower() in text.lower()
    ]
    assert not found, found


def test_modules_have_no_leading_underscore():
    """What is public is said by the `__all__` of each folder, not by the names of files."""
    named_by_python = {"__init__.py", "__main__.py"}
    private = [p.name for p in MODULES if p.name.startswith("_") and p.name not in named_by_python]
    assert not private, private
