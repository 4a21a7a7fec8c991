import csv
import dataclasses
import runpy
import shlex
import sys
from pathlib import Path

import keras_tuner
import numpy as np
import pytest

from tfconvbias import data, models
from tfconvbias.studies.structured_sparsity import (
    SparsityConfig,
    SparsitySearchConfig,
    StructuredSparsityHyperModel,
    search_space,
    search_sparsity,
)
from tfconvbias.studies.structured_sparsity.search import sparsity_command, sparsity_search_table
from tfconvbias.training import (
    ConfigError,
    Deadline,
    RunFolder,
    RunFolderError,
    RunPausedError,
    command_line,
)
from tfconvbias.tuning import SearchError

RECIPE = Path(__file__).parents[3] / "recipes" / "tune_sparsity.py"
# The base is replaced by three convolutions.
SWEEP = SparsityConfig(
    augment="none",
    alphas=(8.0, 14.0),
    fold_normalization=False,
    epochs=1,
    sparse_epochs=1,
    fine_tune_epochs=1,
    weight_decay=0.0,
    batch_size=20,
    verbose="silent",
)
TINY = SparsitySearchConfig(SWEEP, multiply_add_price=10.0)


@pytest.fixture(scope="module", autouse=True)
def _tiny_base():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.BASES, "cifar20", ((8, 3), (8, 3), (8, 3)))
        patch.setitem(models.BASE_STRIDES, "cifar20", (2, 1, 1))
        yield


@pytest.fixture(scope="module")
def dataset():
    return data.make_motifs(10, num_train=60, num_validation=20, num_test=20)


def test_grid_search_prefers_what_costs_less(tmp_path, dataset):
    config = TINY.replace(run_dir=str(tmp_path / "search"))
    rows = search_sparsity(config, dataset)
    assert [row["alpha"] for row in rows] == [14.0, 8.0]  # at this price sparsity wins
    sparse, dense = rows
    assert sparse["multiply_adds_ratio"] < dense["multiply_adds_ratio"] == 1.0
    for row in rows:
        price = config.multiply_add_price * row["multiply_adds_ratio"]
        assert row["score"] == pytest.approx(row["val_accuracy"] - price)
    with (tmp_path / "search" / "results.csv").open() as stream:
        assert [float(row["alpha"]) for row in csv.DictReader(stream)] == [14.0, 8.0]
    assert len(sparsity_search_table(rows)) == 2

    words = shlex.split(sparsity_command(config.replace(max_minutes=60.0, resume=True), rows[0]))
    assert words[:2] == ["python", "recipes/structured_sparsity.py"]
    again = command_line.parse(SparsityConfig(), argv=words[2:])
    assert again == SWEEP.replace(alphas=(14.0,), taus=(0.0,), verbose="auto")

    with pytest.raises(RunFolderError, match="--resume"):
        search_sparsity(config, dataset)
    with pytest.raises(RunFolderError, match=r"alphas: \[8.0, 14.0\] there"):
        search_sparsity(config.replace(alphas=(8.0,), resume=True), dataset)
    assert search_sparsity(config.replace(resume=True), dataset) == rows


def test_a_search_that_pauses_is_continued(tmp_path, dataset):
    """Three trials, of which the second one is not finished when the time is over."""
    config = TINY.replace(run_dir=str(tmp_path / "search"), alphas=(1.0, 2.0, 3.0))
    folder = tmp_path / "search" / "trainings"

    class UntilTheSecondTrial(Deadline):
        def is_over(self, seconds=0.0):
            return (folder / "alpha-2").exists()

    with pytest.raises(RunPausedError, match=r"alpha-2/tau-0.*--resume"):
        search_sparsity(config, dataset, UntilTheSecondTrial(5.0))
    trained = {file: file.stat().st_mtime_ns for file in folder.rglob("history.csv")}
    assert {file.parent.name for file in trained} == {"base", "alpha-1", "tau-0", "alpha-2"}
    rows = search_sparsity(config.replace(resume=True), dataset)
    assert sorted(row["alpha"] for row in rows) == [1.0, 2.0, 3.0]
    assert {file: file.stat().st_mtime_ns for file in trained} == trained


@pytest.mark.parametrize("algorithm", ["grid", "bayesian", "random"])
def test_a_search_that_was_killed_is_continued(tmp_path, dataset, monkeypatch, algorithm):
    config = TINY.replace(
        run_dir=str(tmp_path / "search"), algorithm=algorithm, alphas=(1.0, 2.0, 3.0), max_trials=3
    )

    def stop_at(number):
        """In the place of the trainings, which another test runs."""
        places = []

        def train(sweep, dataset, folder, *_, **__):
            places.append(folder.path)
            if len(places) == number:
                raise KeyboardInterrupt
            return {"val_accuracy": [0.5]}

        return train

    # The base, two trainings of the first trial, and in the second one it ends.
    monkeypatch.setattr(search_space, "train", stop_at(4))
    with pytest.raises(KeyboardInterrupt):
        search_sparsity(config, dataset)
    monkeypatch.setattr(search_space, "train", stop_at(None))
    rows = search_sparsity(config.replace(resume=True), dataset)
    assert len({row["alpha"] for row in rows}) == 3
    if algorithm == "grid":
        assert sorted(row["alpha"] for row in rows) == [1.0, 2.0, 3.0]
    assert all(row["score"] is not None for row in rows)


def test_a_search_of_which_nothing_is_left_is_an_error(tmp_path, dataset):
    config = TINY.replace(alphas=(1e6,), run_dir=str(tmp_path / "search"))
    with pytest.raises(SearchError, match="removes every kernel"):
        search_sparsity(config, dataset)


def test_trials_are_judged_on_validation_images_alone(tmp_path, dataset):
    """What a trial measures is the accuracy of its model on those, and test images are absent."""
    dataset = dataclasses.replace(dataset, x_test=dataset.x_test[:0], y_test=dataset.y_test[:0])
    space = StructuredSparsityHyperModel(TINY, dataset, RunFolder(tmp_path))
    space.train_base()
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    assert hp.values == {"alpha": 8.0, "tau": 0.0}
    found = space.fit(hp, space.build(hp))
    history = RunFolder(tmp_path / "alpha-8" / "tau-0").history()
    assert found["val_accuracy"] == history["val_accuracy"][-1]
    assert not any(name.startswith("test_") for name in history)
    outputs = space.base.predict(dataset.x_validation, verbose=0)
    accuracy = np.mean(outputs.argmax(axis=-1) == dataset.y_validation)
    base = RunFolder(tmp_path / "base").history()
    assert base["val_accuracy"][-1] == pytest.approx(accuracy, abs=1e-6)


def test_other_algorithms_look_between_the_values(tmp_path, dataset):
    config = TINY.replace(algorithm="random", taus=(0.0, 0.1))
    space = StructuredSparsityHyperModel(config, dataset, RunFolder(tmp_path))
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    alpha, tau = hp.space
    assert (alpha.min_value, alpha.max_value, alpha.sampling) == (8.0, 14.0, "log")
    assert (tau.min_value, tau.max_value, tau.sampling) == (0.0, 0.1, "linear")


def test_bad_values_are_refused(tmp_path, dataset):
    for changes, message in (
        ({"max_trials": 0}, "max_trials"),
        ({"multiply_add_price": -1.0}, "multiply_add_price"),
        ({"algorithm": "bayesian", "alphas": (0.0, 1.0)}, "must be positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            TINY.replace(**changes)
    without = data.make_motifs(10, num_train=60, num_validation=0, num_test=20)
    with pytest.raises(ConfigError, match="needs validation images"):
        StructuredSparsityHyperModel(TINY, without, RunFolder(tmp_path))


@pytest.mark.tensorflow
def test_recipe(tmp_path, capsys, monkeypatch):
    options = "--num-train 60 --epochs 1 --sparse-epochs 1 --fine-tune-epochs 1"
    words = f"--demo {options} --alphas 0.1 --batch-size 20 --verbose silent".split()
    words += ["--run-dir", str(tmp_path / "search")]
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
    runpy.run_path(str(RECIPE), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    (command,) = (shlex.split(line) for line in shown if "python recipes/" in line)
    assert command[1] == "recipes/structured_sparsity.py"
    assert command_line.parse(SparsityConfig(), argv=command[2:]).alphas == (0.1,)
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *words, "--alphas", "0.2", "--resume"])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(RECIPE), run_name="__main__")
    assert "holds a search with another configuration (alphas" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [str(RECIPE), "--random-widths", "1"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(RECIPE), run_name="__main__")
