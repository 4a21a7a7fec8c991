"""Runs on images in files: the same history as in memory, on every backend."""

import dataclasses
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from tfconvbias import data, training

pytestmark = pytest.mark.backend


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The images of `tiny_dataset` would do, but for being in memory: 3 classes of 30 and 10."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("validation", 9), ("test", 10)):
        for label in range(3):
            place = tmp_path / "pictures" / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (8, 8, 3)) + 60 * (label == 1)
                Image.fromarray(pixels.astype("uint8")).save(place / f"{index}.png")
    return tmp_path / "pictures"


@pytest.fixture
def config(tiny_config, folder):
    return tiny_config.replace(dataset=str(folder), epochs=2)


def without_seconds(history):
    return {name: column for name, column in history.items() if "seconds" not in name}


def test_a_streamed_run_is_the_resident_run(config, tmp_path):
    resident = training.run(config.replace(stream="off"))
    streamed = training.run(config.replace(stream="on", run_dir=str(tmp_path / "streamed")))
    assert without_seconds(streamed.history) == without_seconds(resident.history)
    for name in ("test_accuracy", "test_loss", "best_epoch", "num_train", "dataset"):
        assert streamed.row[name] == resident.row[name]
    for one, other in zip(
        keras.saving.load_model(streamed.folder.last_model).weights,
        keras.saving.load_model(resident.folder.last_model).weights,
        strict=True,
    ):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )
    # No thread goes on reading, though TensorFlow keeps the generator of the batches.
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if "ThreadPool" in name]
    # It is the same run, so that either continues the other.
    assert streamed.folder.config() == resident.folder.config()


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_run_that_began_in_memory_goes_on_from_files(config, tmp_path):
    whole = training.run(config.replace(stream="off"))
    part = config.replace(run_dir=str(tmp_path / "part"), max_minutes=1e-6)
    with pytest.raises(training.RunPausedError):
        training.run(part.replace(stream="off"))
    rest = training.run(part.replace(stream="on", resume=True, max_minutes=None))
    assert without_seconds(rest.history) == without_seconds(whole.history)


@pytest.mark.tensorflow
def test_an_image_that_changes_during_training_ends_it_with_its_name(config, folder):
    dataset = training.build_dataset(config.replace(stream="on"))
    assert isinstance(dataset, data.StreamedDataset)
    _ = dataset.digest
    (folder / "train" / "class1" / "3.png").unlink()
    with pytest.raises(training.ConfigError, match=r"3\.png' is there no more"):
        training.run(config, dataset)


@pytest.mark.tensorflow
def test_a_broken_image_is_found_before_the_run_folder_is_made(config, folder):
    (folder / "train" / "class1" / "3.png").write_bytes(b"")
    with pytest.raises(training.ConfigError, match=r"3\.png' is corrupt"):
        training.run(config.replace(stream="on"))
    assert not training.RunFolder(config.run_dir).path.exists()


@pytest.mark.tensorflow
def test_streamed_images_are_not_held_on_the_device(config):
    with pytest.raises(training.ConfigError, match="device_epochs='on' holds the images"):
        training.run(config.replace(stream="on", device_epochs="on"))
    assert not training.RunFolder(config.run_dir).path.exists()


@pytest.mark.tensorflow
def test_only_runs_stream(folder):
    @dataclasses.dataclass(frozen=True)
    class Measured(training.DataConfig):
        pass

    assert isinstance(training.build_dataset(Measured(dataset=str(folder))).x_train, np.ndarray)


@pytest.mark.slow
@pytest.mark.skipif(keras.config.backend() == "torch", reason="no strategy spreads PyTorch")
def test_streams_reach_all_devices(config, tmp_path):
    strategy = {"tensorflow": "mirrored", "jax": "data_parallel"}[keras.config.backend()]
    # Dropout and augmentation draw other numbers on every replica under tf.distribute.
    config = config.replace(strategy=strategy, augment="none", dropout_rate=0.0, batch_size=24)
    resident = training.run(config.replace(stream="off"))
    streamed = training.run(config.replace(stream="on", run_dir=str(tmp_path / "streamed")))
    for name, column in without_seconds(resident.history).items():
        assert streamed.history[name] == pytest.approx(column, rel=1e-6), name
    assert streamed.row["test_loss"] == pytest.approx(resident.row["test_loss"], rel=1e-6)
