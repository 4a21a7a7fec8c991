import dataclasses
import json

import numpy as np
import pytest

from tfconvbias.data import FastAutoAugment, ImageDataset
from tfconvbias.training import ConfigError, RunFolderError, RunPausedError
from tfconvbias.training.execution import stop_request
from tfconvbias.tuning import AugmentationSearchConfig, search_augmentation
from tfconvbias.tuning.fold_search import folds
from tfconvbias.tuning.judge import Judge
from tfconvbias.tuning.report import write_augmentation_report

TINY = {
    "family": "s",
    "base_channels": 1,
    "kernel_size": 3,
    "dataset": "bright",
    "batch_size": 16,
    "epochs": 2,
    "num_folds": 2,
    "num_rounds": 2,
    "num_candidates": 3,
    "num_kept": 2,
    "num_draws": 2,
    "verbose": "silent",
    "tensorboard": False,
}


def tiny_search(to, **changes):
    return AugmentationSearchConfig().replace(**{**TINY, "run_dir": str(to), **changes})


def read(file):
    return json.loads(file.read_text())


def test_the_defaults_are_the_papers():
    config = AugmentationSearchConfig()
    found = (config.num_folds, config.num_rounds, config.num_candidates, config.num_kept)
    assert found == (5, 2, 200, 10)
    assert (config.num_sub_policies, config.num_steps, config.num_draws) == (5, 2, 5)


def test_the_policy_joins_the_best_candidates_and_a_killed_search_finds_it_too(
    dataset, tmp_path, monkeypatch, capsys
):
    to = tmp_path / "search"
    config = tiny_search(to, verbose="line")
    file = search_augmentation(config, dataset)
    kept = read(to / "candidates.json")
    expected, rounds = [], []
    for fold in range(2):
        for number in range(2):
            rounds.append(read(to / f"fold-{fold}" / f"round-{number}.json"))
            rewards = np.array([found["reward"] for found in rounds[-1]])
            # Shares of a fold's 24 images.
            assert len(rewards) == 3
            np.testing.assert_array_equal(rewards * 24, np.rint(rewards * 24))
            expected += [rounds[-1][i] for i in np.argsort(-rewards, kind="stable")[:2]]
    assert rounds[0] != rounds[1]
    assert [found["reward"] for found in kept] == [found["reward"] for found in expected]
    for found, whole in zip(kept, expected, strict=True):
        pairs = [(first[0], second[0]) for first, second in found["policy"]]
        assert len(pairs) == len(set(pairs))
        assert {(a[0], b[0]) for a, b in whole["policy"]} == set(pairs)
        assert all(part in whole["policy"] for part in found["policy"])
    policy = read(file)
    assert policy == [part for found in kept for part in found["policy"]]
    assert 30 < len(policy) <= 2 * 2 * 2 * 5
    layer = FastAutoAugment(file, seed=0)
    assert layer(dataset.x_train, training=True).shape == dataset.x_train.shape
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("Fold 1, round 1: 3/3 candidates, best ") for line in lines) == 1
    assert any(line.startswith("Fold 0, round 0: 1/3") and " left" in line for line in lines)
    page = write_augmentation_report(config, file).read_text()
    assert f"{100 * max(found['reward'] for found in kept):.2f}" in page
    assert "12 candidates were judged" in page

    # As a kill within the last round leaves it.
    before = file.read_text()
    for name in ("policy.json", "candidates.json"):
        (to / name).unlink()
    (to / "fold-1" / "round-1.json").write_text(json.dumps(rounds[3][:1]))
    judged = []
    reward = Judge.reward
    monkeypatch.setattr(Judge, "reward", lambda *args: judged.append(1) or reward(*args))
    with pytest.raises(RunFolderError, match="--resume"):
        search_augmentation(config, dataset)
    with pytest.raises(RunFolderError, match="num_draws: 2 there, 3 asked for"):
        search_augmentation(config.replace(resume=True, num_draws=3), dataset)
    stop_request.set()
    try:
        with pytest.raises(RunPausedError, match="Fold 1, round 1, candidate 1, is still to run"):
            search_augmentation(config.replace(resume=True), dataset)
    finally:
        stop_request.clear()
    assert judged == []
    assert search_augmentation(config.replace(resume=True), dataset).read_text() == before
    assert len(judged) == 2


def test_folds_share_the_classes():
    labels = np.array([0] * 20 + [1] * 7)
    fold_of = folds(labels, 3, seed=1)
    for label, least in ((0, 6), (1, 2)):
        assert set(np.bincount(fold_of[labels == label])) <= {least, least + 1}
    assert (fold_of != folds(labels, 3, seed=2)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_folds": 1}, "num_folds=1"),
        ({"num_kept": 4}, "num_candidates=3"),
        ({"num_draws": 0}, "num_draws=0"),
        ({"num_sub_policies": 0}, "num_sub_policies=0"),
    ],
)
def test_bad_configurations(change, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationSearchConfig().replace(**{**TINY, **change})


def test_images_that_cannot_be_searched(dataset, tmp_path):
    with pytest.raises(ConfigError, match="in 2 folds leave 24 to train on"):
        search_augmentation(tiny_search(tmp_path / "search", batch_size=25), dataset)
    arrays = {
        f"x_{split}": dataset.split(split)[0][..., :1] for split in ("train", "validation", "test")
    }
    grey = ImageDataset(
        **{f.name: getattr(dataset, f.name) for f in dataclasses.fields(dataset)} | arrays
    )
    with pytest.raises(ConfigError, match="RGB"):
        search_augmentation(tiny_search(tmp_path / "search"), grey)
    assert not (tmp_path / "search").exists()
