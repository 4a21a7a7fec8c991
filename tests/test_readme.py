"""The README's examples run as they stand, and the commands that it names exist."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def write_weights_of_keras_2(path):
    """The file `old.h5` of the README's section on Keras 2; returns the first layer's kernel."""
    kernel = np.random.default_rng(0).normal(size=(12, 12, 3, 10, 10, 8)).astype("float32")
    local = {"local/kernel:0": kernel, "local/bias:0": np.zeros((10, 10, 8))}
    dense = {"dense/kernel:0": np.zeros((800, 10)), "dense/bias:0": np.zeros(10)}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["local", "flatten", "dense"]
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        for name, weights in {"local": local, "flatten": {}, "dense": dense}.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = list(weights)
            for weight, value in weights.items():
                group[weight] = value
    return kernel


@pytest.mark.tensorflow
def test_examples_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kernel = write_weights_of_keras_2("old.h5")
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
    loaded = names["locally_connected"].layers[0].get_weights()[0]
    assert loaded[9, 8, 2, 1, 0, 7] == kernel[11, 9, 0, 9, 8, 7]
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
