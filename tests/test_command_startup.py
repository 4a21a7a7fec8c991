"""What is imported before options are read, and when Keras learns of our classes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("[!_]*.py"))
HEAVY = ("tensorflow", "jax", "torch", "keras", "keras_tuner", "matplotlib")


def python(code, *argv):
    """Run code in a fresh process."""
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


SHOW_HELP = f"""
import contextlib, io, runpy, sys
heavy = {HEAVY}
failed = []
for recipe in sys.argv[1:]:
    sys.argv = [recipe, "--help"]
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        runpy.run_path(recipe, run_name="__main__")
    loaded = sorted(set(heavy) & set(sys.modules))
    if loaded or "usage:" not in shown.getvalue():
        sys.exit(f"{{recipe}}: {{loaded}} {{shown.getvalue()[:200]}}")
"""


def test_help_imports_no_backend():
    """All recipes in one process: none of them may have imported Keras by its end."""
    assert RECIPES
    done = python(SHOW_HELP, *RECIPES)
    assert done.returncode == 0, done.stderr


REGISTERED = """
import keras
for name in ("LocallyConnected2D", "BetaLasso", "Normalize", "KernelSize", "L1"):
    assert (keras.saving.get_registered_object(f"tfconvbias>{name}") is not None) == (name != "L1")
"""


@pytest.mark.parametrize(
    "first",
    [
        "import tfconvbias",
        "import keras, tfconvbias",
        "from tfconvbias.layers.locally_connected_1d import LocallyConnected1D",
        "from tfconvbias import memory; memory.available_bytes()",
        "import tfconvbias.training.recorder",
    ],
)
def test_classes_are_registered_in_any_order_of_imports(first):
    done = python(first + REGISTERED)
    assert done.returncode == 0, done.stderr
