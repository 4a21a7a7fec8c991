import dataclasses
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfconvbias import data, training
from tfconvbias.studies import dascoli2019
from tfconvbias.studies.dascoli2019 import way_back
from tfconvbias.studies.dascoli2019.seeds import configs_of_seeds, seeds_table, write_seeds_report
from tfconvbias.training.engine import task

RECIPE = Path(__file__).parents[3] / "recipes" / "efcn_way_back.py"

TINY = dascoli2019.WayBackConfig(
    filters=2,
    kernel_size=5,
    switch_time=1,
    embedded_epochs=2,
    fine_tune_epochs=1,
    l1=(1.0,),
    num_seeds=2,
    batch_size=20,
    learning_rate=0.05,
    verbose="silent",
)


def _dataset():
    full = data.make_motifs(10, num_train=60, num_validation=20, num_test=40)
    crop = {f"x_{s}": full.split(s)[0][:, :12, :12] for s in ("train", "validation", "test")}
    return dataclasses.replace(full, **crop)


def _small_cnn(config=TINY, dataset=None):
    """In the place of VanillaCNN, which takes a backend long to compile."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 128, -1.0),
            keras.layers.Conv2D(config.filters, 3, strides=3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


@pytest.mark.slow
def test_the_square_and_the_way_back(tmp_path, monkeypatch):
    monkeypatch.setattr(way_back, "build_cnn", _small_cnn)
    config, dataset = TINY.replace(run_dir=str(tmp_path / "run")), _dataset()
    result = dascoli2019.run_way_back(config, dataset)
    assert list(result.rows) == [0, 1]
    for rows in result.rows.values():
        assert list(rows) == ["conv", "wide", "local", "dense", "dense-lasso-1"]
        # All corners are the same function at the switch.
        assert len({row["test_accuracy_at_switch"] for row in rows.values()}) == 1
        assert rows["conv"]["parameters"] < rows["wide"]["parameters"]
        assert rows["local"]["parameters"] < rows["dense"]["parameters"]
        # The best epoch of so short a training may be the one before the first step.
        moved = {name: row["epoch"] > 0 for name, row in rows.items()}
        assert (rows["wide"]["off_local"] > 0) == moved["wide"]
        assert (rows["local"]["broken_sharing"] > 1e-6) == moved["local"]
        assert (rows["dense"]["off_local"] > 0) == moved["dense"]
        assert rows["wide"]["broken_sharing"] == rows["local"]["off_local"] == 0
        lasso = rows["dense-lasso-1"]
        assert lasso["off_local"] == lasso["off_local_nonzero"] == 0
        assert lasso["local_alone"] == lasso["test_accuracy"]
        # What the CNN projects onto is itself.
        assert rows["conv"]["projected"] == rows["conv"]["test_accuracy"]
    table = dascoli2019.way_back_table(result)
    tests = [100 * rows["wide"]["test_accuracy"] for rows in result.rows.values()]
    spread = f"{np.mean(tests):.2f} ± {np.std(tests, ddof=1):.2f}"
    assert table[1]["test, %"] == spread
    assert table[0]["δ, %"] == "–" and table[4]["δ, %"] == "0.00 ± 0.00"
    page = dascoli2019.write_way_back_report(result).read_text(encoding="utf-8")
    assert "dense, β-LASSO λ = 1" in page and spread in page
    with pytest.raises(training.RunFolderError, match="--resume"):
        dascoli2019.run_way_back(config, dataset)
    again = dascoli2019.run_way_back(config.replace(resume=True), dataset)
    assert again.rows == result.rows


@pytest.mark.slow
@pytest.mark.tensorflow
def test_recipe(tmp_path, capsys, monkeypatch):
    options = (
        "--demo --num-train 60 --num-test 40 --num-validation 20 --switch-time 1 "
        "--embedded-epochs 1 --fine-tune-epochs 1 --verbose silent"
    )
    words = [*options.split(), "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
    runpy.run_path(str(RECIPE), run_name="__main__")
    assert "| wide: shared, not local" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    "changes",
    [{"switch_time": 0}, {"l1": (-1.0,)}, {"num_seeds": 0}, {"beta": -1.0}, {"kernel_size": 0}],
)
def test_config(changes):
    with pytest.raises(training.ConfigError, match=next(iter(changes))):
        TINY.replace(**changes)


def test_seeds_of_the_switch_time_protocol(tmp_path):
    config = dascoli2019.SwitchTimeConfig(
        switch_times=(0,), epochs=2, seed=3, num_seeds=2, run_dir=str(tmp_path)
    )
    ones = configs_of_seeds(config)
    assert [(one.seed, one.drawn_with, one.num_seeds) for one in ones] == [(3, 3, 1), (4, 3, 1)]
    assert [Path(one.run_dir).name for one in ones] == ["seed-3", "seed-4"]
    results = []
    for one, accuracy in zip(ones, (0.4, 0.6), strict=True):
        row = {"test_accuracy": accuracy, "best_test_accuracy": 0.7, "off_local": 0.1,
               "broken_sharing": 0.0, "local": accuracy, "dataset": "motifs10"}  # fmt: skip
        rows = dict.fromkeys(("fcn", "tw-0", "tw-2"), row)
        folder = training.RunFolder(one.run_dir)
        folder.part("fcn").path.mkdir(parents=True)
        folder.part("fcn").write_environment(training.environment())
        histories = {"cnn": {"test_accuracy": [0.1, accuracy]}}
        results.append(dascoli2019.SwitchTimeResult(one, histories, rows, folder))
    table = seeds_table(results)
    assert [row["network"] for row in table] == ["cnn", "fcn", "tw-0", "tw-2"]
    # The standard deviation of 40 and 60 is 10 √2.
    assert {row["test, %"] for row in table} == {"50 ± 14"}
    assert table[2]["best, %"] == "70 ± 0" and table[0]["δ, %"] == ""
    page = write_seeds_report(results, tmp_path, "eFCN", "FCN").read_text(encoding="utf-8")
    assert "50 ± 14" in page and page.count("<img") == 1


@pytest.mark.slow
def test_a_network_that_was_lost_is_missing_from_the_report(tmp_path, monkeypatch, report_without):
    monkeypatch.setattr(way_back, "build_cnn", _small_cnn)
    for module in (way_back, task):
        monkeypatch.setattr(module, "build_dataset", lambda config: _dataset())
    config = TINY.replace(run_dir=str(tmp_path / "run"), num_seeds=1, retries=0)
    page = report_without(
        lambda: dascoli2019.report_way_back(config), tmp_path / "run", "local, seed 0"
    )
    assert "wide: shared, not local" in page and "<td>local: not shared" not in page
