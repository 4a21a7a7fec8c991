import dataclasses
import json
import runpy
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from tfconvbias.training.switch_time_report import findings, switch_time_table

from tfconvbias import data, embedding, training
from tfconvbias.training import checkpointed_fit as fitting

RECIPE = Path(__file__).parents[2] / "recipes" / "efcn_switch_time.py"
RECIPE_OPTIONS = (
    "--demo --filters 2 --num-train 60 --num-test 40 --epochs 1 --embedded-epochs 1 "
    "--switch-times 1 --curvature-samples 10 --num-points 0 --verbose silent"
)

TINY = training.SwitchTimeConfig(
    filters=2,
    epochs=2,
    embedded_epochs=2,
    switch_times=(0,),
    batch_size=20,
    learning_rate=0.05,
    curvature_samples=0,
    num_points=3,
    string_steps=1,
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
    monkeypatch.setattr(training.switch_time, "build_cnn", _small_cnn)


def _config(tmp_path, **changes):
    return dataclasses.replace(TINY, run_dir=str(tmp_path / "run"), **changes)


@pytest.mark.usefixtures("small_cnn")
def test_protocol_and_report(tmp_path, monkeypatch):
    config, dataset = _config(tmp_path), _dataset()

    def stop(*_):
        raise KeyboardInterrupt

    # Killed while the first embedded network is measured: its training isn't repeated.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.switch_time, "_paths", stop)
        training.run_switch_time(config, dataset)
    checkpoint = tmp_path / "run" / "tw-0" / "checkpoint-2.weights.h5"
    trained = checkpoint.stat().st_mtime_ns
    kept = [tmp_path / "run" / name for name in ("fcn/result.json", "tw-0/history.csv")]
    before = [file.read_bytes() for file in kept]
    with monkeypatch.context() as patch:
        patch.setattr(training.switch_time.Path, "unlink", lambda *_: None)
        result = training.run_switch_time(dataclasses.replace(config, resume=True), dataset)
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
    with np.load(result.folder / "tw-0" / "images.npz") as images:
        assert images["start"].shape == (28, 28, 3)
        assert np.count_nonzero(images["start"]) == 4 * 4 * 3
        assert np.count_nonzero(images["end"]) > 4 * 4 * 3
    page = training.write_switch_time_report(result).read_text(encoding="utf-8")
    figures = {f.stem for f in (result.folder / "figures").iterdir()}
    wanted = {"curves", "switch-time", "deviation", "masked", "filters", "weights"}
    assert figures == wanted | {"interpolation-0", "interpolation-2"}
    assert page.count("<img") == len(figures)
    table = switch_time_table(result)
    titles = ["CNN", "FCN", "eFCN, t_w = 0", "eFCN, t_w = 2"]
    assert [row["network"] for row in table] == titles
    losses = [float(loss) for loss in table[2]["train loss"].split(" → ")]
    assert losses == [round(result.histories["tw-0"]["loss"][i], 4) for i in (0, -1)]
    assert table[0]["δ, %"] == table[1]["‖∇L‖"] == ""
    assert {row["measure"] for row in findings(result)} >= {"FCN < eFCN(0) < CNN"}

    with pytest.raises(training.RunFolderError, match="--resume"):
        training.run_switch_time(config, dataset)
    with pytest.raises(training.RunFolderError, match="seed: 0 there, 1 asked for"):
        training.run_switch_time(dataclasses.replace(config, seed=1, resume=True), dataset)
    again = training.run_switch_time(dataclasses.replace(config, resume=True), dataset)
    assert again.rows == result.rows and again.histories == result.histories


@pytest.mark.usefixtures("small_cnn")
def test_workers_share_the_points_of_the_local_target(tmp_path, monkeypatch):
    config = _config(tmp_path, target="local", num_workers=2, num_points=0, shuffle=False)
    dataset = _dataset()

    def first_worker(_):
        """What the second one waits for: the folder, and then the CNN."""
        file = tmp_path / "run" / "config.json"
        if not file.exists():
            training.switch_time.write_json(file, config.identity())
            return
        assert training.run_switch_time(config, dataset) is None
        done = {p.parent.name for p in (tmp_path / "run").glob("*/result.json")}
        assert done == {"fcn", "tw-2"}

    clock = types.SimpleNamespace(sleep=first_worker, perf_counter=time.perf_counter)
    monkeypatch.setattr(training.switch_time, "time", clock)
    result = training.run_switch_time(dataclasses.replace(config, worker=1), dataset)
    assert result.histories["cnn"]["epoch"] == [0, 1, 2]
    assert result.rows["tw-0"]["off_local"] == 0 and result.rows["tw-0"]["broken_sharing"] > 0
    training.write_switch_time_report(result)
    found = {row["measure"]: row["here"] for row in findings(result)}
    assert "LCN of switch time 0" in found and "standard LCN < LCN(0) < CNN" in found
    broken = max(result.rows[f"tw-{t}"]["broken_sharing"] for t in (0, 2))
    assert found["largest broken sharing of a trained LCN"] == f"{broken:.2%}"
    assert not any("δ" in measure for measure in found)


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path):
    dataset = _dataset()
    options = {
        "batch_size": 20,
        "shuffle": True,
        "seed": 3,
        "checkpoint_every": 2,
        "verbose": "silent",
    }

    def model():
        keras.utils.set_random_seed(0)
        return _small_cnn()

    def momentum():
        return {"optimizer": keras.optimizers.SGD(0.02, momentum=0.9)}

    whole = model()
    expected = fitting.checkpointed_fit(
        whole, dataset, tmp_path / "a", epochs=4, **momentum(), **options
    )

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitting.checkpointed_fit(
            model(), dataset, tmp_path / "b", epochs=4, extra=[Stop()], **momentum(), **options
        )
    resumed = model()
    got = fitting.checkpointed_fit(
        resumed, dataset, tmp_path / "b", epochs=4, **momentum(), **options
    )
    assert got["epoch"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=1e-5)
    for first, second in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("epochs", [1, 2])
def test_divergence_is_told(tmp_path, epochs):
    # After one epoch the harm of the last step shows in the test loss alone.
    layers = [keras.Input((28, 28, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    options = TINY.fit_options() | {"optimizer": keras.optimizers.SGD(1e38), "batch_size": 60}
    with pytest.raises(training.TrainingDivergedError, match="loss of linear became NaN"):
        fitting.checkpointed_fit(
            keras.Sequential(layers), _dataset(), tmp_path / "linear", epochs=epochs, **options
        )


def test_config():
    assert training.SwitchTimeConfig().times[-1] == 150
    assert training.SwitchTimeConfig(epochs=20, switch_times=(5, 0, 5)).times == (0, 5, 20)
    json.dumps(training.SwitchTimeConfig().identity())
    for changes in (
        {"epochs": 0},
        {"switch_times": (151,)},
        {"worker": 1},
        {"num_points": 2},
        {"num_points": -3},
        {"embedded_learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"num_train": 0},
        {"curvature_samples": -1},
        {"stiffness": -1.0},
    ):
        with pytest.raises(training.ConfigError, match=next(iter(changes))):
            dataclasses.replace(training.SwitchTimeConfig(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "no/folder"}, "There is no folder 'no/folder'"),
        ({"num_train": 61}, "60 images. Received: num_train=61"),
        ({"filters": 16, "string_steps": 0}, "MiB, and training takes .* --filters"),
        ({"curvature_samples": 10}, "Hessian's .* 30 times that; 1 MiB are left.*--target local"),
        ({"num_points": 31}, "the string .* 40 times"),
    ],
)
def test_what_can_not_be_run_is_refused_before_it_starts(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(training.switch_time, "available_bytes", lambda: 2**20)
    dataset = None if "dataset" in changes else _dataset()
    with pytest.raises(training.ConfigError, match=message):
        training.run_switch_time(_config(tmp_path, **changes), dataset)
    assert not (tmp_path / "run").exists()


def test_landscape():
    dataset = _dataset()
    cnn = _small_cnn()
    config = dataclasses.replace(TINY, curvature_samples=20)
    found = training.switch_time._landscape(cnn, dataset, config)
    assert found["gradient_norm"] > 0 and found["eigenvalue"] > 0
    for weight in cnn.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    # No unit of the convolution is on, and the head stays: no weight changes the loss.
    cnn.layers[1].bias.assign(np.full(2, -1.0))
    cnn.layers[-1].trainable = False
    assert training.switch_time._landscape(cnn, dataset, config)["eigenvalue"] == 0.0


def test_weight_pictures():
    dataset = _dataset()
    cnn = training.switch_time.build_cnn(TINY, dataset)
    for target in ("dense", "local"):
        model = embedding.embed(cnn, target)
        assert np.count_nonzero(training.switch_time.first_layer_image(model)) == 48
        picture = training.switch_time.weight_slice(model)
        assert picture.ndim == 2 and max(picture.shape) <= 200 and picture.any()


@pytest.mark.tensorflow
def test_recipe(tmp_path, capsys):
    recipe = runpy.run_path(str(RECIPE), run_name="recipe")
    words = [*RECIPE_OPTIONS.split(), "--run-dir", str(tmp_path / "run")]
    options = {"description": recipe["__doc__"], "demo": recipe["DEMO"]}
    training.switch_time_recipe(argv=words, **options)
    shown = capsys.readouterr().out
    assert "| eFCN, t_w = 1 |" in shown and "| FCN < eFCN(0) < CNN" not in shown
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(SystemExit, match="1"):
        training.switch_time_recipe(argv=words, **options)
    assert "--resume" in capsys.readouterr().err
