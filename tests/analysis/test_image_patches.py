import numpy as np
import pytest
from PIL import Image

from tfconvbias.analysis import ImagePoints, ImageTiles, image_patches, image_tiles

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 9, 8, 3), dtype=np.uint8)


def test_patches_are_cut_at_the_strides():
    found = image_patches(IMAGES, 4, 2)
    assert found.dtype == np.uint8
    expected = [
        image[row : row + 4, col : col + 4].ravel()
        for image in IMAGES
        for row in (0, 2, 4)
        for col in (0, 2, 4)
    ]
    np.testing.assert_array_equal(found, expected)


def test_tiles_lie_side_by_side():
    found = image_tiles(IMAGES[0], 4)
    expected = [IMAGES[0][row : row + 4, col : col + 4] for row in (0, 4) for col in (0, 4)]
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    Image.fromarray(IMAGES[0]).save(tmp_path / "b.png")
    Image.fromarray(IMAGES[1][..., 0]).save(tmp_path / "inner" / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_gives_the_tiles_of_all_its_images_again_and_again(folder):
    tiles = ImageTiles(folder, 4)
    for _ in range(2):
        (batch,) = list(tiles)
        grey = np.repeat(IMAGES[1][..., :1], 3, axis=2)
        expected = np.concatenate([image_tiles(IMAGES[0], 4), image_tiles(grey, 4)])
        np.testing.assert_array_equal(batch, expected)
    assert len(ImageTiles(folder, 4, max_images=1).files) == 1
    assert len(ImageTiles([folder / "b.png"], 4).files) == 1


def test_small_images_and_empty_folders_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"b\.png: The image must be at least 16 × 16"):
        list(ImageTiles(folder, 16))
    with pytest.raises(ValueError, match="must hold image files"):
        ImageTiles([folder / "notes.txt"])


def test_an_array_and_batches_of_it_give_the_same_points():
    for kind in ("patches", "random", "shuffled", "images"):
        whole = np.concatenate(list(ImagePoints(IMAGES, kind)))
        parts = np.concatenate(list(ImagePoints([IMAGES[:2], IMAGES[2:]], kind)))
        np.testing.assert_array_equal(whole, parts)
        assert whole.dtype == np.float32
        assert 0 <= whole.min() < whole.max() <= 1


def test_one_shuffle_serves_all_images():
    found = np.concatenate(list(ImagePoints(IMAGES, "shuffled", patch_size=1, strides=1)))
    shuffled = (found.reshape(5, -1) * 255).round().astype("uint8")
    flat = IMAGES.reshape(5, -1)
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(flat, axis=1))
    assert (shuffled != flat).mean() > 0.9
    # Columns of five values are permuted as wholes.
    assert {tuple(c) for c in shuffled.T} == {tuple(c) for c in flat.T}
    other = np.concatenate(list(ImagePoints(IMAGES, "shuffled", patch_size=1, strides=1, seed=1)))
    assert not np.array_equal(found, other)


def test_random_patches_take_whole_pixels_from_the_same_places_of_all_images():
    # Each value tells image, pixel and channel.
    images = np.arange(2 * 6 * 6 * 3, dtype="float32").reshape(2, 6, 6, 3)
    found = np.concatenate(list(ImagePoints(images, "random", patch_size=2, strides=2)))
    first, second = found.reshape(2, 9, 4, 3)
    np.testing.assert_array_equal(second - first, 6 * 6 * 3)
    np.testing.assert_array_equal(first[..., 1:] - first[..., :1], np.full((9, 4, 2), [1, 2]))
    pixels = first[..., 0] / 3
    assert all(len(set(patch)) == 4 for patch in pixels)
    # Neither the windows of "patches" nor one set of pixels again and again.
    assert len({tuple(patch) for patch in pixels}) == 9
    assert np.ptp(pixels, axis=1).max() > 7
    other = np.concatenate(list(ImagePoints(images, "random", patch_size=2, strides=2, seed=1)))
    assert not np.array_equal(found, other)


def test_normalized_points_have_norm_one_and_constant_ones_are_left_out():
    images = np.full((2, 4, 4, 3), 0.1, "float32")
    images[1] = RNG.uniform(size=(4, 4, 3))
    (unit,) = ImagePoints(images, normalize="unit")
    (contrast,) = ImagePoints(images, normalize="contrast")
    assert len(unit) == 2
    assert len(contrast) == 1
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(contrast, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(contrast.mean(axis=1), 0, atol=1e-6)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"`images` must have shape.*patch_size=9"):
        image_patches(IMAGES, 9)  # as many rows, but fewer columns
    for options in ({"patch_size": 0}, {"strides": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}.*0"):
            image_patches(IMAGES, **options)
    with pytest.raises(ValueError, match="kind='tiles'"):
        ImagePoints(IMAGES, "tiles")
    with pytest.raises(ValueError, match="normalize='norm'"):
        ImagePoints(IMAGES, normalize="norm")
