"""Image folders that stay in their files: the same images, digest and statistics as in memory."""

import itertools
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tfconvbias.data import ImageFiles, ImageFolderError, StreamedDataset, load
from tfconvbias.data import streamed_dataset as module
from tfconvbias.data.image_files import ReadAhead


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of 12 training and 4 test images, 6×8."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "toys" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                file = tmp_path / "toys" / split / name / f"{index:02}.png"
                Image.fromarray(pixels).save(file)
    return tmp_path / "toys"


def cached(folder):
    return list((folder.parent / "cache" / "tfconvbias").glob("*"))


@pytest.mark.parametrize("options", [{}, {"image_size": (4, 5), "color_mode": "grayscale"}])
def test_streamed_images_are_those_in_memory(folder, options):
    resident = load(folder, validation_fraction=0.25, **options)
    streamed = load(folder, validation_fraction=0.25, stream="on", **options)
    assert isinstance(streamed, StreamedDataset)
    assert type(resident) is not StreamedDataset
    for split in ("train", "validation", "test"):
        (x, y), (files, labels) = resident.split(split), streamed.split(split)
        assert files.shape == x.shape
        np.testing.assert_array_equal(np.asarray(files), x)
        np.testing.assert_array_equal(labels, y)
    assert streamed.digest == resident.digest
    assert streamed.channel_statistics == resident.channel_statistics
    for one, other in (
        (streamed.limit(6, num_test=2, seed=3), resident.limit(6, num_test=2, seed=3)),
        (streamed.join_validation(), resident.join_validation()),
    ):
        np.testing.assert_array_equal(np.asarray(one.x_train), other.x_train)
        assert one.digest == other.digest


def test_parts_are_taken_without_being_read(folder, monkeypatch):
    files = load(folder, stream="on", validation_fraction=0).x_train
    x = load(folder, validation_fraction=0).x_train
    opened = []
    decode = module.ImageFiles._read
    monkeypatch.setattr(
        ImageFiles, "_read", lambda self, i, to: opened.append(i) or decode(self, i, to)
    )
    mask = np.arange(24) % 5 == 0
    parts = {"slice": slice(3, 7), "indices": np.array([5, 2, 2]), "mask": mask}
    found = {name: files[chosen] for name, chosen in parts.items()}
    assert not opened
    for name, chosen in parts.items():
        np.testing.assert_array_equal(np.asarray(found[name]), x[chosen])
    assert len(opened) == 4 + 3 + 5
    np.testing.assert_array_equal(files[-1], x[-1])


def test_all_images_are_read_once_for_digest_and_statistics(folder, monkeypatch):
    first = load(folder, stream="on")
    digest = first.digest
    (kept,) = cached(folder)
    reads = []
    read_all = StreamedDataset._read_all
    monkeypatch.setattr(
        StreamedDataset, "_read_all", lambda self: reads.append(1) or read_all(self)
    )
    again = load(folder, stream="on")
    assert again.digest == digest
    assert again.channel_statistics == first.channel_statistics
    assert not reads
    kept.write_text("{")
    assert load(folder, stream="on").digest == digest
    assert reads == [1]
    # The same pixels in a file of another time: read again, equal again.
    os.utime(folder / "train" / "cat" / "00.png", (1, 1))
    assert load(folder, stream="on").digest == digest
    assert reads == [1, 1]
    Image.new("RGB", (8, 6), "red").save(folder / "train" / "cat" / "00.png")
    assert load(folder, stream="on").digest != digest


def test_files_that_cannot_be_read_are_found_before_training(folder):
    for name in ("03", "07"):
        (folder / "train" / "dog" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(ImageFolderError) as caught:
        _ = load(folder, stream="on").digest
    lines = str(caught.value).splitlines()
    assert ["03.png" in lines[0], "07.png" in lines[1]] == [True, True]
    assert len(lines) == 2
    assert not cached(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
def test_a_file_that_changes_under_a_running_training_is_an_error(folder, tmp_path):
    files = load(folder, stream="on", validation_fraction=0).x_train
    paths = [folder / "train" / "cat" / f"{index:02}.png" for index in range(4)]
    paths[0].unlink()
    paths[1].unlink()
    os.mkfifo(paths[1])  # opening it would wait for ever
    Image.new("RGB", (8, 6)).save(paths[2])
    outside = tmp_path / "outside.png"
    paths[3].rename(outside)
    paths[3].symlink_to(outside)
    for index, message in enumerate(
        ["is there no more", "has changed since", "has changed since", "leads out of"]
    ):
        with pytest.raises(ImageFolderError, match=message):
            files[index]
    assert files[4].shape == (6, 8, 3)


def test_large_folders_are_streamed_by_themselves(folder, monkeypatch):
    needed = 32 * 6 * 8 * 3
    monkeypatch.setattr(module, "available_bytes", lambda: 4 * needed)
    assert type(load(folder, stream="auto")) is not StreamedDataset
    monkeypatch.setattr(module, "available_bytes", lambda: 4 * needed - 1)
    assert isinstance(load(folder, stream="auto"), StreamedDataset)
    assert type(load(folder)) is not StreamedDataset
    assert type(load("motifs10", stream="auto")) is not StreamedDataset


def test_what_does_not_stream(folder):
    with pytest.raises(ValueError, match=r"`stream` is for folders of images only\."):
        load("motifs10", stream="on")
    with pytest.raises(ValueError, match="`stream` must be one of 'off', 'auto', 'on'"):
        load(folder, stream="yes")
    arrays = {f"x_{split}": load(folder).split(split)[0] for split in ("train", "test")}
    streamed = vars(load(folder, stream="on"))
    with pytest.raises(ValueError, match="`x_train` of a StreamedDataset must be ImageFiles"):
        StreamedDataset(**{**streamed, **arrays})


def test_reading_ahead_keeps_the_order_and_stops():
    begun = []

    def read(number):
        begun.append(number)
        if number == 6:
            raise OSError("six")
        return number

    before = set(threading.enumerate())
    numbers = ReadAhead(read, itertools.count())
    assert [next(numbers) for _ in range(4)] == [0, 1, 2, 3]
    numbers.close()
    assert max(begun) <= 6
    assert not set(threading.enumerate()) - before
    with pytest.raises(OSError, match="six"):
        list(ReadAhead(read, range(5, 9)))
    assert list(ReadAhead(read, [])) == []


def test_the_next_parts_are_read_meanwhile():
    numbers = ReadAhead(lambda number: time.sleep(0.02) or number, range(6))
    next(numbers)
    time.sleep(0.1)
    started = time.perf_counter()
    assert next(numbers) == 1
    assert time.perf_counter() - started < 0.015
