import dataclasses

import numpy as np
import pytest

from tfconvbias.data import ImageDataset, permute_pixels, pixel_permutation


def make(num_train=40, num_validation=20, num_test=30, classes=4):
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8)

    return ImageDataset(
        name="toy",
        x_train=images(num_train),
        y_train=np.arange(num_train) % classes,
        x_validation=images(num_validation),
        y_validation=np.arange(num_validation) % classes,
        x_test=images(num_test),
        y_test=np.arange(num_test) % classes,
        class_names=tuple("abcdefgh"[:classes]),
        source="made up",
    )


def test_properties_and_description():
    data = make()
    assert data.image_shape == (6, 5, 3)
    assert data.num_classes == 4
    assert data.split("test")[0] is data.x_test
    assert data.describe() == (
        "toy: 6×5×3 images, 4 classes (a, b, c, d)\n"
        "  source      made up\n"
        "  train       40 images, 10–10 per class\n"
        "  validation  20 images, 5–5 per class\n"
        "  test        30 images, 7–8 per class"
    )
    shown = "<ImageDataset toy: 6×5×3, 4 classes; train 40, validation 20, test 30>"
    assert str(data) == repr(data) == shown
    assert "validation  empty" in make(num_validation=0).describe()
    with pytest.raises(ValueError, match=r"one of train, validation, test. Received: name='dev'"):
        data.split("dev")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x_train", np.zeros((40, 6, 5, 3)), "`x_train` must be uint8.*dtype=float64"),
        ("x_test", np.zeros((30, 6, 5), np.uint8), r"`x_test` must be uint8.*shape=\(30, 6, 5\)"),
        ("x_test", np.zeros((30, 6, 6, 3), np.uint8), r"shape \(6, 5, 3\). Received: \(6, 6, 3\)"),
        ("y_test", np.zeros(30), "`y_test` must be 30 integer labels.*dtype=float64"),
        ("y_validation", np.zeros(3, int), r"20 integer labels.*shape=\(3,\)"),
        ("y_train", np.full(40, 4), "`y_train` must lie in 0…3.*from 4 to 4"),
        ("y_train", np.full(40, -1), "`y_train` must lie in 0…3"),
    ],
)
def test_bad_arrays_are_rejected(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make(), **{field: value})


def test_limit_is_stratified_seeded_and_keeps_order():
    data = make(num_train=42)  # 11, 11, 10, 10 a class
    small = data.limit(num_train=21, num_test=8)
    assert np.bincount(small.y_train).tolist() == [6, 5, 5, 5]
    assert np.bincount(small.y_test).tolist() == [2, 2, 2, 2]
    assert small.x_validation is data.x_validation
    rows = [int(np.flatnonzero((data.x_train == x).all((1, 2, 3)))[0]) for x in small.x_train]
    assert rows == sorted(set(rows))
    assert (data.y_train[rows] == small.y_train).all()
    assert (data.limit(num_train=21).x_train == small.x_train).all()
    assert (data.limit(num_train=21, seed=1).x_train != small.x_train).any()
    assert len(data.limit(num_validation=0).x_validation) == 0
    assert (data.limit(num_train=42).x_train == data.x_train).all()


@pytest.mark.parametrize("size", [0, 41, -1])
def test_limit_rejects_sizes(size):
    with pytest.raises(ValueError, match=f"between 1 and the split's 40.*num_train={size}"):
        make().limit(num_train=size)


def test_permute_pixels_moves_positions_and_nothing_else():
    data = make()
    shuffled = permute_pixels(data, seed=3)
    order = pixel_permutation(6, 5, 3)
    assert sorted(order) == list(range(30))
    assert (order != np.arange(30)).any()
    for split in ("train", "validation", "test"):
        x, y = data.split(split)
        for position in (0, 7, 29):
            row, column = divmod(position, 5)
            source = divmod(int(order[position]), 5)
            assert (shuffled.split(split)[0][:, row, column] == x[:, source[0], source[1]]).all()
        assert (shuffled.split(split)[1] == y).all()
    assert shuffled.name == "toy-permuted3"
    back = permute_pixels(shuffled, seed=3, inverse=True)
    assert (back.x_train == data.x_train).all()
    assert (permute_pixels(data.x_train, 4) != shuffled.x_train).any()


def test_permute_pixels_on_arrays_of_any_rank_and_dtype():
    x = np.arange(2 * 4 * 3 * 1, dtype=np.float32).reshape(2, 4, 3, 1)
    assert permute_pixels(x, 0).dtype == np.float32
    assert (permute_pixels(x[0], 0) == permute_pixels(x, 0)[0]).all()
    with pytest.raises(ValueError, match=r"Received: shape=\(4, 3\)"):
        permute_pixels(np.zeros((4, 3)), 0)


def test_permutation_never_changes():
    assert pixel_permutation(4, 4, 0).tolist() == [
        11,
        3,
        13,
        2,
        15,
        1,
        8,
        6,
        0,
        7,
        14,
        4,
        10,
        12,
        5,
        9,
    ]
