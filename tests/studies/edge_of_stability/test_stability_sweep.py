import dataclasses
import json

import pytest
from tfconvbias.training.stability_run import stored_run

from tfconvbias import training
from tfconvbias.training import stability_sweep

RUN = training.StabilityRun(
    "conv", 8, num_train=16, dimension=12, patch_size=3, steps=20, warmup_steps=5, num_test=30,
    measure_every=10,
)  # fmt: skip


def test_a_run_measures_itself_and_is_the_same_again():
    row = training.stability_row(RUN)
    assert row["history"]["step"] == [10.0, 20.0]
    assert {len(column) for column in row["history"].values()} == {2}
    # The warm-up is over: 2/η.
    assert row["edge"] == pytest.approx(5.0)
    assert row["gap"] == pytest.approx(abs(row["excess_risk"] + 1 - row["train_error"]))
    assert 0 < row["path_norm"] <= row["path_norm_bound"]
    assert row["config"] == dataclasses.asdict(RUN)
    again = training.stability_row(RUN)
    assert again["train_error"] == pytest.approx(row["train_error"], rel=1e-4)
    other = training.stability_row(dataclasses.replace(RUN, seed=1))
    assert other["train_error"] != pytest.approx(row["train_error"], rel=1e-2)


def test_gradient_descent_takes_the_stated_number_of_full_batch_steps():
    """Against plain NumPy for a network of one patch: same data, same steps."""
    import numpy as np

    from tfconvbias import data, models

    run = dataclasses.replace(RUN, connectivity="dense", patch_size=3, warmup_steps=5)
    row = training.stability_row(run)
    points = data.sphere_regression(16, 12, 3, num_test=30)
    x, y = points.x_train.astype("float64"), points.y_train.astype("float64")
    weights = models.TwoLayerReLU("dense", 12, 8, seed=0).get_weights()
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


def test_a_finished_run_is_read_and_an_unfinished_one_is_run_again(tmp_path, monkeypatch):
    first = stored_run(RUN, tmp_path)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text()) == first

    def fail(run):
        raise AssertionError("trained again")

    monkeypatch.setattr("tfconvbias.training.stability_run.stability_row", fail)
    assert stored_run(RUN, tmp_path) == first
    file.rename(tmp_path / f"unfinished-{file.name}")
    with pytest.raises(AssertionError, match="trained again"):
        stored_run(RUN, tmp_path)


def test_names_differ_for_every_field():
    names = {RUN.name}
    for field, value in (("noise", 0.5), ("steps", 40), ("seed", 3), ("teacher_width", 5)):
        names.add(dataclasses.replace(RUN, **{field: value}).name)
    assert len(names) == 5


def _row(connectivity="conv", num_train=256, patch_size=4, seed=0, **values):
    row = {"train_error": 0.0, "gap": 1.0, "relative_sharpness": 1.0, **values}
    config = {"connectivity": connectivity, "num_train": num_train, "patch_size": patch_size}
    history = {"path_norm": [1.0, 2.0], "path_norm_bound": [2.0, 3.0]}
    return row | {"config": config | {"seed": seed}, "history": history}


def _architectures(**conv):
    rows = [_row("dense", gap=1.9), _row("local", train_error=0.2, gap=2.0)]
    return {"architectures": [*rows, _row("conv", **({"train_error": 0.9, "gap": 0.5} | conv))]}


def _failed(rows):
    return [check.name for check in stability_sweep.check(rows) if not check.passed]


def test_criteria_pass_and_fail():
    assert _failed(_architectures()) == []
    assert _failed(_architectures(gap=1.0)) == ["gap, conv"]
    assert _failed(_architectures(train_error=0.5)) == ["training error, conv"]
    assert _failed(_architectures(relative_sharpness=0.8)) == ["λη/2, smallest of all runs"]
    rows = _architectures()
    rows["architectures"][0]["history"]["path_norm"][0] = 2.5
    assert len(_failed(rows)) == 1


def test_slopes_are_those_of_a_power_law():
    rows = [_row("conv", n, gap=3 * n**-0.5) for n in (64, 256, 1024)]
    rows += [_row("dense", n, gap=2.0) for n in (64, 256, 1024)]
    slopes = stability_sweep.gap_slopes(rows)
    assert slopes["conv"] == pytest.approx((-0.5, 0.0), abs=1e-6)
    assert _failed({"sizes": rows}) == []
    flat = [_row(c, n, gap=1.0) for c in ("conv", "dense") for n in (64, 256, 1024)]
    assert _failed({"sizes": flat}) == ["slope of log gap against log n, conv"]


def test_patch_sizes_are_judged_by_their_medians():
    rows = [
        _row(patch_size=m, seed=seed, train_error=1 / m, gap=gap + seed)
        for m, gap in ((1, -0.9), (8, 0.1), (40, 1.0))
        for seed in range(3)
    ]
    assert _failed({"patch_sizes": rows}) == []
    rows[0]["gap"] = rows[1]["gap"] = 2.0
    assert _failed({"patch_sizes": rows}) == ["gap, m = 1"]


def test_the_sweep_trains_reports_and_continues(tmp_path, capsys):
    sweep = training.StabilitySweep(
        experiments=("architectures", "patch_sizes"), seeds=1, num_train=16, steps=100,
        learning_rate=0.1,
        sweep_steps=100, warmup_steps=10, patch_sizes=(4, 20), run_dir=str(tmp_path),
    )  # fmt: skip
    rows, checks = training.run_stability(sweep)
    assert [len(found) for found in rows.values()] == [3, 2]
    out = capsys.readouterr().out
    assert sum(line.startswith(("pass", "FAIL")) for line in out.splitlines()) == len(checks)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert "training error, conv" in page
    assert {f.name for f in (tmp_path / "figures").iterdir()} == {
        "architectures.png",
        "patch_sizes.png",
    }
    again, _ = training.run_stability(sweep)
    assert again == rows


def test_runs_that_two_experiments_share_are_one():
    runs = training.StabilitySweep().runs()
    assert {name: len(found) for name, found in runs.items()} == {
        "architectures": 9,
        "controls": 12,
        "sizes": 30,
        "patch_sizes": 18,
    }
    assert len({run.name for found in runs.values() for run in found}) == 66


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 15}, "measure_every=10, steps=15"),
        ({"patch_size": 5}, "patch_size=5, dimension=12"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ],
)
def test_a_run_refuses_values_that_do_not_fit(change, message):
    with pytest.raises(training.ConfigError, match=message):
        dataclasses.replace(RUN, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"experiments": ("teachers",)},
        {"seeds": 0},
        {"sizes": (64,)},
        {"patch_size": 7},
        {"patch_sizes": (4, 7)},
    ],
)
def test_a_sweep_refuses_values_that_do_not_fit(change):
    with pytest.raises(training.ConfigError, match=next(iter(change)).rstrip("s")):
        training.StabilitySweep(**change)


def test_divergence_is_an_error():
    with pytest.raises(training.TrainingDivergedError, match="training error is"):
        training.stability_row(dataclasses.replace(RUN, learning_rate=1000.0, steps=100))


@pytest.mark.slow
def test_experiments_meet_their_criteria(tmp_path):
    _, checks = training.run_stability(training.StabilitySweep(run_dir=str(tmp_path)))
    assert [check for check in checks if not check.passed] == []
