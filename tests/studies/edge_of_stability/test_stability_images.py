import pytest

from tfconvbias import training

CONFIG = training.StabilityImages(
    base_channels=1, num_train=96, num_test=20, label_noise=0.5, learning_rate=0.5, steps=4,
    warmup_steps=2, measure_every=2,
)  # fmt: skip


@pytest.fixture
def config(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tfconvbias.training.stability_images.build_dataset", lambda config: tiny_dataset
    )
    # One network, for the time that compiling takes.
    monkeypatch.setattr("tfconvbias.training.stability_images.CONNECTIVITIES", ("conv",))
    return training.StabilityImages(**(vars(CONFIG) | {"run_dir": str(tmp_path)}))


def test_a_network_is_measured_and_read_again(config, tmp_path, capsys):
    rows = training.run_stability_images(config)
    (row,) = rows.values()
    history = row["history"]
    assert history["step"] == [2.0, 4.0]
    assert history["edge"] == pytest.approx([4.0, 4.0])
    assert min(history["sharpness"]) > 0
    assert row["relative_sharpness"] == pytest.approx(sum(s / 4 for s in history["sharpness"]) / 2)
    assert 0 <= row["memorized"] <= 1
    assert 0 <= row["test_accuracy"] <= 1
    assert (tmp_path / "sharpness.png").stat().st_size > 1000
    assert training.run_stability_images(config) == rows
    assert capsys.readouterr().out.count("redrawn labels memorized") == 2
    changed = training.StabilityImages(**(vars(config) | {"seed": 1}))
    with pytest.raises(training.ConfigError, match="another configuration"):
        training.run_stability_images(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 5}, "measure_every=2, steps=5"),
        ({"label_noise": 1.5}, "label_noise=1.5"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    with pytest.raises(training.ConfigError, match=message):
        training.StabilityImages(**(vars(CONFIG) | change))
