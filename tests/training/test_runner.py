"""A run: what it leaves, resuming, and what may go wrong."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from hostile import HOSTILE, check_harmless

from tfconvbias import training
from tfconvbias.training import comparison, recorder, runner, trainer
from tfconvbias.training.engine import task


def without_seconds(history):
    return {name: column for name, column in history.items() if "seconds" not in name}


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def kill_after(monkeypatch, epochs):
    """End the process's run right after the history row of an epoch, before its checkpoint."""
    append = training.RunFolder.append_history

    def append_then_die(self, row):
        append(self, row)
        if row["epoch"] == epochs:
            raise Killed

    monkeypatch.setattr(training.RunFolder, "append_history", append_then_die)


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [("sgd", "float32"), ("beta_lasso", "mixed_float16")],
)
def test_a_killed_run_resumes_to_the_same_history_and_model(
    optimizer, precision, tiny_config, tiny_dataset, tmp_path, monkeypatch
):
    config = dataclasses.replace(
        tiny_config, optimizer=optimizer, momentum=0.5, connectivity="dense", beta=1.0, l1_conv=1e-3
    )
    whole = training.run(config, tiny_dataset)
    config = dataclasses.replace(config, run_dir=str(tmp_path / "killed"))
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            training.run(config, tiny_dataset)
    assert sorted(f.name for f in (tmp_path / "killed").glob("*checkpoint*")) == [
        "checkpoint-1.json",
        "checkpoint-1.weights.h5",
    ]
    resumed = training.run(dataclasses.replace(config, resume=True), tiny_dataset)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    models = [keras.saving.load_model(r.folder.last_model) for r in (whole, resumed)]
    for one, other in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


def test_a_run_stops_in_time_and_goes_on(tiny_config, tiny_dataset, tmp_path):
    config = dataclasses.replace(
        tiny_config, optimizer="beta_lasso", beta=1.0, l1_conv=1e-3, epochs=2
    )
    whole = training.run(config, tiny_dataset)
    # Rare checkpoints, and time for no more than the epoch that is run in any case.
    config = dataclasses.replace(
        config, run_dir=str(tmp_path / "pieces"), max_minutes=1e-6, checkpoint_every=10
    )
    with pytest.raises(training.RunPausedError, match=r"epoch 1 of 2.*--resume"):
        training.run(config, tiny_dataset)
    folder = training.RunFolder(config.run_dir)
    assert folder.checkpoint()[0] == 1
    assert folder.best_model.exists()
    assert folder.result() is None
    in_pieces = training.run(dataclasses.replace(config, resume=True), tiny_dataset)
    assert without_seconds(in_pieces.history) == without_seconds(whole.history)
    names = ("test_accuracy", "best_epoch", "best_epoch_test_accuracy", "nonzeros")
    assert [in_pieces.row[name] for name in names] == [whole.row[name] for name in names]


def test_the_best_model_is_kept_between_checkpoints(tiny_config, tiny_dataset, tmp_path):
    often = training.run(tiny_config, tiny_dataset)
    rarely = training.run(
        dataclasses.replace(tiny_config, run_dir=str(tmp_path / "rarely"), checkpoint_every=3),
        tiny_dataset,
    )
    for name in ("best_model", "last_model"):
        models = [keras.saving.load_model(getattr(r.folder, name)) for r in (often, rarely)]
        for one, other in zip(models[0].weights, models[1].weights, strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
            )


@pytest.mark.parametrize(("seconds", "written"), [(0.0, [1, 2, 3, 4]), (9e9, [1, 4])])
def test_checkpoints_take_a_small_part_of_the_time(
    seconds, written, tiny_config, tiny_dataset, monkeypatch
):
    saved = []
    monkeypatch.setattr(
        training.RunFolder,
        "save_checkpoint",
        lambda folder, model, epoch, num_kept: saved.append(epoch),
    )
    # Time stands still but for what writing a checkpoint is said to take.
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: seconds * len(saved))
    training.run(dataclasses.replace(tiny_config, epochs=4, checkpoint_every=None), tiny_dataset)
    assert saved == written


def test_a_policy_belongs_to_a_run_by_its_content(tiny_config, tmp_path):
    file, moved = tmp_path / "policy.json", tmp_path / "elsewhere" / "policy.json"
    file.write_text('[[["Invert", 1.0, 0.5]]]')
    moved.parent.mkdir()
    moved.write_text(file.read_text())
    config = tiny_config.replace(augment=str(file))
    before = config.identity()
    assert tiny_config.replace(augment=str(moved)).identity() == before
    file.write_text('[[["Invert", 1.0, 0.6]]]')
    assert config.identity() != before


def test_an_automatic_precision_is_that_of_the_machine(tiny_config, tiny_dataset, tmp_path):
    config = dataclasses.replace(tiny_config, epochs=1, precision="auto", device_epochs="auto")
    expected = "mixed_bfloat16" if training.accelerators() else "float32"
    assert training.run(config, tiny_dataset).folder.config()["precision"] == expected


def test_time_that_is_over_stops_a_comparison(tiny_config, tmp_path, monkeypatch, tiny_dataset):
    monkeypatch.setattr(task, "build_dataset", lambda config: tiny_dataset)
    config = dataclasses.replace(tiny_config, epochs=1)
    rows = {"one": config, "two": dataclasses.replace(config, seed=1)}
    training.compare({"one": config}, tmp_path)
    rows = {name: dataclasses.replace(row, resume=True) for name, row in rows.items()}
    with pytest.raises(training.RunPausedError, match="two is still to run"):
        training.compare(rows, tmp_path, training.Deadline(1e-9))
    assert not (tmp_path / "two").exists()
    finished, _, _ = training.compare(rows, tmp_path, training.Deadline(60.0))
    assert list(finished) == ["one", "two"]


def test_epochs_on_the_device_equal_those_of_the_host(tiny_config, tiny_dataset, tmp_path):
    config = dataclasses.replace(
        tiny_config, connectivity="dense", optimizer="beta_lasso", precision="mixed_float16"
    )
    host = training.run(config, tiny_dataset)
    device = training.run(
        dataclasses.replace(config, run_dir=str(tmp_path / "device"), device_epochs="on"),
        tiny_dataset,
    )
    for name, column in without_seconds(host.history).items():
        assert device.history[name] == pytest.approx(column, rel=1e-3, abs=1e-6), name
    assert device.row["test_accuracy"] == pytest.approx(host.row["test_accuracy"])


def test_a_run_leaves_all_that_a_table_needs(tiny_config, tiny_dataset):
    result = training.run(tiny_config, tiny_dataset)
    folder = result.folder.path
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.keras",
        "config.json",
        "environment.json",
        "history.csv",
        "last.keras",
        "lock",
        "result.json",
    ]
    assert json.loads((folder / "config.json").read_text()) == {
        **tiny_config.identity(),
        "backend": keras.config.backend(),
        "images": f"tiny {tiny_dataset.digest}",
    }
    with (folder / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    # A cosine over all steps: three batches in each of three epochs.
    rates = [0.1 * (1 + np.cos(np.pi * step / 9)) / 2 for step in (3, 6, 9)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(rates, abs=1e-7)
    row = json.loads((folder / "result.json").read_text())
    for file, column in (
        ("best.keras", "best_epoch_test_accuracy"),
        ("last.keras", "test_accuracy"),
    ):
        model = keras.saving.load_model(folder / file)
        logits = keras.ops.convert_to_numpy(model(tiny_dataset.x_test))
        accuracy = np.mean(logits.argmax(-1) == tiny_dataset.y_test)
        assert row[column] == pytest.approx(accuracy)
    assert row["best_epoch"] == 1 + np.argmax(result.history["val_accuracy"])
    assert row["seconds"] == pytest.approx(sum(result.history["seconds"]), abs=0.051)
    assert row["parameters"] == model.count_params()
    assert row["kernel_parameters"]["conv1"] == 486
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["backend"] == keras.config.backend()
    assert environment["versions"]["keras"] == keras.__version__


def test_a_finished_run_is_read_not_repeated(tiny_config, tiny_dataset, monkeypatch):
    first = training.run(tiny_config, tiny_dataset)
    monkeypatch.setattr(runner, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = training.run(dataclasses.replace(tiny_config, resume=True), tiny_dataset)
    assert again.row == first.row


def test_a_folder_with_another_run_is_left_alone(tiny_config, tiny_dataset):
    training.run(tiny_config, tiny_dataset)
    before = (training.RunFolder(tiny_config.run_dir).path / "history.csv").read_text()
    with pytest.raises(training.RunFolderError, match="seed: 0 there, 1 asked for"):
        training.run(dataclasses.replace(tiny_config, seed=1, resume=True), tiny_dataset)
    with pytest.raises(training.RunFolderError, match="--resume"):
        training.run(tiny_config, tiny_dataset)
    after = (training.RunFolder(tiny_config.run_dir).path / "history.csv").read_text()
    assert after == before


def test_a_folder_with_other_files_is_left_alone(tiny_config, tiny_dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    (tmp_path / "run" / "lock").touch()
    with pytest.raises(training.RunFolderError, match="holds no run"):
        training.run(tiny_config, tiny_dataset)


def test_a_diverging_run_stops_and_keeps_the_last_good_model(
    tiny_config, tiny_dataset, monkeypatch
):
    config = dataclasses.replace(tiny_config, dropout_rate=0.0, epochs=5)
    on_epoch_begin = recorder.Recorder.on_epoch_begin

    def poison(self, epoch, logs=None):
        on_epoch_begin(self, epoch, logs)
        if epoch == 2:
            bias = self.model.get_layer("fc2").bias
            bias.assign(np.full(bias.shape, np.nan))

    monkeypatch.setattr(recorder.Recorder, "on_epoch_begin", poison)
    with pytest.raises(training.TrainingDivergedError, match=r"epoch 3.*checkpoint-2\.weights"):
        training.run(config, tiny_dataset)
    folder = training.RunFolder(config.run_dir)
    epoch, file = folder.checkpoint()
    assert epoch == 2
    kept = training.build_model(config, tiny_dataset)
    training.compile_model(config, kept, 1)
    kept.load_weights(file)
    assert all(np.isfinite(keras.ops.convert_to_numpy(w)).all() for w in kept.weights)
    assert len(folder.history()["epoch"]) == 2
    assert folder.result() is None


def test_mixed_precision_trains_and_leaves_the_global_policy_alone(tiny_config, tiny_dataset):
    config = dataclasses.replace(tiny_config, precision="mixed_bfloat16", optimizer="beta_lasso")
    result = training.run(config, tiny_dataset)
    assert keras.config.dtype_policy().name == "float32"
    model = keras.saving.load_model(result.folder.last_model)
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    assert np.isfinite(result.history["loss"]).all()


def test_weight_decay_is_coupled_and_spares_biases_and_batchnorm(tiny_config, tiny_dataset):
    config = dataclasses.replace(tiny_config, weight_decay=0.2, learning_rate=0.1)
    model = training.build_model(config, tiny_dataset)
    kernels = [w for w in model.trainable_weights if w.name == "kernel"]
    expected = sum(0.1 * np.sum(keras.ops.convert_to_numpy(k) ** 2) for k in kernels)
    found = sum(keras.ops.convert_to_numpy(loss) for loss in model.losses)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", ["s", "d", "three_fc", "resnet18"])
def test_every_family_builds_for_both_optimizers(family, tiny_config, tiny_dataset, monkeypatch):
    # Two stages of four: enough for every kind of layer.
    monkeypatch.setattr("tfconvbias.models.resnet18.STAGES", ((1, 1), (2, 2)))
    config = dataclasses.replace(
        tiny_config,
        family=family,
        connectivity="dense" if family == "three_fc" else "conv",
        hidden_units=8,
        dropout_rate=0.0,
    )
    model = training.build_model(config, tiny_dataset)
    for optimizer in ("sgd", "beta_lasso"):
        config = dataclasses.replace(config, optimizer=optimizer)
        built = training.build_optimizer(config, steps=10)
        built.build(model.trainable_variables)
        if optimizer == "beta_lasso" and family != "three_fc":
            by_path = dict(built.penalized_variables)
            conv = [rate for path, rate in by_path.items() if "conv" in path or "shortcut" in path]
            rest = [
                rate for path, rate in by_path.items() if "/fc" in path or path.startswith("fc")
            ]
            assert conv and conv == pytest.approx([2e-5] * len(conv))
            assert rest and rest == pytest.approx([5e-6] * len(rest))


def test_a_short_run_is_evaluated_with_statistics_of_its_own(tiny_config, tiny_dataset):
    """What is measured equals what statistics that are estimated anew give, to a few images."""
    config = tiny_config.replace(augment="none", dropout_rate=0.0, epochs=20, learning_rate=0.3)
    result = training.run(config, tiny_dataset)
    model = keras.saving.load_model(result.folder.last_model)
    stored = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(tiny_dataset.x_train, training=True)
    found = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    moving = [(a, b) for a, b in zip(stored, found, strict=True) if a.size > 2]
    assert moving
    for kept, exact in moving:
        scale = np.abs(exact).max()
        np.testing.assert_allclose(kept, exact, atol=0.2 * scale)
    logits = keras.ops.convert_to_numpy(model(tiny_dataset.x_test))
    accuracy = np.mean(logits.argmax(-1) == tiny_dataset.y_test)
    assert result.row["test_accuracy"] == pytest.approx(accuracy, abs=0.1)


def test_a_trial_reads_no_test_image_and_keeps_no_model(tiny_config, tiny_dataset, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a trial was measured on test images")

    monkeypatch.setattr(runner, "evaluate", refuse)
    config = dataclasses.replace(tiny_config, epochs=2)
    found = training.run(config, tiny_dataset, is_trial=True)
    assert not [name for name in found.row if "test" in name]
    assert found.row["val_accuracy"] == found.history["val_accuracy"][-1]
    assert not list(found.folder.path.glob("*.keras"))
    assert not list(found.folder.path.glob("checkpoint*"))
    again = dataclasses.replace(config, resume=True)
    assert training.run(again, tiny_dataset, is_trial=True).row == found.row


def test_training_on_all_images_has_no_validation(tiny_config, tiny_dataset):
    config = dataclasses.replace(tiny_config, epochs=1, train_on_all=True)
    found = training.run(config, tiny_dataset)
    assert found.row["num_train"] == 96 + 24
    assert found.row["val_accuracy"] is found.row["best_epoch"] is None
    assert found.row["test_accuracy"] == pytest.approx(found.history["test_accuracy"][-1])
    assert "val_accuracy" not in found.history
    page = training.write_report({"all": found.folder}, found.folder.path / "report.html", "all")
    assert "<td>–</td>" in page.read_text(encoding="utf-8")
    folders = {HOSTILE: found.folder, "other": found.folder}
    check_harmless(training.write_report(folders, found.folder.path / "two.html", HOSTILE))


def test_sizes_and_extra_images_reach_the_loader_and_one_draw_serves_all_seeds(
    monkeypatch, tiny_dataset
):
    asked = []
    monkeypatch.setattr(
        "tfconvbias.data.load", lambda name, **options: asked.append(options) or tiny_dataset
    )
    config = training.RunConfig(
        dataset="svhn", image_size=16, include_extra=True, num_train=20, subset_seed=5
    )
    one, two = (training.build_dataset(dataclasses.replace(config, seed=seed)) for seed in (0, 1))
    assert asked[0] == {
        "data_dir": None,
        "image_size": (16, 16),
        "include_extra": True,
        "stream": "auto",
    }
    assert one.digest == two.digest
    other = training.build_dataset(dataclasses.replace(config, subset_seed=None, seed=1))
    assert other.digest != one.digest
    names = ("image_size", "include_extra", "subset_seed")
    assert [config.identity()[name] for name in names] == [16, True, 5]


@pytest.mark.parametrize("changes", [{"image_size": 8}, {"num_train": 20, "subset_seed": 3}])
def test_rows_of_other_images_are_not_given_the_first_rows_images(
    changes, tiny_config, monkeypatch, tmp_path, tiny_dataset
):
    built = []
    monkeypatch.setattr(task, "build_dataset", lambda config: built.append(config) or tiny_dataset)
    row = {"test_accuracy": 0.5}

    def run(config, dataset, deadline):
        folder = training.RunFolder(config.run_dir)
        folder.write_result(row)
        return training.RunResult(folder, row, {})

    monkeypatch.setattr(comparison, "run", run)
    rows = {"one": tiny_config, "two": dataclasses.replace(tiny_config, **changes)}
    rows["three"] = dataclasses.replace(rows["two"], seed=1)
    training.compare(rows, tmp_path)
    assert len(built) == 2
