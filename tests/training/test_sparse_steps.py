"""Runs of β-LASSO on the weights that are left."""

import csv
import dataclasses
import shutil

import pytest
from damages import DAMAGES

from tfconvbias import training
from tfconvbias.callbacks import certified_sparsity
from tfconvbias.training import feeds

# Some of the columns of the file.
_COLUMNS = {"epoch", "layer", "is_sparse", "reason", "steps", "returned", "sparse_ms"}


@pytest.fixture
def lasso(tiny_config):
    return dataclasses.replace(
        tiny_config,
        connectivity="dense",
        optimizer="beta_lasso",
        beta=5.0,
        l1_conv=2e-3,
        precision="float32",
        epochs=3,
    )


@pytest.fixture
def dense_is_slow(monkeypatch):
    """Each layer takes the sparse form, whatever is left of it."""
    monkeypatch.setattr(certified_sparsity, "_HIGHEST_DENSITY", 1.0)
    monkeypatch.setattr(certified_sparsity, "dense_seconds", lambda *_: 1e9)


def _rows(run):
    with (run.folder.path / "certified_sparsity.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sparse_run_is_the_dense_run(lasso, tiny_dataset, tmp_path, dense_is_slow, monkeypatch):
    dense = training.run(lasso, tiny_dataset)
    # Also where an accelerator would take all steps of an epoch as one.
    monkeypatch.setattr(feeds, "accelerators", lambda: ["GPU:0"])
    sparse = training.run(
        lasso.replace(
            run_dir=str(tmp_path / "sparse"), certified_sparsity=True, device_epochs="auto"
        ),
        tiny_dataset,
    )
    assert sparse.history.keys() == dense.history.keys()
    for name, column in dense.history.items():
        if "seconds" not in name:
            assert sparse.history[name] == pytest.approx(column, rel=1e-4, abs=1e-6), name
    rows = _rows(sparse)
    assert rows[0].keys() >= _COLUMNS
    assert {(row["layer"], row["epoch"]) for row in rows} >= {("conv1", e) for e in "123"}
    assert sum(int(row["steps"]) for row in rows if row["layer"] == "conv1") > 0
    assert not (dense.folder.path / "certified_sparsity.csv").exists()


def test_a_run_goes_on_in_either_way(lasso, tiny_dataset, dense_is_slow):
    asked = lasso.replace(checkpoint_every=1, certified_sparsity=True)
    with pytest.raises(training.RunPausedError):
        training.run(asked.replace(max_minutes=1e-9), tiny_dataset)
    with pytest.raises(training.RunPausedError):
        training.run(
            asked.replace(max_minutes=1e-9, certified_sparsity=False, resume=True), tiny_dataset
        )
    done = training.run(asked.replace(resume=True), tiny_dataset)
    assert done.history["epoch"] == [1, 2, 3]
    assert sorted({row["epoch"] for row in _rows(done)}) == ["1", "3"]


@pytest.mark.parametrize("damage", ["cut", "a folder", "a list"])
def test_a_damaged_report_is_named(lasso, tiny_dataset, dense_is_slow, tmp_path, damage):
    asked = lasso.replace(
        checkpoint_every=1, certified_sparsity=True, epochs=2, run_dir=str(tmp_path / "run")
    )
    with pytest.raises(training.RunPausedError):
        training.run(asked.replace(max_minutes=1e-9), tiny_dataset)
    file = tmp_path / "run" / "certified_sparsity.csv"
    DAMAGES[damage](file, file)
    with pytest.raises(training.RunFolderError, match=r"certified_sparsity\.csv is damaged"):
        training.run(asked.replace(resume=True), tiny_dataset)
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert training.run(asked.replace(resume=True), tiny_dataset).history["epoch"] == [1, 2]


def test_what_cannot_be_sparse_is_refused_before_a_folder_is_made(lasso, tiny_dataset, tmp_path):
    place = tmp_path / "refused"
    asked = lasso.replace(certified_sparsity=True, run_dir=str(place))
    with pytest.raises(training.ConfigError, match=r"certified_sparsity: .*momentum"):
        training.run(asked.replace(momentum=0.5), tiny_dataset)
    with pytest.raises(training.ConfigError, match="has a regularizer of its kernel"):
        training.run(asked.replace(weight_decay=0.1), tiny_dataset)
    with pytest.raises(training.ConfigError, match="device_epochs"):
        asked.replace(device_epochs="on")
    assert not place.exists()


def test_other_optimizers_stay_as_they_are(tiny_config, tiny_dataset):
    config = tiny_config.replace(certified_sparsity=True, epochs=1)
    assert not (training.run(config, tiny_dataset).folder.path / "certified_sparsity.csv").exists()
