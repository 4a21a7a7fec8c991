"""The README's examples run as they stand, and the commands that it names exist."""

import re
from pathlib import Path

import pytest
from markdown_examples import python_blocks, run_blocks

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


@pytest.mark.tensorflow
def test_examples_run_one_after_the_other(capsys):
    assert len(python_blocks(README)) >= 3
    names = run_blocks(README)
    assert "beta_lasso" in names["model"].optimizer.name
    found = names["tcb"].embedding.deviation(names["local"])
    assert found.off_local == 0
    assert names["slim"].count_params() < names["network"].count_params()
    assert "multiply-adds" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_learned_connections_are_few_and_generalize():
    names = {}
    learns = next(block for block in python_blocks(README) if "BetaLasso" in block)
    exec(compile(learns, "README.md", "exec"), names)
    images, model = names["images"], names["model"]
    _, accuracy = model.evaluate(images.x_test, images.y_test, verbose=0)
    assert accuracy > 0.98
    assert sum(names["tcb"].analysis.num_nonzeros(model).values()) < 10_000


def test_every_recipe_it_names_is_there():
    named = re.findall(r"tcb run (\w+)", README.read_text(encoding="utf-8"))
    assert named
    for name in named:
        assert name == "NAME" or (ROOT / "recipes" / f"{name}.py").is_file(), name


def test_every_file_that_it_links_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_every_recipe_is_in_the_recipes_map():
    listed = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for recipe in (ROOT / "recipes").glob("*.py"):
        assert recipe.name in listed, recipe.name
