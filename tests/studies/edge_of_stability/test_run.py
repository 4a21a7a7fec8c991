import dataclasses
import json

import numpy as np
import pytest

from tfconvbias import data, models, training
from tfconvbias.studies.edge_of_stability import StabilityRun, stability_row
from tfconvbias.studies.edge_of_stability.stored_rows import stored_row

RUN = StabilityRun(
    connectivity="conv", width=8, num_train=16, dimension=12, patch_size=3, steps=20,
    warmup_steps=5, num_test=30, measure_every=10,
)  # fmt: skip


def test_a_run_measures_itself_and_is_the_same_again():
    row = stability_row(RUN)
    assert row["history"]["step"] == [0.0, 10.0, 20.0]
    assert {len(column) for column in row["history"].values()} == {3}
    # Steps 0 to 4 take 0, ⅕, … of η = 0.4; the first measurement is that of the initial weights.
    assert row["history"]["time"] == pytest.approx([0, 0.4 * (2 + 5), 0.4 * (2 + 15)])
    assert row["history"]["edge"][0] == float("inf")
    points = data.sphere_regression(16, 12, 3, num_test=30)
    model = models.TwoLayerReLU(8, connectivity="conv", dimension=12, patch_size=3, seed=0)
    error = np.mean((model.predict(points.x_train, verbose=0) - points.y_train) ** 2)
    assert row["history"]["train_error"][0] == pytest.approx(error, rel=1e-5)
    kernel, bias, outgoing, _ = model.get_weights()
    active = (points.x_train.reshape(-1, 3) @ kernel + bias > 0).mean(axis=0)
    np.testing.assert_allclose(row["units"]["start"]["activation_rate"], active)
    norms = np.sqrt((kernel**2).sum(axis=0)) * np.abs(outgoing[:, 0])
    np.testing.assert_allclose(row["units"]["start"]["path_norm"], norms, rtol=1e-5)
    assert not np.allclose(row["units"]["end"]["path_norm"], norms, rtol=1e-3)
    # The warm-up is over: 2/η.
    assert row["edge"] == pytest.approx(5.0)
    assert row["gap"] == pytest.approx(abs(row["excess_risk"] + 1 - row["train_error"]))
    assert 0 < row["path_norm"] <= row["path_norm_bound"]
    # The upper one of the two in the middle.
    assert row["relative_sharpness"] == pytest.approx(max(row["history"]["sharpness"][1:]) / 5)
    assert row["config"] == dataclasses.asdict(RUN)
    again = stability_row(RUN)
    assert again["train_error"] == pytest.approx(row["train_error"], rel=1e-4)
    other = stability_row(dataclasses.replace(RUN, seed=1, noise=0.5))
    # σ = ½ in the data and σ² = ¼ in the gap.
    assert other["gap"] == pytest.approx(abs(other["excess_risk"] + 0.25 - other["train_error"]))
    assert other["train_error"] != pytest.approx(row["train_error"], rel=1e-2)


@pytest.mark.parametrize("connectivity", ["local", "conv"])
def test_a_network_over_patches_takes_the_views_of_its_teacher(connectivity, monkeypatch):
    """With identical views nothing but the first patch can matter."""
    seen = {}

    def stop(model, x, y, config, watchers):
        seen["x"] = x
        raise InterruptedError

    monkeypatch.setattr("tfconvbias.studies.edge_of_stability.run.descend", stop)
    with pytest.raises(InterruptedError):
        stability_row(RUN.replace(connectivity=connectivity, views="identical"))
    points = data.sphere_regression(16, 12, 3, num_test=30, views="identical")
    np.testing.assert_array_equal(seen["x"], np.tile(points.x_train[:, :3], 4))
    with pytest.raises(InterruptedError):
        stability_row(RUN.replace(connectivity="dense", views="identical"))
    np.testing.assert_array_equal(seen["x"], points.x_train)


def test_the_row_takes_the_last_ten_ratios_and_the_gap_at_half_of_the_time(monkeypatch):
    """Of a history that is given: 20 measurements after the first one, the last at ηt = 10."""
    history = {
        "step": [float(i) for i in range(21)],
        "time": [i / 2 for i in range(21)],
        "sharpness": [100.0] * 11 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
        "edge": [float("inf")] + [2.0] * 20,
        "gap": [float(i) for i in range(21)],
        "train_error": [1.0] * 21,
    }
    monkeypatch.setattr(
        "tfconvbias.studies.edge_of_stability.run.descend", lambda *_, **__: history
    )
    row = stability_row(RUN)
    assert row["relative_sharpness"] == 3
    assert row["gap_at_half_time"] == 10
    assert row["gap"] == 20


def test_gradient_descent_takes_the_stated_number_of_full_batch_steps():
    """Against plain NumPy for a network of one patch: same data, same steps."""
    run = dataclasses.replace(RUN, connectivity="dense", patch_size=3, warmup_steps=5)
    row = stability_row(run)
    points = data.sphere_regression(16, 12, 3, num_test=30)
    x, y = points.x_train.astype("float64"), points.y_train.astype("float64")
    weights = models.TwoLayerReLU(8, connectivity="dense", dimension=12, seed=0).get_weights()
    w, b, v, c = (weight.astype("float64") for weight in weights)
    for step in range(20):
        rate = 0.4 * min(step / 5, 1)
        z = x @ w + b
        error = (np.maximum(z, 0) @ v + c - y) / 16
        back = (error @ v.T) * (z > 0)
        v, c = v - rate * np.maximum(z, 0).T @ error, c - rate * error.sum(axis=0)
        w, b = w - rate * x.T @ back, b - rate * back.sum(axis=0)
    expected = np.mean((np.maximum(x @ w + b, 0) @ v + c - y) ** 2)
    assert row["train_error"] == pytest.approx(expected, rel=1e-3)


def test_a_finished_row_is_read_and_an_unfinished_one_is_made_again(tmp_path):
    folder, deadline = training.RunFolder(tmp_path), training.Deadline(None)
    row = {"config": {"seed": 0}, "gap": 0.1 + 0.2}
    assert stored_row(folder, "first", lambda: row, deadline) == row
    (file,) = (tmp_path / "rows").iterdir()
    stored = json.loads(file.read_text())
    assert stored.pop("seal")["work"] == "first"
    assert stored == row

    def fail():
        raise ArithmeticError("made again")

    assert stored_row(folder, "first", fail, deadline) == row
    file.rename(file.with_name(f"unfinished-{file.name}"))
    with pytest.raises(ArithmeticError, match="made again"):
        stored_row(folder, "first", fail, deadline)


def test_names_differ_for_every_field():
    names = {RUN.name}
    for field, value in (("noise", 0.5), ("steps", 40), ("seed", 3), ("teacher_width", 5)):
        names.add(dataclasses.replace(RUN, **{field: value}).name)
    assert len(names) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 15}, "measure_every=10, steps=15"),
        ({"patch_size": 5}, "patch_size=5, dimension=12"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"warmup_steps": 0}, "warmup_steps=0"),
        ({"connectivity": "fc"}, "connectivity='fc'"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    with pytest.raises(training.ConfigError, match=message):
        dataclasses.replace(RUN, **change)


def test_divergence_is_an_error():
    with pytest.raises(training.TrainingDivergedError, match="training error is"):
        stability_row(dataclasses.replace(RUN, learning_rate=1000.0, steps=100))
