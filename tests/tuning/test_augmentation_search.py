import dataclasses
import json

import keras
import numpy as np
import pytest

from tfconvbias.data import OPERATIONS, FastAutoAugment, ImageDataset
from tfconvbias.training import ConfigError
from tfconvbias.tuning import (
    AugmentationSearchConfig,
    augmentation_search,
    search_augmentation,
)
from tfconvbias.tuning.augmentation_search import _folds, _scores

TINY = {
    "family": "s",
    "base_channels": 1,
    "kernel_size": 3,
    "dataset": "bright",
    "batch_size": 16,
    "epochs": 2,
    "num_folds": 2,
    "num_candidates": 6,
    "num_rounds": 1,
    "num_kept": 2,
    "num_draws": 2,
    "verbose": "silent",
    "tensorboard": False,
}


def test_the_policy_is_one_that_the_layer_reads(dataset, tmp_path):
    config = AugmentationSearchConfig().replace(**TINY, run_dir=str(tmp_path / "search"))
    file = search_augmentation(config, dataset)
    layer = FastAutoAugment(file, seed=0)
    assert len(layer.policy) == 4
    assert all(len(part) == 2 for part in layer.policy)
    assert all(0.2 <= probability <= 1 for part in layer.policy for _, probability, _ in part)
    assert layer(dataset.x_train, training=True).shape == dataset.x_train.shape
    scores = json.loads((tmp_path / "search" / "scores.json").read_text())
    assert [entry["sub_policy"] for entry in scores] == json.loads(file.read_text())
    losses = [entry["score"] for entry in scores]
    assert losses[:2] == sorted(losses[:2])
    assert losses[2:] == sorted(losses[2:])


def test_candidates_come_near_the_best_and_the_seed_decides(dataset, tmp_path, monkeypatch):
    rounds = []

    def by_last_level(config, network, candidates, images, labels):
        rounds.append(candidates)
        return [part[-1][2] for part in candidates]

    monkeypatch.setattr(augmentation_search, "_scores", by_last_level)
    many = {**TINY, "num_candidates": 40, "num_rounds": 3, "run_dir": str(tmp_path / "search")}
    config = AugmentationSearchConfig().replace(**many)
    file = search_augmentation(config, dataset)
    first, second, third = rounds[:3]
    assert len(first) == len(second) == len(third) == 40
    means = [np.mean([part[-1][2] for part in candidates]) for candidates in (first, third)]
    assert 0.35 < means[0] < 0.65
    assert means[1] < 0.15
    assert {name for part in first for name, _, _ in part} == set(OPERATIONS)
    assert all(0.2 <= p <= 1 and 0 <= level <= 1 for part in third for _, p, level in part)
    # The networks are read from disk, and the same seed finds the same policy.
    before = file.read_text()
    file.unlink()
    search_augmentation(config.replace(resume=True), dataset)
    assert file.read_text() == before
    # Judging is patched, so that networks of its own would change nothing.
    monkeypatch.setattr(
        augmentation_search, "_judge", lambda *a: (None, dataset.x_train, dataset.y_train)
    )
    other = config.replace(seed=1, run_dir=str(tmp_path / "other"))
    assert search_augmentation(other, dataset).read_text() != before


def test_folds_share_the_classes():
    labels = np.array([0] * 20 + [1] * 7)
    fold_of = _folds(labels, 3, seed=1)
    for label, least in ((0, 6), (1, 2)):
        assert set(np.bincount(fold_of[labels == label])) <= {least, least + 1}
    assert (fold_of != _folds(labels, 3, seed=2)).any()


@pytest.fixture
def network():
    """Logits ±(mean − 119) / 20: the brighter, the more it is class 1."""
    network = keras.Sequential(
        [
            keras.Input((6, 6, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 20, offset=-119 / 20),
            keras.layers.Flatten(),
            keras.layers.Dense(2, use_bias=False, name="logits"),
        ]
    )
    weights = np.tile(np.array([-1.0, 1.0], "float32") / 108, (108, 1))
    network.get_layer("logits").set_weights([weights])
    return network


def test_what_hides_the_class_scores_worse(dataset, network):
    config = AugmentationSearchConfig().replace(**TINY)
    candidates = [
        [["Posterize", 1.0, 1.0], ["Posterize", 1.0, 1.0]],
        [["Brightness", 1.0, 0.0], ["Posterize", 1.0, 1.0]],
        [["Invert", 1.0, 0.0], ["Posterize", 1.0, 1.0]],
    ]
    untouched, dark, inverted = _scores(
        config, network, candidates, dataset.x_train, dataset.y_train
    )
    assert untouched < 0.6 < dark
    assert untouched < inverted
    logits = network.predict(dataset.x_train, verbose=0)
    loss = keras.losses.sparse_categorical_crossentropy(dataset.y_train, logits, from_logits=True)
    assert untouched == pytest.approx(float(keras.ops.mean(loss)), rel=1e-4)


def test_the_smallest_loss_of_all_draws_counts(dataset, network):
    # Every other draw is ten times darker; of 16 draws of an image some are dark, some are not.
    config = AugmentationSearchConfig().replace(**{**TINY, "num_draws": 16})
    (score,) = _scores(
        config, network, [[["Brightness", 0.5, 0.0]]], dataset.x_train, dataset.y_train
    )
    losses = []
    for pixels in (dataset.x_train, np.floor(dataset.x_train * 0.1)):
        margin = (pixels.mean(axis=(1, 2, 3)) - 119) / 20 * np.where(dataset.y_train, 2, -2)
        losses.append(np.log1p(np.exp(-margin)))
    assert score == pytest.approx(np.minimum(*losses).mean(), rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_folds": 1}, "num_folds=1"),
        ({"num_kept": 7}, "num_candidates=6"),
        ({"num_draws": 0}, "num_draws=0"),
        ({"min_probability": 1.5}, "min_probability=1.5"),
    ],
)
def test_bad_configurations(change, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationSearchConfig().replace(**{**TINY, **change})


def test_grey_images_have_no_policy(dataset):
    arrays = {
        f"x_{split}": dataset.split(split)[0][..., :1] for split in ("train", "validation", "test")
    }
    grey = ImageDataset(
        **{f.name: getattr(dataset, f.name) for f in dataclasses.fields(dataset)} | arrays
    )
    with pytest.raises(ConfigError, match="RGB"):
        search_augmentation(AugmentationSearchConfig().replace(**TINY), grey)
