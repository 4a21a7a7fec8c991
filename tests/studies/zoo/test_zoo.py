"""The zoo's members are what their names say, and what is published is what was trained."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfconvbias import data, models
from tfconvbias.models.preset_files import read_manifest
from tfconvbias.studies import zoo
from tfconvbias.studies.zoo.cards import TooLargeError
from tfconvbias.studies.zoo.train import epochs_of, path_to
from tfconvbias.training import ConfigError, RunConfig, RunFolder

SAVED = Path(__file__).parents[3] / "saved_models"


def test_members():
    for name, member in zoo.MEMBERS.items():
        assert name == member.name
        assert name.endswith(member.images)
        assert getattr(models, member.family)
        assert member.training.image_size == 16
        embedded = isinstance(member.training, zoo.EmbeddedRun)
        assert not embedded or zoo.MEMBERS[member.training.cnn].images == member.images
    works = [member.work for member in zoo.MEMBERS.values() if member.part is None]
    assert len(set(works)) == len(works)


def test_saved_models_are_the_members_and_their_readme_is_generated():
    cards = read_manifest(SAVED)
    names = {card.name for card in cards}
    assert names <= set(zoo.MEMBERS)
    # The images of these are always there.
    assert {name for name in zoo.MEMBERS if name.endswith("motifs10")} <= names
    assert zoo.readme(cards) == (SAVED / "README.md").read_text(encoding="utf-8")
    for card in cards:
        member = zoo.MEMBERS[card.name]
        assert card.family == member.family
        assert card.title == member.title
        # The card describes the training that the recipe would do today.
        trained = json.loads(json.dumps(member.training.identity()))
        assert trained.items() <= card.settings.items(), card.name


def test_the_trainings_that_lead_to_a_network_of_a_path():
    sweep = zoo.MEMBERS["resnet20_motifs10"].training.replace(
        alphas=(0.1, 0.2), epochs=10, sparse_epochs=3, fine_tune_epochs=1
    )
    found = {}
    for part in ("base", "alpha-0.1/tau-0", "alpha-0.2/tau-0"):
        member = zoo.Member("x", "", "StructuredBase", "motifs10", sweep, part=part)
        found[part] = (path_to(member, sweep), epochs_of(member, sweep))
    assert found == {
        "base": (["base"], 10),
        "alpha-0.1/tau-0": (["base", "alpha-0.1", "alpha-0.1/tau-0"], 14),
        "alpha-0.2/tau-0": (["base", "alpha-0.1", "alpha-0.2", "alpha-0.2/tau-0"], 17),
    }


def test_names_and_images_are_checked_before_anything_is_trained(tmp_path):
    config = zoo.ZooConfig(run_dir=str(tmp_path / "runs"), models_dir=str(tmp_path / "models"))
    with pytest.raises(ConfigError, match=r"no model 's_fc_sgd_motif10'.*mean s_fc_sgd_motifs10"):
        zoo.train_zoo(config.replace(only=("s_fc_sgd_motif10",)))
    with pytest.raises(ConfigError, match="s_fc_sgd_cifar10_jpeg needs --cifar10-jpeg FOLDER"):
        zoo.train_zoo(config.replace(only=("s_fc_sgd_cifar10_jpeg",)))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder as a training leaves it, with its model and images, without any training."""
    images = data.make_motifs(10, num_train=20, num_validation=10, num_test=30, seed=0)
    member = zoo.MEMBERS["s_conv_sgd_motifs10"]
    model = models.SConv(1, input_shape=(32, 32, 3), preprocessing=data.preprocessing(images))
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_environment(
        {"backend": "x", "hardware": "an abacus", "versions": {"keras": "3"}, "commit": None}
    )
    for epoch in (1, 2):
        folder.append_history({"epoch": epoch, "seconds": 1.5})
    folder.write_result({"train_accuracy": 0.25})
    start = RunFolder(tmp_path_factory.mktemp("start"))
    start.append_history({"epoch": 1, "seconds": 0.2})
    return zoo.Trained(member, model, folder, RunConfig(seed=7), 2, (start,)), images


def test_what_is_published_is_what_was_trained(finished, tmp_path):
    trained, images = finished
    card = zoo.publish(trained, images, tmp_path)
    file = tmp_path / "s_conv_sgd_motifs10.keras"
    assert card.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card.num_bytes == file.stat().st_size
    again = keras.saving.load_model(file)
    for old, new in zip(trained.model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    logits = trained.model.predict(images.x_test, verbose=0)
    accuracy = (logits.argmax(axis=-1) == images.y_test).mean()
    assert card.figures["test_accuracy"] == pytest.approx(accuracy, abs=5e-5)
    assert card.figures["train_accuracy"] == 0.25
    assert card.figures["parameters"] == sum(np.prod(w.shape) for w in trained.model.weights)
    assert (card.seconds, card.seed, card.epochs, card.hardware) == (3.2, 7, 2, "an abacus")
    assert card.input_shape == (32, 32, 3)
    assert read_manifest(tmp_path) == [card]


def test_publishing_again_replaces_one_entry_and_keeps_the_others(finished, tmp_path):
    trained, images = finished
    first = zoo.publish(trained, images, tmp_path)
    entry = {**json.loads((tmp_path / "manifest.json").read_text())[0], "name": "another"}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]), encoding="utf-8")
    zoo.publish(trained, images, tmp_path)
    assert [card.name for card in read_manifest(tmp_path)] == ["another", first.name]
    zoo.write_readme(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| `another` |" in text
    assert f"| `{first.name}` | {100 * first.figures['test_accuracy']:.2f} % |" in text


def test_a_large_file_is_refused_and_leaves_nothing(finished, tmp_path, monkeypatch):
    trained, images = finished
    monkeypatch.setattr("tfconvbias.studies.zoo.cards.MAX_BYTES", 1000)
    with pytest.raises(TooLargeError, match=r"s_conv_sgd_motifs10 has [\d,]+ bytes, more than 1,0"):
        zoo.publish(trained, images, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_members_of_each_kind_train_and_go_on(tmp_path):
    config = zoo.ZooConfig(
        only=("s_fc_beta_lasso_motifs10", "s_efcn_motifs10", "resnet20_motifs10"),
        num_train=256,
        num_test=100,
        epochs=1,
        run_dir=str(tmp_path / "runs"),
        models_dir=str(tmp_path / "models"),
        verbose="silent",
    )
    zoo.train_zoo(config)
    names = {card.name for card in read_manifest(tmp_path / "models")}
    assert names == set(config.only)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("last.keras")}
    zoo.train_zoo(config.replace(resume=True))
    # Nothing is trained twice.
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("last.k*")}
