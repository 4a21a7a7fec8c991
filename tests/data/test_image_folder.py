import os
import re

import numpy as np
import pytest
from PIL import Image

from tfconvbias.data import ImageFolderError, load
from tfconvbias.data import image_folder as module

SIZE = (6, 8)


def save(path, seed, size=SIZE, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = size if mode in ("L", "P", "I;16") else (*size, len(mode))
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels.astype(np.uint16)) if mode == "I;16" else None
    if mode == "P":
        image = Image.fromarray(pixels).convert("P")
    (image or Image.fromarray(pixels, mode=None)).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Two classes, 10 training and 3 test images each, PNG so that pixels are exact."""
    for label, name in enumerate(("cat", "dog")):
        for index in range(10):
            save(tmp_path / "toys" / "train" / name / f"{index}.png", 100 * label + index)
        for index in range(3):
            save(tmp_path / "toys" / "test" / name / f"{index}.png", 1000 + 100 * label + index)
    return tmp_path / "toys"


def test_pixels_labels_and_order(folder):
    data = load(folder, validation_fraction=0)
    assert data.name == "toys"
    assert data.class_names == ("cat", "dog")
    assert data.source == f"images in {folder}"
    assert data.y_train.tolist() == [0] * 10 + [1] * 10
    assert data.y_train.dtype == np.int32
    assert data.x_validation.shape == (0, *SIZE, 3)
    rng = np.random.default_rng(103)
    assert (data.x_train[13] == rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).all()
    assert load(str(folder), validation_fraction=0).y_test.tolist() == [0, 0, 0, 1, 1, 1]


def test_formats_and_hidden_files(folder):
    for name in ("a.jpg", "b.JPEG", "c.gif", "d.bmp", "d.tiff", "e.webp"):
        save(folder / "train" / "cat" / name, 5)
    (folder / "train" / "cat" / ".DS_Store").write_text("hidden")
    (folder / "train" / ".cache").mkdir()
    # A PNG by another name is read all the same.
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "0.jpg")
    assert len(load(folder, validation_fraction=0, color_mode="rgb").x_train) == 26


def test_own_validation_folder_wins_over_the_fraction(folder):
    for name in ("cat", "dog"):
        save(folder / "validation" / name / "0.png", 7)
    data = load(folder)
    assert len(data.x_train) == 20
    assert data.y_validation.tolist() == [0, 1]


def test_resize_and_color_mode(folder):
    data = load(folder, image_size=(4, 4), color_mode="grayscale")
    assert data.image_shape == (4, 4, 1)
    save(folder / "train" / "cat" / "wide.png", 1, size=(9, 30))
    assert load(folder, image_size=SIZE).image_shape == (*SIZE, 3)
    for mode in ("L", "RGBA", "P"):
        save(folder / "train" / "cat" / f"{mode}.png", 1, mode=mode)
    grey = load(folder, image_size=SIZE, color_mode="rgb", validation_fraction=0).x_train[10]
    pixels = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)
    assert (grey == pixels[..., None]).all()


def broken(folder, **arguments):
    with pytest.raises(ImageFolderError) as caught:
        load(folder, **arguments)
    return str(caught.value)


def test_missing_folders(folder):
    (folder / "test").rename(folder / "tests")
    assert broken(folder) == (
        f"'{folder}' has no folder 'test', but tests, train. A folder of images holds "
        "train/<class>/* and, where they are apart, test/<class>/* and validation/<class>/*; or "
        "just <class>/*."
    )
    (folder / "train").rename(folder / "training")
    assert "has no folder 'train', but tests, training." in broken(folder)
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    assert broken(folder) == f"'{folder / 'train'}' holds no class folder."
    (folder / "empty").mkdir()
    assert "'train'" in broken(folder / "empty")


def test_a_folder_without_test_images_gives_some_of_its_training_images(folder):
    whole = load(folder, validation_fraction=0)
    (folder / "test").rename(folder.parent / "away")
    data = load(folder, test_fraction=0.3, validation_fraction=0.1)
    # Of each class: 3 of 10, then round(0.1 * 7).
    assert data.y_test.tolist() == [0] * 3 + [1] * 3
    assert data.y_validation.tolist() == [0, 1]
    assert data.source == f"images in {folder}, 0.3 of each class drawn as test images"
    parts = np.concatenate([data.x_train, data.x_validation, data.x_test])
    assert sorted(image.tobytes() for image in parts) == sorted(i.tobytes() for i in whole.x_train)
    assert len(load(folder, test_fraction=0).x_test) == 0
    with pytest.raises(ValueError, match=r"of which test_fraction=0\.99 would leave none"):
        load(folder, test_fraction=0.99)
    with pytest.raises(ValueError, match=re.escape("`test_fraction` must lie in [0, 1).")):
        load(folder, test_fraction=1.0)


def test_classes_may_stand_alone(folder):
    split = load(folder, validation_fraction=0)
    flat = folder / "train"
    (flat / "dog").rename(flat / "train")
    data = load(flat, test_fraction=0, validation_fraction=0)
    assert data.class_names == ("cat", "train")
    assert (data.x_train == split.x_train).all()
    assert len(load(flat).x_test) == 2
    save(flat / "stray.png", 1)
    assert "must hold one folder per class, but holds the file(s) stray.png." in broken(flat)


@pytest.mark.parametrize("name", ["val", "valid"])
def test_other_names_of_the_validation_folder(name, folder):
    for label in ("cat", "dog"):
        save(folder / name / label / "0.png", 7)
    assert load(folder).y_validation.tolist() == [0, 1]
    (folder / "validation").mkdir()
    assert f"one folder of validation images, but holds validation, {name}." in broken(folder)


def test_empty_class_folder(folder):
    for file in (folder / "test" / "dog").iterdir():
        file.unlink()
    assert broken(folder) == f"The class folder '{folder / 'test' / 'dog'}' is empty."


def test_splits_with_different_classes(folder):
    (folder / "test" / "dog").rename(folder / "test" / "dogs")
    assert broken(folder) == (
        f"The class folders of train and test in '{folder}' differ: train has no dogs; "
        "test has no dog."
    )
    (folder / "test" / "dogs").rename(folder / "test" / "dog")
    save(folder / "validation" / "cat" / "0.png", 1)
    assert "of train and validation" in broken(folder)
    assert broken(folder).endswith("differ: validation has no dog.")


def test_class_count(folder):
    assert load(folder, classes=2).num_classes == 2
    assert broken(folder, classes=10) == (
        f"Expected 10 classes, but '{folder / 'train'}' has 2 class folders: cat, dog."
    )


def test_files_that_are_no_images(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    (folder / "train" / "cat" / "README").write_text("no image")
    assert broken(folder) == (
        f"The class folder '{folder / 'train' / 'cat'}' holds 2 file(s) that are not images: "
        "README, notes.txt. Known are .jpg, .jpeg, .png, .bmp, .gif, .webp, .tif, .tiff."
    )


@pytest.mark.parametrize("extension", ["eps", "ps", "pdf", "ppm"])
def test_formats_that_are_not_known_are_not_decoded(extension, folder):
    file = folder / "train" / "cat" / f"a.{extension}"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n")
    assert "not images" in broken(folder)
    # Nor by another name.
    file.rename(file.with_suffix(".png"))
    assert "Unidentified" in broken(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(folder):
    os.mkfifo(folder / "train" / "cat" / "0.jpg")
    assert "is neither a file nor a folder" in broken(folder)


@pytest.mark.parametrize("place", ["train/cat/link.png", "train/link", "test"])
def test_links_must_stay_inside(place, folder, tmp_path):
    outside = tmp_path / "elsewhere"
    save(outside / "cat" / "0.png", 1)
    link = folder / place
    if place == "test":
        (folder / "test").rename(tmp_path / "moved")
        outside = tmp_path / "moved"
    link.symlink_to(outside / "cat" / "0.png" if link.suffix else outside)
    assert "is a link that leads out of" in broken(folder)


def test_a_link_inside_the_folder_is_followed(folder):
    (folder / "train" / "cat" / "again.png").symlink_to(folder / "train" / "dog" / "0.png")
    assert len(load(folder, validation_fraction=0).x_train) == 21


def test_images_that_cannot_fit_are_refused_before_memory_is_taken(folder, monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda: 26 * 6 * 8 * 3 - 1)
    assert broken(folder) == (
        "26 images of 6×8×3 (height×width×channels) take 3.656 KiB, but 3.655 KiB of memory are "
        "left. Make them smaller, or take fewer."
    )


def test_a_small_file_with_too_many_pixels_is_refused(folder):
    Image.new("RGB", (2**13 + 8, 2**13)).save(folder / "train" / "cat" / "0.png")
    assert "8192×8200 pixels" in broken(folder)


def test_misplaced_files_and_folders(folder):
    save(folder / "train" / "stray.png", 1)
    assert "must hold one folder per class, but holds the file(s) stray.png." in broken(folder)
    (folder / "train" / "stray.png").unlink()
    (folder / "train" / "cat" / "more").mkdir()
    assert "must hold images only, but holds the folder(s) more." in broken(folder)


@pytest.mark.parametrize("extension", ["jpg", "png", "bmp"])
def test_truncated_image(folder, extension):
    path = folder / "train" / "dog" / f"cut.{extension}"
    save(path, 1)
    path.write_bytes(path.read_bytes()[:-60])
    assert re.match(
        f"'{re.escape(str(path))}' is corrupt, truncated or no image: \\w+: .*", broken(folder)
    )


def test_garbage_with_an_images_name(folder):
    path = folder / "test" / "cat" / "0.png"
    path.write_bytes(b"not a PNG")
    message = broken(folder)
    assert message.startswith(f"'{path}' is corrupt, truncated or no image: Unidentified")
    path.write_bytes(b"")
    assert broken(folder).startswith(f"'{path}' is corrupt")


def test_grey_and_other_modes(folder):
    path = folder / "train" / "cat" / "3.png"
    save(path, 1, mode="L")
    assert broken(folder) == (
        f"'{path}' is a grey image (mode L). To convert every image pass "
        'color_mode="rgb" or color_mode="grayscale".'
    )
    save(path, 1, mode="RGBA")
    assert f"'{path}' is not an RGB image (mode RGBA)." in broken(folder)
    save(path, 1, mode="I;16")
    assert f"'{path}' has more than 8 bits per channel" in broken(folder, color_mode="rgb")


def test_wrong_size_names_the_first_files(folder):
    path = folder / "test" / "dog" / "2.png"
    save(path, 1, size=(8, 6))
    assert broken(folder) == (
        f"'{path}' is 8×6 (height×width), but the first image is 6×8. To resize all pass "
        "image_size=(height, width)."
    )
    for index in range(12):
        save(folder / "test" / "dog" / f"{index}.png", 1, size=(3, 3))
    lines = broken(folder).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 2 files more."


def test_every_file_corrupt(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"?")
    assert broken(folder).endswith("and 16 files more.")


def test_cache_serves_until_a_file_changes(folder, tmp_path, monkeypatch):
    cache_dir = tmp_path / "cache"
    first = load(folder, cache_dir=cache_dir)
    (cache,) = cache_dir.iterdir()
    assert cache.suffix == ".npz"
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_image", lambda *_: "decoded again")
        second = load(folder, cache_dir=cache_dir)
        for split in ("train", "validation", "test"):
            assert (second.split(split)[0] == first.split(split)[0]).all()
        path = folder / "train" / "cat" / "0.png"
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(ImageFolderError, match="decoded again"):
            load(folder, cache_dir=cache_dir)
        with pytest.raises(ImageFolderError, match="decoded again"):
            load(folder, cache_dir=cache_dir, image_size=(3, 3))
    assert [file.name for file in cache_dir.iterdir()] == [cache.name]


def test_broken_cache_is_made_anew_with_a_warning(folder, tmp_path):
    first = load(folder, cache_dir=tmp_path / "cache")
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:100])
    with pytest.warns(UserWarning, match="cannot be read and is written again"):
        again = load(folder, cache_dir=tmp_path / "cache")
    assert (again.x_train == first.x_train).all()
    assert (load(folder, cache_dir=tmp_path / "cache").x_train == first.x_train).all()
