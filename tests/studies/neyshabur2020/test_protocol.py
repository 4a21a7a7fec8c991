"""The paper's protocol: fair grids, a choice by validation images, settings that reach a table."""

import json
import pickle

import pytest

from tfconvbias import training
from tfconvbias.studies.neyshabur2020 import (
    PROTOCOL,
    TABLE_1,
    TABLE_2,
    Outcome,
    ProtocolRuns,
    Trial,
    protocol_report,
    protocol_runs,
)
from tfconvbias.studies.neyshabur2020.protocol_grids import Setting, initial_deviation
from tfconvbias.studies.neyshabur2020.protocol_report import _NAMES as NAMES
from tfconvbias.training.engine import task

SMALL = PROTOCOL.replace(
    datasets=("pictures/tiny",),
    base_channels=2,
    batch_size=32,
    rows=("S-FC", "S-FC β-LASSO"),
    epochs_list=(1, 2),
    seeds=(1, 2),
    momenta=(0.0, 0.9),
    weight_decays=(0.0,),
    dropout_rates=(0.0,),
    pulls=(0.1, 0.2),
    cutoffs=(0.1,),
    verbose="silent",
)


class FakeTraining:
    """Stands for training: accuracies by rule, and what was asked for."""

    def __init__(self, diverging=()):
        self.calls = []
        self.diverging = diverging

    def __call__(self, config, dataset, deadline, *, is_trial):
        folder = training.RunFolder(config.run_dir)
        folder.check(config, config.resume, dataset)
        if folder.result() is not None:
            return training.RunResult(folder, folder.result(), {})
        folder.claim(config, dataset)
        self.calls.append((config, is_trial))
        if config.momentum in self.diverging:
            raise training.TrainingDivergedError("NaN")
        row = {"seed": config.seed, "val_accuracy": 0.5 + config.momentum / 10}
        if config.optimizer == "beta_lasso":
            row["val_accuracy"] += config.l1_conv
        if not is_trial:
            row["test_accuracy"] = 0.9 - row["val_accuracy"]
        folder.write_result(row)
        return training.RunResult(folder, row, {})


@pytest.fixture
def fake(monkeypatch, tiny_dataset):
    found = FakeTraining()
    monkeypatch.setattr(protocol_runs, "run", found)
    monkeypatch.setattr(task, "build_dataset", lambda config: tiny_dataset)
    # Nothing is compiled, and it takes long.
    monkeypatch.setattr(protocol_runs.keras.utils, "clear_session", lambda: None)
    return found


def outcomes(protocol):
    return [o for found in ProtocolRuns(protocol).outcomes() for o in found]


def test_the_papers_twenty_settings_of_sgd_and_as_many_of_beta_lasso():
    grid = {tuple(s.values.values()) for s in PROTOCOL.grid("S-CONV").settings()}
    decays = (0, 1e-4, 2e-4, 5e-4, 1e-3)
    assert grid == {(m, w, d) for m in (0, 0.9) for w in decays for d in (0, 0.5)}
    labels = {s.label for s in PROTOCOL.grid("S-FC β-LASSO").settings()}
    assert len(labels) == len(grid) == 20


def test_a_protocol_reaches_other_processes_whole():
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL


def test_rows_with_unequally_many_settings_are_refused():
    with pytest.raises(training.ConfigError, match="S-FC 20, S-FC β-LASSO 16"):
        PROTOCOL.replace(rows=("S-FC", "S-FC β-LASSO"), pulls=(0.1, 0.2, 0.3, 0.4))
    PROTOCOL.replace(rows=("S-FC β-LASSO",), pulls=(0.1, 0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs_list": (3, 2)}, "rise"),
        ({"epochs_list": (1, 2), "num_kept": (21,)}, "num_kept"),
        ({"epochs_list": (1, 2), "num_kept": (2, 1)}, "num_kept"),
        ({"pulls": (0.0, 0.1, 0.2, 0.3, 0.4)}, "pulls"),
        ({"momenta": (0.0, 1.0)}, "momentum"),
        ({"seeds": (1, 1)}, "seeds"),
    ],
    ids=str,
)
def test_protocols_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(training.ConfigError, match=message):
        PROTOCOL.replace(**changes)


@pytest.mark.parametrize("train_on_all", [False, True])
def test_a_pull_is_the_same_at_every_length(tiny_dataset, train_on_all):
    setting = Setting({"pull": 0.3, "cutoff": 0.2, "dropout_rate": 0.5}, l1_ratio=0.25)
    steps_per_epoch = (96 + 24 * train_on_all) // 16
    for epochs in (2, 50):
        config = PROTOCOL.table.row("S-FC β-LASSO", "tiny").replace(
            epochs=epochs, batch_size=16, base_channels=4, train_on_all=train_on_all
        )
        found = setting.apply(config, tiny_dataset)
        # The rates of a cosine from 0.1 over T steps add up to 0.1 (T + 1) / 2.
        total = 0.1 * (epochs * steps_per_epoch + 1) / 2
        assert found.l1_conv * total == pytest.approx(0.3, rel=1e-3)
        assert found.l1 == pytest.approx(found.l1_conv / 4)
        assert (found.dropout_rate, found.momentum, found.weight_decay) == (0.5, 0.0, 0.0)
        model = training.build_model(found, tiny_dataset)
        deviation = model.get_layer("conv1").kernel.numpy().std()
        assert found.beta * found.l1_conv == pytest.approx(0.2 * deviation, rel=0.05)


def test_initial_deviations_of_the_other_dense_networks(tiny_dataset):
    for row, width in (("D-FC", "base_channels"), ("3-FC", "hidden_units")):
        config = PROTOCOL.table.row(row, "tiny").replace(**{width: 6})
        kernel = next(v for v in training.build_model(config, tiny_dataset).trainable_variables)
        expected = initial_deviation(config, tiny_dataset.image_shape)
        assert kernel.numpy().std() == pytest.approx(expected, rel=0.1)
    with pytest.raises(training.ConfigError, match="fully connected"):
        initial_deviation(PROTOCOL.table.row("S-CONV", "tiny"), (8, 8, 3))


def test_the_best_on_validation_images_is_measured_with_every_seed(fake, tmp_path):
    found = outcomes(SMALL.replace(run_dir=str(tmp_path), epochs_list=(1,)))
    assert [o.row for o in found] == ["S-FC", "S-FC β-LASSO"]
    # The larger momentum and the larger pull have the better validation and the worse test.
    assert [o.chosen.setting.values for o in found] == [
        {"momentum": 0.9, "weight_decay": 0.0, "dropout_rate": 0.0},
        {"pull": 0.2, "cutoff": 0.1, "dropout_rate": 0.0},
    ]
    assert [[test.row["seed"] for test in o.tests] for o in found] == [[1, 2], [1, 2]]
    assert [(config.seed, is_trial) for config, is_trial in fake.calls] == 2 * [
        (0, True),
        (0, True),
        (1, False),
        (2, False),
    ]
    # All on the same images, whatever the seed.
    assert {config.drawn_with for config, _ in fake.calls} == {0}


def test_a_finished_study_trains_nothing_and_grows_by_what_is_new(fake, tmp_path):
    protocol = SMALL.replace(run_dir=str(tmp_path), epochs_list=(1,), resume=True)
    outcomes(protocol)
    fake.calls.clear()
    outcomes(protocol)
    assert fake.calls == []
    outcomes(protocol.replace(seeds=(1, 2, 3)))
    assert [(config.seed, is_trial) for config, is_trial in fake.calls] == 2 * [(3, False)]
    with pytest.raises(training.RunFolderError, match="--resume"):
        outcomes(protocol.replace(resume=False))


def test_only_the_best_of_the_length_before_go_on(fake, tmp_path):
    protocol = SMALL.replace(run_dir=str(tmp_path), num_kept=(1,), seeds=(1,))
    found = outcomes(protocol)
    assert [len(o.trials) for o in found] == [2, 2, 1, 1]
    assert [o.epochs for o in found] == [1, 1, 2, 2]
    assert found[2].chosen.setting.values["momentum"] == 0.9
    assert found[3].chosen.setting.values["pull"] == 0.2


def test_a_diverged_setting_is_remembered_and_never_chosen(fake, tmp_path):
    fake.diverging = (0.9,)
    protocol = SMALL.replace(
        run_dir=str(tmp_path), epochs_list=(1,), rows=("S-FC",), seeds=(1,), resume=True
    )
    for calls in (3, 0):
        fake.calls.clear()
        (found,) = outcomes(protocol)
        assert [trial.accuracy for trial in found.trials] == [0.5, None]
        assert found.chosen.setting.values["momentum"] == 0.0
        assert len(fake.calls) == calls
    fake.diverging = (0.0, 0.9)
    with pytest.raises(training.TrainingDivergedError, match="Every setting of S-FC"):
        outcomes(protocol.replace(run_dir=str(tmp_path / "other")))


def test_train_on_all_reaches_the_measured_runs_alone(fake, tmp_path):
    outcomes(SMALL.replace(run_dir=str(tmp_path), epochs_list=(1,), train_on_all=True))
    assert all(config.train_on_all is not is_trial for config, is_trial in fake.calls)


def test_the_time_may_be_over(fake, tmp_path):
    with pytest.raises(training.RunPausedError, match="setting 1 of 2"):
        outcomes(SMALL.replace(run_dir=str(tmp_path), max_minutes=1e-9))


def test_chosen_settings_reach_the_rows_of_a_table(fake, tmp_path):
    for rows in (("S-FC",), ("S-FC β-LASSO",)):
        outcomes(SMALL.replace(run_dir=str(tmp_path), rows=rows, seeds=(1,)))
    table = TABLE_1.replace(
        datasets=("pictures/tiny",),
        rows=("S-FC",),
        epochs=2,
        settings=str(tmp_path / "settings.json"),
    )
    ((_, config),) = table.runs().values()
    assert (config.momentum, config.weight_decay) == (0.9, 0.0)
    with pytest.raises(training.ConfigError, match=r"none for S-FC.*3 epochs.*S-FC, β-LASSO"):
        table.replace(epochs=3).runs()
    with pytest.raises(training.ConfigError, match="S-CONV"):
        table.replace(rows=("S-FC", "S-CONV")).runs()


def test_each_row_and_data_set_has_its_own_settings(tmp_path):
    file = tmp_path / "mine.json"
    by_row = {"S-CONV, SGD": {"momentum": 0.5}, "S-FC, SGD": {"momentum": 0.25}}
    other = {"S-CONV, SGD": {"momentum": 0.75}, "S-FC, SGD": {"augment": "crop"}}
    file.write_text(json.dumps({"cifar10": {"400": by_row}, "svhn": {"400": other}}))
    table = TABLE_1.replace(
        settings=str(file), datasets=("cifar10", "svhn"), rows=("S-CONV", "S-FC")
    )
    found = {(cell.dataset, cell.row): config for cell, config in table.runs().values()}
    assert {key: config.momentum for key, config in found.items()} == {
        ("cifar10", "S-CONV"): 0.5,
        ("cifar10", "S-FC"): 0.25,
        ("svhn", "S-CONV"): 0.75,
        ("svhn", "S-FC"): TABLE_1.run.momentum,
    }
    assert found["svhn", "S-FC"].augment == "crop"


def test_settings_of_another_beta_are_not_a_rows_own(tmp_path):
    file = tmp_path / "mine.json"
    fields = {"l1_conv": 1e-5, "beta": 50.0}
    file.write_text(json.dumps({"cifar10": {"4000": {"S-FC, β-LASSO": fields}}}))
    table = TABLE_2.replace(settings=str(file), datasets=("cifar10",), rows=("S-FC β=50",))
    ((_, config),) = table.runs().values()
    assert config.l1_conv == 1e-5
    assert f"own settings, from {file}" in table._remarks(True)[0]
    with pytest.raises(training.ConfigError, match=r"beta=50.0.*own is 1.0"):
        table.replace(rows=("S-FC β=1",)).runs()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"1": {"S-FC, SGD": {"colour": 1}}}}'])
def test_files_that_hold_no_settings_are_refused(text, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(training.ConfigError, match="must be a JSON file"):
        TABLE_1.replace(settings=str(file)).runs()
    with pytest.raises(training.ConfigError, match="must be a JSON file"):
        TABLE_1.replace(settings=str(tmp_path / "none.json")).runs()


def outcome(row, *accuracies):
    tests = [training.RunResult(None, {"test_accuracy": a}, {}) for a in accuracies]
    trial = Trial(Setting({"momentum": 0.0}), 0.5)
    return Outcome(row, "tiny", 30, [trial], trial, {}, tests, [])


def test_gaps_are_differences_of_means_with_their_standard_error():
    found = [outcome("S-CONV", 0.52, 0.54, 0.56), outcome("S-FC", 0.50, 0.50, 0.47)]
    ((label, dataset, epochs, gap, error),) = protocol_report._gaps(found)
    assert (label, dataset, epochs) == ("S-CONV − S-FC", "tiny", 30)
    assert gap == pytest.approx(54 - 49)
    # Variances 4 and 3 of three runs each.
    assert error == pytest.approx((4 / 3 + 3 / 3) ** 0.5)


def test_the_edge_of_a_grid_is_named():
    grid = PROTOCOL.grid("S-FC β-LASSO")

    def edge(pull, cutoff, dropout):
        return grid.at_the_edge(Setting({"pull": pull, "cutoff": cutoff, "dropout_rate": dropout}))

    assert edge(0.05, 0.1, 0.0) == ["cutoff 0.1"]
    assert edge(0.2, 0.2, 0.5) == ["pull 0.2", "cutoff 0.2"]


def test_rows_that_lack_a_setting_are_left_out_and_seeds_that_are_lost_too(
    fake, tmp_path, monkeypatch, report_without
):
    def write(protocol, folder, outcomes, localities, tables, missing):
        texts = [f"{o.row} {o.epochs} {[t.row['seed'] for t in o.tests]}" for o in outcomes]
        page = "\n".join([*texts, "" if missing is None else missing.summary])
        (folder / "report.html").write_text(page)

    monkeypatch.setattr(protocol_report, "_write", write)
    monkeypatch.setattr(protocol_report, "_locality", lambda file: None)
    monkeypatch.setattr(protocol_report, "_tables", lambda *_: {name: [] for name in NAMES})
    config = SMALL.replace(run_dir=str(tmp_path), epochs_list=(1,))
    page = report_without(
        lambda: protocol_report.report_protocol(config),
        tmp_path,
        "S-FC, tiny, 1 epochs, setting 2 of 2",
        "S-FC β-LASSO, tiny, 1 epochs, chosen setting, seed 2",
        missing=(
            "S-FC, tiny, 1 epochs, setting 2 of 2",
            "S-FC, tiny, 1 epochs, chosen setting, seed 1",
            "S-FC, tiny, 1 epochs, chosen setting, seed 2",
            "S-FC β-LASSO, tiny, 1 epochs, chosen setting, seed 2",
        ),
    )
    assert page.splitlines()[0] == "S-FC β-LASSO 1 [1]"
