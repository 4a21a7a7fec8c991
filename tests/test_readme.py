"""The README's examples run as they stand, and the commands that it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.tensorflow
def test_examples_run_one_after_the_other(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    for block in blocks:
        # The first one trains, for seconds instead of a minute.
        quick = block.replace("epochs = 12", "epochs = 1").replace(
            'load("motifs10")', 'load("motifs10").limit(256)'
        )
        exec(compile(quick, "README.md", "exec"), names)
    assert "beta_lasso" in names["model"].optimizer.name
    found = names["tcb"].embedding.deviation(names["local"])
    assert found.off_local == 0
    assert names["small"].count_params() < names["pruned"].count_params()
    assert "multiply-adds" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_first_example_learns_few_weights_that_generalize():
    block = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    images, model = names["images"], names["model"]
    _, accuracy = model.evaluate(images.x_test, images.y_test, verbose=0)
    assert accuracy > 0.98
    assert sum(names["tcb"].analysis.num_nonzeros(model).values()) < 10_000


def test_every_recipe_it_names_is_there():
    named = re.findall(r"recipes/(\w+\.py)", TEXT)
    assert named
    for name in named:
        assert (ROOT / "recipes" / name).is_file(), name


def test_every_recipe_is_in_the_recipes_map():
    listed = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for recipe in (ROOT / "recipes").glob("*.py"):
        assert recipe.name in listed, recipe.name
