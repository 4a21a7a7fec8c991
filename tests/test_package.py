"""What the package says of itself agrees, and the wheel and the sdist hold what they need."""

import ast
import re
from pathlib import Path

import pytest

import tfconvbias

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tfconvbias"


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def setup_arguments():
    """The arguments of `setup` that are written as literals."""
    arguments = {}
    for node in ast.walk(ast.parse(read("setup.py"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "setup":
            for keyword in node.keywords:
                try:
                    arguments[keyword.arg] = ast.literal_eval(keyword.value)
                except ValueError:
                    continue
    return arguments


def test_the_version_is_one():
    changes = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE).group(1)
    citation = re.search(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE).group(1)
    versions = {setup_arguments()["version"], tfconvbias.__version__, changes, citation}
    assert len(versions) == 1, versions


def test_the_wheel_holds_the_data_files():
    patterns = setup_arguments()["package_data"]["tfconvbias"]
    held = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    files = {path for path in PACKAGE.rglob("*") if path.is_file()}
    others = {path for path in files if path.suffix != ".py" and "__pycache__" not in path.parts}
    assert others
    assert others <= held, others - held


def test_every_folder_of_the_package_is_imported_as_one():
    """`find_packages` skips a folder that holds modules but no `__init__.py`."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("folder", ["benchmarks", "recipes", "saved_models", "tests"])
def test_the_sdist_holds_what_its_tests_read(folder):
    assert (ROOT / folder).is_dir()
    assert f"graft {folder}\n" in read("MANIFEST.in")


def test_the_licences_are_there():
    arguments = setup_arguments()
    assert arguments["license_expression"] == "Apache-2.0 AND MIT"
    texts = [read(name) for name in arguments["license_files"]]
    assert "Apache License\n                           Version 2.0" in texts[0]
    assert "MIT License" in texts[1]


def test_the_commands_of_the_guide_are_targets():
    guide, makefile = read("CONTRIBUTING.md"), read("Makefile")
    targets = set(re.findall(r"`make ([\w-]+)`", guide))
    assert {"lint", "test", "demo"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
