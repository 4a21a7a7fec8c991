import dataclasses

import numpy as np
import pytest

from tfconvbias import data, training
from tfconvbias.studies.edge_of_stability import (
    ImageRegression,
    image_views,
    regression_points,
    report_image_regression,
    run_image_regression,
)

MODULE = "tfconvbias.studies.edge_of_stability.image_regression"
CONFIG = ImageRegression(
    num_train=24, num_test=20, num_standardize=24, strides=2, steps=20, warmup_steps=5,
    measure_every=10, dense_width=8, local_width=2, conv_width=4, num_seeds=1,
)  # fmt: skip


@pytest.fixture
def tiny_dataset():
    generator = np.random.default_rng(0)

    def split(num):
        return generator.integers(0, 256, (num, 6, 7, 3)).astype("uint8"), np.arange(num) % 3

    return data.ImageDataset("tiny", *split(24), *split(24), *split(20), ("a", "b", "c"))


@pytest.fixture
def config(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        data, "load", lambda name, **_: dataclasses.replace(tiny_dataset, name=name)
    )
    # One network, for the time that compiling takes.
    monkeypatch.setattr(f"{MODULE}.CONNECTIVITIES", ("local",))
    return CONFIG.replace(run_dir=str(tmp_path / "run"))


def test_views_of_an_image_are_its_overlapping_patches():
    image = np.arange(6 * 7 * 3).reshape(6, 7, 3)
    expected = [
        image[row : row + 3, column : column + 3].ravel()
        for row in range(0, 4, 2)
        for column in range(0, 5, 2)
    ]
    np.testing.assert_array_equal(image_views((6, 7, 3), 3, 2), expected)
    assert image_views((32, 32, 3), 3).shape == (900, 27)


def test_images_become_points_of_the_radius_and_targets_those_of_the_teacher(tiny_dataset):
    found = regression_points(CONFIG.replace(radius=5.0, noise=0.0), tiny_dataset, 0)
    assert abs(found.x_train.mean()) < 1e-5
    assert np.mean(np.sum(found.x_train**2, axis=1)) == pytest.approx(25, rel=1e-4)
    # One linear map for all images: what is brighter stays brighter.
    raw = tiny_dataset.x_test.reshape(20, -1).astype("float64")
    slope, _ = np.polyfit(raw.ravel(), found.x_test.ravel(), 1)
    np.testing.assert_allclose(np.diff(found.x_test), slope * np.diff(raw), atol=1e-4)
    teacher = found.teacher
    images = found.x_test.reshape(20, 6, 7, 3).astype("float64")
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))[:, ::2, ::2]
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(20, 6, 27)
    hidden = np.maximum(patches @ teacher.kernel - teacher.thresholds, 0).mean(axis=1)
    expected = (hidden @ teacher.outgoing + teacher.offset) / teacher.scale
    np.testing.assert_allclose(found.y_test[:, 0], expected, rtol=1e-4, atol=1e-5)
    noisy = regression_points(CONFIG.replace(radius=5.0, noise=2.0), tiny_dataset, 0)
    np.testing.assert_array_equal(noisy.y_test, found.y_test)
    assert 1.3 < np.std(noisy.y_train - found.y_train) < 2.8
    other = regression_points(CONFIG, tiny_dataset, 1)
    assert not np.allclose(other.teacher.kernel, teacher.kernel)
    # By default patches have a mean squared norm of about 1.
    norms = np.sum(other.x_train[:, other.teacher.views] ** 2, axis=2)
    assert norms.mean() == pytest.approx(1, rel=0.1)


def test_a_network_is_measured_and_read_again(config, tmp_path, capsys):
    report_image_regression(config)
    out = capsys.readouterr().out
    rows = run_image_regression(config.replace(resume=True))
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3
    (row,) = rows["local"]
    # Two filters at each of 2 × 3 positions.
    assert len(row["units"]["end"]["path_norm"]) == 12
    assert row["gap"] == pytest.approx(abs(row["excess_risk"] + 1 - row["train_error"]))
    assert 0 < row["path_norm"] <= row["path_norm_bound"]
    assert row["edge"] == pytest.approx(5)
    assert f"{row['gap']:.3f}" in page
    assert f"local-seed0: training error {row['train_error']:.3f}" in out
    with pytest.raises(training.RunFolderError, match=r"noise: 1\.0 there, 0\.5 asked for"):
        run_image_regression(config.replace(resume=True, noise=0.5))


def test_every_network_runs_with_every_seed(config, monkeypatch):
    made = []

    def row(points, connectivity, width, descent, seed, name):
        made.append((connectivity, width, seed))
        columns = ("train_error", "excess_risk", "gap", "relative_sharpness", "seconds")
        return dict.fromkeys(columns, 0.5)

    monkeypatch.setattr(f"{MODULE}.regression_row", row)
    monkeypatch.setattr(f"{MODULE}.CONNECTIVITIES", ("dense", "local", "conv"))
    config = config.replace(seed=3, num_seeds=2)
    assert [len(found) for found in run_image_regression(config).values()] == [2, 2, 2]
    networks = [("dense", 8), ("local", 2), ("conv", 4)]
    assert made == [(*network, seed) for seed in (3, 4) for network in networks]
    run_image_regression(config.replace(resume=True, num_seeds=3))
    assert len(made) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 7}, r"patch_size=7, images of \(6, 7, 3\)"),
        ({"strides": 0}, "strides=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"radius": 0.0}, "radius=0.0"),
        ({"local_width": 0}, "local_width=0"),
    ],
)
def test_values_that_do_not_fit_are_refused(config, change, message, tmp_path):
    with pytest.raises(training.ConfigError, match=message):
        run_image_regression(config.replace(**change))
    assert not (tmp_path / "run").exists()
