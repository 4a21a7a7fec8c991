import dataclasses
import json
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hostile import HOSTILE, check_harmless

from tfconvbias import data, embedding, training
from tfconvbias.studies import dascoli2019
from tfconvbias.studies.dascoli2019 import measurements, protocol
from tfconvbias.studies.dascoli2019.report import findings, switch_time_table
from tfconvbias.training.engine import task

RECIPE = Path(__file__).parents[3] / "recipes" / "efcn_switch_time.py"
RECIPE_OPTIONS = (
    "--demo --filters 2 --num-train 60 --num-test 40 --epochs 1 --embedded-epochs 1 "
    "--switch-times 1 --curvature-samples 10 --num-points 0 --verbose silent"
)

TINY = dascoli2019.SwitchTimeConfig(
    filters=2,
    epochs=2,
    embedded_epochs=2,
    switch_times=(0,),
    batch_size=20,
    learning_rate=0.05,
    curvature_samples=0,
    num_points=3,
    string_epochs=1,
    string_samples=20,
    checkpoint_every=1,
    verbose="silent",
)


def _dataset():
    full = data.make_motifs(10, num_train=60, num_validation=0, num_test=40)
    crop = {f"x_{s}": full.split(s)[0][:, :28, :28] for s in ("train", "validation", "test")}
    return dataclasses.replace(full, **crop)


def _small_cnn(config=TINY, dataset=None):
    """In the place of VanillaCNN, which takes a backend long to compile."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 128, -1.0),
            keras.layers.Conv2D(config.filters, 4, strides=4, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


@pytest.fixture
def small_cnn(monkeypatch):
    monkeypatch.setattr(protocol, "build_cnn", _small_cnn)


def _config(tmp_path, **changes):
    return TINY.replace(run_dir=str(tmp_path / "run"), **changes)


@pytest.mark.usefixtures("small_cnn")
def test_protocol_and_report(tmp_path, monkeypatch):
    config, dataset = _config(tmp_path), _dataset()

    def stop(*_):
        raise KeyboardInterrupt

    # Killed while the first embedded network is measured: its training isn't repeated.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(protocol, "measure_paths", stop)
        dascoli2019.run_switch_time(config, dataset)
    checkpoint = tmp_path / "run" / "tw-0" / "checkpoint-2.weights.h5"
    trained = checkpoint.stat().st_mtime_ns
    kept = [tmp_path / "run" / name for name in ("fcn/result.json", "tw-0/history.csv")]
    before = [file.read_bytes() for file in kept]
    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "drop_checkpoints", lambda _: None)
        result = dascoli2019.run_switch_time(config.replace(resume=True), dataset)
    assert checkpoint.stat().st_mtime_ns == trained
    assert [file.read_bytes() for file in kept] == before
    assert set(result.rows) == {"fcn", "tw-0", "tw-2"}
    cnn = result.histories["cnn"]
    assert cnn["epoch"] == [0, 1, 2]
    for moment in (0, 2):
        history = result.histories[f"tw-{moment}"]
        # The embedded network starts where the CNN was at the switch.
        assert history["test_loss"][0] == pytest.approx(cnn["test_loss"][moment], rel=1e-5)
        row = result.rows[f"tw-{moment}"]
        assert 0 < row["off_local"] < 0.2 < result.rows["fcn"]["off_local"]
        paths = row["paths"]
        assert set(paths) == {"linear", "string", "output"}
        for path in paths.values():
            assert path["loss"]["test"][0] == pytest.approx(cnn["test_loss"][2], rel=1e-4)
            assert path["loss"]["test"][-1] == pytest.approx(history["test_loss"][-1], rel=1e-4)
        assert len(paths["string"]["residuals"]) == 2 and paths["linear"]["residuals"] is None
    images = result.images("tw-0")
    assert images["start"].shape == (28, 28, 3)
    assert np.count_nonzero(images["start"]) == 4 * 4 * 3
    assert np.count_nonzero(images["end"]) > 4 * 4 * 3
    page = dascoli2019.write_switch_time_report(result).read_text(encoding="utf-8")
    assert "Data set motifs10, 60 training and 40 test images" in page
    figures = {f.stem for f in (result.folder.path / "figures").iterdir()}
    wanted = {"curves", "switch-time", "deviation", "masked", "filters", "weights"}
    assert figures == wanted | {"interpolation-0", "interpolation-2"}
    assert page.count("<img") == len(figures)
    rows = result.rows | {"fcn": result.rows["fcn"] | {"dataset": HOSTILE}}
    named = dataclasses.replace(result, rows=rows)
    check_harmless(dascoli2019.write_switch_time_report(named))
    table = switch_time_table(result)
    titles = ["CNN", "FCN", "eFCN, t_w = 0", "eFCN, t_w = 2"]
    assert [row["network"] for row in table] == titles
    losses = [float(loss) for loss in table[2]["train loss"].split(" → ")]
    assert losses == [round(result.histories["tw-0"]["loss"][i], 4) for i in (0, -1)]
    assert table[0]["δ, %"] == table[1]["‖∇L‖"] == ""
    assert {row["measure"] for row in findings(result)} >= {"FCN < eFCN(0) < CNN"}
    forces = result.rows["tw-0"]["paths"]["string"]["residuals"]
    assert f"After 1 epoch the forces on the string are {100 * forces[1] / forces[0]:.1f} %" in page

    with pytest.raises(training.RunFolderError, match="--resume"):
        dascoli2019.run_switch_time(config, dataset)
    with pytest.raises(training.RunFolderError, match="seed: 0 there, 1 asked for"):
        dascoli2019.run_switch_time(config.replace(seed=1, resume=True), dataset)
    again = dascoli2019.run_switch_time(config.replace(resume=True), dataset)
    assert again.rows == result.rows and again.histories == result.histories


@pytest.mark.usefixtures("small_cnn")
def test_the_local_target_keeps_what_is_local(tmp_path):
    config = _config(tmp_path, target="local", num_points=0, shuffle=False)
    result = dascoli2019.run_switch_time(config, _dataset())
    assert result.histories["cnn"]["epoch"] == [0, 1, 2]
    assert result.rows["tw-0"]["off_local"] == 0 and result.rows["tw-0"]["broken_sharing"] > 0
    dascoli2019.write_switch_time_report(result)
    found = {row["measure"]: row["here"] for row in findings(result)}
    assert "LCN of switch time 0" in found and "standard LCN < LCN(0) < CNN" in found
    broken = max(result.rows[f"tw-{t}"]["broken_sharing"] for t in (0, 2))
    assert found["largest broken sharing of a trained LCN"] == f"{100 * broken:.2f} %"
    assert not any("δ" in measure for measure in found)


@pytest.mark.usefixtures("small_cnn")
def test_a_run_that_pauses_is_continued(tmp_path):
    config = _config(tmp_path, num_points=0, epochs=1, switch_times=(1,), embedded_epochs=1)
    dataset, folder = _dataset(), tmp_path / "run"
    # The CNN has one epoch; no other training begins, since all share one deadline.
    with pytest.raises(training.RunPausedError, match=r"^fcn is still to run.*--resume"):
        dascoli2019.run_switch_time(config.replace(max_minutes=1e-9), dataset)
    cnn = (folder / "cnn" / "history.csv").read_bytes()
    assert not (folder / "fcn").exists()
    result = dascoli2019.run_switch_time(config.replace(resume=True), dataset)
    assert (folder / "cnn" / "history.csv").read_bytes() == cnn
    assert set(result.rows) == {"fcn", "tw-1"}


@pytest.mark.parametrize(
    "other",
    [{}, {"filters": 32}, {"network": "alexnet"}, {"target": "local"}, {"target": "wide"},
     {"embedded_epochs": 50}, {"data": "cifar100"}, {"images": 10_000},
     {"source": "images in folder/cifar10"}],
)  # fmt: skip
def test_the_papers_figures_stand_beside_the_papers_own_run_only(other):
    is_papers = not other
    row = {
        "test_accuracy": 0.6, "off_local": 0.1, "broken_sharing": 0.1,
        "dataset": other.pop("data", "cifar10"), "num_train": other.pop("images", 50_000),
        "num_test": 10_000,
        "source": other.pop("source", "TensorFlow Datasets cifar10/3.0.2, splits train, test"),
    }  # fmt: skip
    config = dascoli2019.SwitchTimeConfig(switch_times=(0, 20), **other)
    rows = dict.fromkeys(("fcn", "tw-0", "tw-20", "tw-150"), row)
    found = findings(
        dascoli2019.SwitchTimeResult(config, {"cnn": {"test_accuracy": [0.7]}}, rows, None)
    )
    assert len(found) > 4
    assert all(("paper" in line) == is_papers for line in found)


def test_config():
    assert dascoli2019.SwitchTimeConfig().times[-1] == 150
    assert dascoli2019.SwitchTimeConfig(epochs=20, switch_times=(5, 0, 5)).times == (0, 5, 20)
    identity = dascoli2019.SwitchTimeConfig().identity()
    json.dumps(identity)
    how = {"run_dir", "resume", "checkpoint_every", "jobs", "ray", "verbose", "data_dir"}
    assert not identity.keys() & how
    for changes in (
        {"epochs": 0},
        {"switch_times": (151,)},
        {"jobs": 0},
        {"num_points": 2},
        {"num_points": -3},
        {"embedded_learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"num_train": 0},
        {"curvature_samples": -1},
        {"stiffness": -1.0},
        {"string_epochs": -1},
        {"string_learning_rate": 0.0},
        {"string_tolerance": -0.1},
    ):
        with pytest.raises(training.ConfigError, match=next(iter(changes))):
            dascoli2019.SwitchTimeConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "no/folder"}, "There is no folder 'no/folder'"),
        ({"num_train": 61}, "60 images. Received: num_train=61"),
        ({"batch_size": 61}, "60 training samples. Received: batch_size=61"),
        ({"filters": 16, "string_epochs": 0}, "MiB, and training takes .* --filters"),
        ({"curvature_samples": 10}, "Hessian's .* 30 times that; 1 MiB are left.*--target local"),
        ({"num_points": 31}, "the string .* 40 times"),
    ],
)
def test_what_can_not_be_run_is_refused_before_it_starts(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(protocol, "available_bytes", lambda: 2**20)
    if "dataset" not in changes:
        monkeypatch.setattr(data, "load", lambda *_, **__: _dataset())
    with pytest.raises(training.ConfigError, match=message):
        dascoli2019.run_switch_time(_config(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_landscape():
    dataset = _dataset()
    cnn = _small_cnn()
    config = TINY.replace(curvature_samples=20)
    found = measurements.landscape(cnn, dataset, config)
    assert found["gradient_norm"] > 0 and found["eigenvalue"] > 0
    for weight in cnn.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    # No unit of the convolution is on, and the head stays: no weight changes the loss.
    cnn.layers[1].bias.assign(np.full(2, -1.0))
    cnn.layers[-1].trainable = False
    assert measurements.landscape(cnn, dataset, config)["eigenvalue"] == 0.0


def test_weight_pictures():
    dataset = _dataset()
    cnn = protocol.build_cnn(TINY, dataset)
    for target in ("dense", "local", "wide"):
        model = embedding.embed(cnn, target)
        assert np.count_nonzero(measurements.first_layer_image(model)) == 48
        picture = measurements.weight_slice(model)
        assert picture.ndim == 2 and max(picture.shape) <= 200 and picture.any()


@pytest.mark.tensorflow
def test_recipe(tmp_path, capsys, monkeypatch):
    words = [*RECIPE_OPTIONS.split(), "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
    runpy.run_path(str(RECIPE), run_name="__main__")
    shown = capsys.readouterr().out
    assert "| eFCN, t_w = 1 |" in shown and "| FCN < eFCN(0) < CNN" not in shown
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(RECIPE), run_name="__main__")
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("small_cnn")
def test_a_switch_time_that_was_lost_is_missing_from_the_report(
    tmp_path, monkeypatch, report_without
):
    monkeypatch.setattr(task, "build_dataset", lambda config: _dataset())
    config = _config(tmp_path, switch_times=(0, 1))
    page = report_without(lambda: dascoli2019.report_switch_time(config), tmp_path / "run", "tw-1")
    assert "t_w = 0" in page and "t_w = 1" not in page and "<img" not in page
    seeds = config.replace(run_dir=str(tmp_path / "seeds"), num_seeds=2)
    with pytest.raises(training.MissingRunsError, match="2 of 8 runs are missing") as caught:
        dascoli2019.report_switch_time(seeds)
    assert list(caught.value.missing) == ["seed 0, tw-1", "seed 1, tw-1"]
    assert (tmp_path / "seeds" / "seed-1" / "report.html").exists()
