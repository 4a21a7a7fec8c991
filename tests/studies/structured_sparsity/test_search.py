import csv
import dataclasses
import shlex

import keras_tuner
import pytest
from tfconvbias.tuning.sparsity_search import (
    StructuredSparsityHyperModel,
    sparsity_command,
    sparsity_search_table,
)

from tfconvbias import data, models
from tfconvbias.training import ConfigError, RunFolderError, SparsityConfig, command_line
from tfconvbias.tuning import SearchError, SparsitySearchConfig, search_sparsity

TINY = SparsitySearchConfig(
    base="tiny",
    augment="none",
    alphas=(8.0, 14.0),
    folded=False,
    epochs=1,
    sparse_epochs=1,
    fine_tune_epochs=1,
    weight_decay=0.0,
    batch_size=20,
    multiply_add_price=10.0,
    verbose="silent",
)


@pytest.fixture(scope="module", autouse=True)
def _tiny_base():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.BASES, "tiny", ((8, 3), (8, 3), (8, 3)))
        patch.setitem(models.BASE_STRIDES, "tiny", (2, 1, 1))
        yield


@pytest.fixture(scope="module")
def dataset():
    return data.make_motifs(10, num_train=60, num_validation=20, num_test=20)


def test_grid_search_prefers_what_costs_less(tmp_path, dataset, capsys):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path / "search"))
    rows = search_sparsity(config, dataset)
    assert [row["alpha"] for row in rows] == [14.0, 8.0]  # at this price sparsity wins
    sparse, dense = rows
    assert sparse["multiply_adds_ratio"] < dense["multiply_adds_ratio"] == 1.0
    for row in rows:
        price = config.multiply_add_price * row["multiply_adds_ratio"]
        assert row["score"] == pytest.approx(row["val_accuracy"] - price)
    with (tmp_path / "search" / "results.csv").open() as stream:
        assert [float(row["alpha"]) for row in csv.DictReader(stream)] == [14.0, 8.0]
    assert sparsity_search_table(rows).count("\n") == 3

    words = shlex.split(sparsity_command(config, rows[0]))
    assert words[:2] == ["python", "recipes/structured_sparsity.py"]
    parsed = dataclasses.asdict(TINY.sweep(14.0, 0.0))
    options = [w for w in words[2:] if w not in ("--base", "tiny")]
    again = command_line.parse(dataclasses.replace(SparsityConfig(), base="tiny"), argv=options)
    assert dataclasses.asdict(again) == parsed

    with pytest.raises(RunFolderError, match="--resume"):
        search_sparsity(config, dataset)
    with pytest.raises(RunFolderError, match=r"alphas: \[8.0, 14.0\] there"):
        search_sparsity(dataclasses.replace(config, alphas=(8.0,), resume=True), dataset)
    assert search_sparsity(dataclasses.replace(config, resume=True), dataset) == rows


def test_a_search_of_which_nothing_is_left_is_an_error(tmp_path, dataset):
    config = dataclasses.replace(TINY, alphas=(1e6,), run_dir=str(tmp_path / "search"))
    with pytest.raises(SearchError, match="removes every kernel"):
        search_sparsity(config, dataset)


def test_test_images_are_never_looked_at(tmp_path, dataset):
    space = StructuredSparsityHyperModel(TINY, dataset, tmp_path)
    assert (space.dataset.x_test == dataset.x_validation).all()
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    assert hp.values == {"alpha": 8.0, "tau": 0.0}


def test_other_algorithms_look_between_the_values(tmp_path, dataset):
    config = dataclasses.replace(TINY, algorithm="random", taus=(0.0, 0.1))
    space = StructuredSparsityHyperModel(config, dataset, tmp_path)
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
            dataclasses.replace(TINY, **changes)
    without = data.make_motifs(10, num_train=60, num_validation=0, num_test=20)
    with pytest.raises(ConfigError, match="needs validation images"):
        StructuredSparsityHyperModel(TINY, without, tmp_path)
