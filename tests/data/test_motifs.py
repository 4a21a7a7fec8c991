import numpy as np
import pytest

from tfconvbias.data import make_motifs
from tfconvbias.data.motifs import gabor_cells, orientation_codes


@pytest.fixture(scope="module")
def motifs10():
    return make_motifs(10, num_train=1000, num_validation=200, num_test=300)


def test_bytes_never_change(motifs10):
    assert motifs10.x_train.astype(np.int64).sum() == 393249196
    assert motifs10.x_train[0, :2, :4, 0].tolist() == [[157, 117, 105, 128], [146, 98, 147, 120]]
    assert motifs10.x_test.astype(np.int64).sum() == 117932677
    assert motifs10.y_train[:10].tolist() == [9, 7, 3, 1, 6, 3, 9, 7, 1, 5]


def test_seed_and_repetition(motifs10):
    again = make_motifs(10, num_train=1000, num_validation=200, num_test=300)
    other = make_motifs(10, num_train=1000, num_validation=200, num_test=300, seed=1)
    assert (again.x_train == motifs10.x_train).all()
    assert (other.x_train != motifs10.x_train).mean() > 0.9
    assert (orientation_codes(10, 1) != orientation_codes(10, 0)).any()


def test_splits_are_independent_of_each_others_size(motifs10):
    larger = make_motifs(10, num_train=1200, num_validation=200, num_test=300)
    assert (larger.x_test == motifs10.x_test).all()
    assert (larger.y_validation == motifs10.y_validation).all()
    assert (motifs10.x_train[:200] != motifs10.x_validation).mean() > 0.9


def test_classes_are_balanced(motifs10):
    assert np.bincount(motifs10.y_train).tolist() == [100] * 10
    data = make_motifs(100, num_train=250, num_validation=0, num_test=100)
    assert set(np.bincount(data.y_train, minlength=100)) == {2, 3}
    assert data.class_names[7] == "motif07"


def test_codes_are_balanced_at_every_place():
    codes = orientation_codes(10)
    assert codes.shape == (10, 16)
    for place in range(16):
        assert np.bincount(codes[:, place]).tolist() == [2] * 5
    codes = orientation_codes(100)
    distance = (codes[:, None] != codes[None]).sum(-1) + 16 * np.eye(100, dtype=int)
    assert distance.min() >= 5


def test_noise_is_unit_gaussian_at_twelve_grey_levels(motifs10):
    corners = motifs10.x_train[:, ::8, ::8, :].astype(float) - 128  # outside of the envelopes
    assert corners.std() == pytest.approx(12, rel=0.02)
    z = corners / 12
    assert abs((z**3).mean()) < 0.05
    assert (z**4).mean() == pytest.approx(2.85, abs=0.1)


def test_patch_norm_is_the_amplitude():
    norms = np.sqrt(3 * (gabor_cells(6.0).astype(float) ** 2).sum((-2, -1))) / 12
    assert norms.shape == (5, 9)
    assert np.allclose(norms, 6, rtol=0.025)  # rounded to grey levels


def test_signs_hide_the_class_from_linear_statistics(motifs10):
    means = np.stack([motifs10.x_train[motifs10.y_train == c].mean(0) for c in range(10)])
    # Each mean is 128 up to the noise of 100 images: std below 19/10 in every pixel.
    assert abs(means - 128).max() < 5 * 2.1


def test_second_moments_tell_the_class(motifs10):
    # The energy of a matched filter at the right orientation beats that at the others.
    cells = gabor_cells(6.0)[:, 4].astype(float)
    codes = orientation_codes(10)
    centred = motifs10.x_test.astype(float).mean(-1) - 128
    patches = centred.reshape(-1, 4, 8, 4, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 16, 64)
    energy = (patches @ cells.reshape(5, 64).T) ** 2
    energy /= (cells**2).sum((-2, -1))
    scores = sum(energy[:, place][:, codes[:, place]] for place in range(16))
    assert (scores.argmax(-1) == motifs10.y_test).mean() > 0.9


def test_no_pixel_is_clipped_even_at_the_largest_amplitude():
    data = make_motifs(10, num_train=500, num_test=10, amplitude=19.0)
    assert data.x_train.min() >= 1 and data.x_train.max() <= 255
    with pytest.raises(ValueError, match=r"no pixel is clipped.*Received: amplitude=25"):
        make_motifs(10, amplitude=25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be at least 2. Received: num_classes=1"),
        ({"num_train": 9}, "`num_train` must be at least 10 for 10 classes. Received: num_train=9"),
        ({"num_test": -1}, "`num_test` must be at least 10"),
        ({"num_validation": -1}, "`num_validation` must be at least 0"),
        ({"seed": -1}, "`seed` must be a whole number at least 0. Received: seed=-1"),
        ({"amplitude": -1.0}, "`amplitude` must be non-negative"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_motifs(**arguments)
