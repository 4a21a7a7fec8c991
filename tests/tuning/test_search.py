import csv
import dataclasses
import shlex

import numpy as np
import pytest

from tfconvbias import training
from tfconvbias.training import RunConfig, RunFolderError, RunPausedError, command_line
from tfconvbias.training.execution import stop_request
from tfconvbias.tuning import SearchConfig, SearchError, SGDHyperModel, search


def shown(results):
    return [(row["trial"], row["momentum"], row["weight_decay"]) for row in results.rows]


def test_grid_search_finds_the_best_of_all_combinations(dataset, tiny, tmp_path):
    config = SearchConfig().replace(**tiny)
    results = search(config, dataset)
    assert sorted(shown(results)) == [
        ("0000", 0.0, 0.0),
        ("0001", 0.0, 1e-3),
        ("0002", 0.9, 0.0),
        ("0003", 0.9, 1e-3),
    ]
    scores = [row["score"] for row in results.rows]
    assert scores == sorted(scores, reverse=True)
    best = results.rows[0]
    assert best["score"] == best["val_accuracy"]
    assert (results.best.momentum, results.best.weight_decay) == (
        best["momentum"],
        best["weight_decay"],
    )
    with (tmp_path / "search" / "results.csv").open() as stream:
        assert [row["trial"] for row in csv.DictReader(stream)] == [t for t, *_ in shown(results)]
    assert results.table().count("\n") == 5
    assert best["trial"] in results.table().splitlines()[2]

    # The command is what a recipe parses into the best configuration.
    words = shlex.split(results.command("train.py"))
    assert words[0] == "train.py"
    assert command_line.parse(RunConfig(), argv=words[1:]) == results.best

    # A trial is the run: the same epochs, the same numbers.
    with_test = dataclasses.replace(
        dataset, x_test=dataset.x_validation, y_test=dataset.y_validation
    )
    run = training.run(
        dataclasses.replace(
            results.best, run_dir=str(tmp_path / "run"), tensorboard=False, verbose="silent"
        ),
        with_test,
    )
    assert max(run.history["val_accuracy"]) == pytest.approx(best["val_accuracy"])
    epoch = int(best["best_epoch"]) - 1
    assert run.history["val_loss"][epoch] == pytest.approx(best["val_loss"], rel=1e-4)


def test_resumes_after_a_kill(dataset, tiny, monkeypatch):
    config = SearchConfig().replace(**{**tiny, "epochs": 1})
    fit = SGDHyperModel.fit
    ran = []

    def killed_in_the_third(self, hp, *args, **kwargs):
        ran.append((hp.get("momentum"), hp.get("weight_decay")))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return fit(self, hp, *args, **kwargs)

    monkeypatch.setattr(SGDHyperModel, "fit", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        search(config, dataset)
    with pytest.raises(
        RunFolderError, match=r"already holds this search\. Continue it with --resume"
    ):
        search(config, dataset)
    results = search(config.replace(resume=True), dataset)
    combinations = [(0.0, 0.0), (0.0, 1e-3), (0.9, 0.0), (0.9, 1e-3)]
    # Only the trial that was under way ran twice.
    assert ran == [*combinations[:3], *combinations[2:]]
    assert sorted(row[1:] for row in shown(results)) == combinations

    again = search(config.replace(resume=True), dataset)
    assert len(ran) == 5
    assert again.rows == results.rows


@pytest.mark.parametrize("algorithm", ["bayesian", "hyperband"])
def test_a_killed_first_trial_is_resumed_too(algorithm, dataset, tiny, monkeypatch):
    changes = {"algorithm": algorithm, "momenta": (0.9,), "epochs": 1}
    config = SearchConfig().replace(**{**tiny, **changes})
    fit = SGDHyperModel.fit
    monkeypatch.setattr(
        SGDHyperModel, "fit", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        search(config, dataset)
    monkeypatch.setattr(SGDHyperModel, "fit", fit)
    results = search(config.replace(resume=True), dataset)
    assert {row["weight_decay"] for row in results.rows} <= {0.0, 1e-3}
    assert all(row["status"] == "COMPLETED" for row in results.rows)
    assert "0" in {row["trial"].lstrip("0") or "0" for row in results.rows}


def test_hyperband_goes_on_where_a_trial_stopped(dataset, tiny, tmp_path):
    changes = {
        "algorithm": "hyperband",
        "epochs": 3,
        "momenta": (0.0, 0.9),
        "weight_decays": (0.0, 1e-4, 1e-3),
    }
    results = search(SearchConfig().replace(**{**tiny, **changes}), dataset)
    assert {row["epochs"] for row in results.rows} == {1.0, 3.0}
    longer = [row for row in results.rows if row["epochs"] == 3]
    with_test = dataclasses.replace(
        dataset, x_test=dataset.x_validation, y_test=dataset.y_validation
    )
    shorter = {(row["momentum"], row["weight_decay"]) for row in results.rows if row["epochs"] == 1}
    continued = next(row for row in longer if (row["momentum"], row["weight_decay"]) in shorter)
    config = results.best.replace(
        momentum=continued["momentum"],
        weight_decay=continued["weight_decay"],
        run_dir=str(tmp_path / "run"),
        tensorboard=False,
        verbose="silent",
    )
    run = training.run(config, with_test)
    assert continued["best_epoch"] >= 2
    np.testing.assert_allclose(
        run.history["val_loss"][int(continued["best_epoch"]) - 1],
        continued["val_loss"],
        rtol=1e-4,
    )


def test_two_objectives_trade_accuracy_for_zeros(dataset, tiny):
    changes = {
        "optimizer": "beta_lasso",
        "objective": "accuracy_and_nonzeros",
        "nonzero_price": 2.0,
        "l1_values": (1e-6,),
        "l1_conv_values": (1e-6, 5e-2),
        "beta": 5.0,
    }
    results = search(SearchConfig().replace(**{**tiny, **changes}), dataset)
    for row in results.rows:
        expected = 2.0 * row["nonzero_share"] - row["val_accuracy"]
        assert row["score"] == pytest.approx(expected, rel=1e-6)
    # At this price the sparse model wins whatever its accuracy.
    assert results.rows[0]["l1_conv"] == 5e-2
    assert results.rows[0]["nonzero_share"] < 0.7 < 0.9 < results.rows[1]["nonzero_share"]
    assert results.pareto_front()[-1] == results.rows[0]
    assert "*" in results.table()


def test_diverged_trials_fail_and_are_told(dataset, tiny):
    changes = {"learning_rates": (0.1, 1e30), "momenta": (0.9,), "weight_decays": (1e-3,)}
    results = search(SearchConfig().replace(**{**tiny, **changes}), dataset)
    assert [row["status"] for row in results.rows] == ["COMPLETED", "FAILED"]
    assert "NaN or infinite in epoch" in results.rows[1]["message"]
    assert results.best.learning_rate == 0.1
    assert "failed" in results.table()


def test_a_search_without_success_is_an_error(dataset, tiny, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise ValueError("out of luck")

    monkeypatch.setattr(SGDHyperModel, "fit", broken)
    with pytest.raises(SearchError, match=r"No trial succeeded.*out of luck"):
        search(SearchConfig().replace(**{**tiny, "max_trials": 1}), dataset)


def test_a_folder_of_another_search_is_an_error(dataset, tiny, tmp_path):
    config = SearchConfig().replace(**{**tiny, "epochs": 1, "max_trials": 1})
    search(config, dataset)
    other = config.replace(momenta=(0.5,), seed=3, resume=True)
    with pytest.raises(
        RunFolderError, match=r"another configuration \(momenta: .*0.9.* there, \[0.5\]"
    ):
        search(other, dataset)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="not empty and holds no search"):
        search(config.replace(run_dir=str(tmp_path / "full")), dataset)


def test_a_search_that_is_asked_to_stop_fails_no_trial(dataset, tiny):
    config = SearchConfig().replace(**tiny, checkpoint_every=1)
    stop_request.set()
    try:
        with pytest.raises(RunPausedError, match="Stopped after epoch 1 of 2"):
            search(config, dataset)
    finally:
        stop_request.clear()
    results = search(config.replace(resume=True), dataset)
    assert [row["status"] for row in results.rows] == 4 * ["COMPLETED"]
