import dataclasses

import numpy as np
import pytest

from tfconvbias import data, training
from tfconvbias.studies.edge_of_stability import (
    StabilityImages,
    images,
    report_stability_images,
    run_stability_images,
)

CONFIG = StabilityImages(
    base_channels=1, num_train=96, num_test=20, label_noise=0.5, learning_rate=0.5, steps=4,
    warmup_steps=2, measure_every=2,
)  # fmt: skip


@pytest.fixture
def tiny_dataset():
    generator = np.random.default_rng(0)

    def split(num):
        y = np.arange(num) % 3
        x = generator.integers(0, 120, (num, 8, 8, 3)) + 60 * (y[:, None, None, None] == 1)
        return x.astype("uint8"), y

    return data.ImageDataset("tiny", *split(96), *split(24), *split(30), ("a", "b", "c"))


@pytest.fixture
def config(tiny_dataset, tmp_path, monkeypatch):
    def load(name, **_):
        return dataclasses.replace(tiny_dataset, name=name)

    monkeypatch.setattr(data, "load", load)
    # One network, for the time that compiling takes.
    monkeypatch.setattr(images, "CONNECTIVITIES", ("conv",))
    return CONFIG.replace(run_dir=str(tmp_path / "run"))


def test_a_network_is_measured_and_read_again(config, tmp_path, capsys):
    report_stability_images(config)
    out = capsys.readouterr().out
    rows = run_stability_images(config.replace(resume=True, data_dir="elsewhere"))
    (row,) = rows.values()
    history = row["history"]
    assert history["step"] == [0.0, 2.0, 4.0]
    assert history["edge"] == [float("inf"), pytest.approx(4.0), pytest.approx(4.0)]
    assert min(history["sharpness"]) > 0
    assert row["relative_sharpness"] == pytest.approx(
        sum(s / 4 for s in history["sharpness"][1:]) / 2
    )
    assert 0 <= row["memorized"] <= 1
    # Of 20 test images.
    assert 20 * row["test_accuracy"] == pytest.approx(round(20 * row["test_accuracy"]))
    assert "redrawn labels memorized" in out
    assert "conv: done before" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert {f.name for f in (tmp_path / "run" / "figures").iterdir()} == {
        "sharpness.png",
        "sharpness.pdf",
        "sharpness.svg",
    }
    assert page.count("<img") == 1
    for cell in (f"{100 * row['memorized']:.2f}", f"{row['relative_sharpness']:.3f}"):
        assert f"<td>{cell}</td>" in page
        assert cell in out.split("| conv ")[1]
    assert "<dt>label noise</dt><dd>0.5</dd>" in page
    with pytest.raises(training.RunFolderError, match="seed: 0 there, 1 asked for"):
        run_stability_images(config.replace(resume=True, seed=1))
    with pytest.raises(training.RunFolderError, match="already holds this comparison"):
        run_stability_images(config)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_stated_share_of_the_labels_is_drawn_anew(config, tiny_dataset, monkeypatch, share):
    seen = []

    def stop(model, x, y, *_, **__):
        seen.append((x, y))
        raise InterruptedError

    monkeypatch.setattr(images, "descend", stop)
    with pytest.raises(InterruptedError):
        run_stability_images(config.replace(label_noise=share))
    ((x, y),) = seen
    np.testing.assert_array_equal(x, tiny_dataset.x_train)
    assert (y.sum(axis=1) == 1).all()
    changed = np.sum(y.argmax(axis=1) != tiny_dataset.y_train)
    # Of 48 labels, each keeps its class with probability 1/3.
    assert changed == 0 if share == 0 else 20 <= changed <= 44


class _Knowing:
    """Stands for a network that knows every true label."""

    def __init__(self, dataset):
        self.dataset = dataset

    def predict(self, x, **_):
        images = self.dataset.x_train
        found = [int(np.flatnonzero((images == one).all(axis=(1, 2, 3)))[0]) for one in x]
        return np.eye(3)[self.dataset.y_train[found]]

    def count_params(self):
        return 1


def test_memorized_are_the_redrawn_labels_and_not_the_true_ones(config, tiny_dataset, monkeypatch):
    given = []

    def descend(model, x, y, *_, **__):
        given.append(y.argmax(axis=1))
        return {"loss": [1.0], "sharpness": [1.0], "edge": [2.0], "accuracy": [0.5]} | {
            "test_accuracy": [0.5]
        }

    monkeypatch.setattr(images, "descend", descend)
    monkeypatch.setattr(images, "_network", lambda *_: _Knowing(tiny_dataset))
    rows = run_stability_images(config.replace(label_noise=1.0))
    kept = np.mean(given[0] == tiny_dataset.y_train)
    assert 0.1 < kept < 0.6
    assert rows["conv"]["memorized"] == pytest.approx(kept)


def test_a_stopped_comparison_continues_with_the_networks_left(config, monkeypatch):
    trained = []

    def train(config, connectivity, dataset):
        if len(trained) == stop:
            raise InterruptedError
        trained.append(connectivity)
        columns = ("relative_sharpness", "accuracy", "memorized", "test_accuracy")
        return dict.fromkeys(columns, 1 / 3)

    monkeypatch.setattr(images, "CONNECTIVITIES", ("dense", "local", "conv"))
    monkeypatch.setattr(images, "_train", train)
    stop = 1
    with pytest.raises(InterruptedError):
        run_stability_images(config)
    stop = None
    with pytest.raises(training.RunPausedError, match="local is still to run"):
        run_stability_images(config.replace(resume=True, max_minutes=1e-9))
    rows = run_stability_images(config.replace(resume=True))
    assert trained == ["dense", "local", "conv"]
    assert rows["dense"] == rows["conv"]


def test_other_images_are_another_configuration(config, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "CONNECTIVITIES", ())
    run_stability_images(config)
    darker = dataclasses.replace(tiny_dataset, name="cifar10", x_train=tiny_dataset.x_train // 2)
    monkeypatch.setattr(data, "load", lambda name, **_: darker)
    with pytest.raises(training.RunFolderError, match=r"images: 'cifar10 [0-9a-f]+' there"):
        run_stability_images(config.replace(resume=True))


def test_what_cannot_be_loaded_leaves_no_folder(config, tmp_path):
    with pytest.raises(training.ConfigError, match="num_train=97"):
        run_stability_images(config.replace(num_train=97))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 5}, "measure_every=2, steps=5"),
        ({"label_noise": 1.5}, "label_noise=1.5"),
        ({"base_channels": 0}, "base_channels=0"),
        ({"num_test": 0}, "num_test=0"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    with pytest.raises(training.ConfigError, match=message):
        CONFIG.replace(**change)


def test_networks_that_were_lost_are_missing_from_the_report(
    config, tmp_path, monkeypatch, report_without
):
    row = {
        **dict.fromkeys(("relative_sharpness", "accuracy", "memorized", "test_accuracy"), 0.5),
        "parameters": 7,
        "history": {
            name: [0.0, 1.0]
            for name in ("step", "sharpness", "edge", "accuracy", "test_accuracy", "loss")
        },
        "environment": training.environment(),
    }
    monkeypatch.setattr(images, "CONNECTIVITIES", ("dense", "conv"))
    monkeypatch.setattr(images, "_train", lambda config, name, dataset: row)
    page = report_without(lambda: report_stability_images(config), tmp_path / "run", "dense")
    assert "<td>conv</td>" in page and "<td>dense</td>" not in page


@pytest.mark.slow
@pytest.mark.tensorflow
def test_processes_give_the_rows_of_one(tmp_path):
    config = CONFIG.replace(dataset="motifs10", num_train=40, steps=2, warmup_steps=1)
    alone, shared = (
        run_stability_images(config.replace(jobs=jobs, run_dir=str(tmp_path / str(jobs))))
        for jobs in (1, 2)
    )
    assert list(shared) == ["dense", "local", "conv"]
    for name, row in shared.items():
        for column in ("loss", "sharpness"):
            assert row[column] == pytest.approx(alone[name][column], rel=1e-3)
