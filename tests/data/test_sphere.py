import dataclasses

import numpy as np
import pytest

from tfconvbias.data import (
    ConvTeacher,
    conv_teacher,
    patch_views,
    product_of_spheres,
    sphere_regression,
    uniform_sphere,
)


def test_points_lie_on_the_sphere_and_have_no_preferred_direction():
    points = uniform_sphere(20_000, 5, radius=3.0, seed=1)
    assert points.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 3.0, rtol=1e-5)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(np.cov(points.T), np.eye(5) * 9 / 5, atol=0.06)


def test_patches_of_a_product_lie_on_spheres():
    points, others = (product_of_spheres(6, 4, 3, radius=2.0, seed=seed) for seed in (0, 1))
    assert not np.isclose(points, others).any()
    assert points.shape == (6, 12)
    np.testing.assert_allclose(np.linalg.norm(points.reshape(6, 4, 3), axis=2), 2.0, rtol=1e-5)


def test_the_teacher_is_the_mean_over_patches_of_relu_units():
    teacher = ConvTeacher(
        kernel=np.array([[1.0, 0.0], [0.0, 2.0]]),
        thresholds=np.array([0.5, -1.0]),
        outgoing=np.array([3.0, -1.0]),
        offset=0.25,
        scale=2.0,
    )
    x = np.array([[1.0, 1.0, -1.0, -2.0]])
    # patch (1, 1): relu(0.5) = 0.5, relu(3) = 3; patch (-1, -2): 0 and relu(-3) = 0
    expected = (3.0 * 0.5 / 2 - 3.0 / 2 + 0.25) / 2.0
    np.testing.assert_allclose(teacher(x), [[expected]])


def test_the_teacher_is_standardised_on_its_sample():
    sample = uniform_sphere(5000, 12, radius=2.0)
    teacher = conv_teacher(3, 20, sample, seed=4)
    targets = teacher(sample)
    assert targets.shape == (5000, 1)
    np.testing.assert_allclose([targets.mean(), targets.std()], [0, 1], atol=1e-4)


def test_train_and_test_share_one_teacher():
    found = sphere_regression(50, 12, 3, noise=0.0, num_test=3000)
    np.testing.assert_array_equal(found.teacher(found.x_train), found.y_train)
    np.testing.assert_array_equal(found.teacher(found.x_test), found.y_test)
    # The test points are others.
    assert not np.isin(found.x_train[:, 0], found.x_test[:, 0]).any()
    # Standardised on other points: not exactly 0 and 1 on the test set.
    assert 0 < abs(found.y_test.mean()) < 0.1
    np.testing.assert_allclose(found.y_test.std(), 1, atol=0.1)


def test_noise_is_on_the_training_targets_only():
    quiet, noisy = (sphere_regression(4000, 12, 3, noise=noise) for noise in (0.0, 0.5))
    np.testing.assert_array_equal(quiet.y_test, noisy.y_test)
    errors = noisy.y_train - quiet.y_train
    np.testing.assert_allclose(errors.std(), 0.5, rtol=0.05)


def test_a_smaller_set_holds_the_first_points_of_a_larger():
    small, large = (sphere_regression(n, 12, 3, num_test=10) for n in (20, 30))
    np.testing.assert_array_equal(small.x_train, large.x_train[:20])
    np.testing.assert_allclose(small.y_train, large.y_train[:20], rtol=1e-6)
    np.testing.assert_array_equal(small.x_test, large.x_test)


def test_the_radius_is_the_root_of_the_number_of_patches():
    found = sphere_regression(5, 40, 4, num_test=5)
    np.testing.assert_allclose(np.linalg.norm(found.x_train, axis=1), 10**0.5, rtol=1e-5)


def test_seeds_differ():
    first, second = (sphere_regression(5, 12, 3, num_test=5, seed=seed) for seed in (0, 1))
    assert not np.allclose(first.x_train, second.x_train)
    assert not np.allclose(first.teacher.kernel, second.teacher.kernel)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"must divide.*patch_size=5, dimension=12"):
        sphere_regression(5, 12, 5)
    with pytest.raises(ValueError, match="n=0"):
        uniform_sphere(0, 3)
    with pytest.raises(ValueError, match="multiple of 3 columns"):
        conv_teacher(3, 2, uniform_sphere(10, 4))
    with pytest.raises(ValueError, match="constant on the sample"):
        conv_teacher(3, 2, uniform_sphere(1, 3))


def test_each_patch_may_have_a_sphere_of_its_own():
    found = sphere_regression(50, 12, 3, inputs="product")
    for x in (found.x_train, found.x_test):
        np.testing.assert_allclose(np.linalg.norm(x.reshape(-1, 3), axis=1), 1, rtol=1e-5)
    whole = sphere_regression(50, 12, 3).x_train
    assert np.linalg.norm(whole.reshape(-1, 3), axis=1).std() > 0.1
    with pytest.raises(ValueError, match="inputs='cube'"):
        sphere_regression(5, 12, 3, inputs="cube")


def test_the_radius_can_be_chosen():
    for inputs, columns in (("sphere", 12), ("product", 3)):
        found = sphere_regression(5, 12, 3, num_test=5, inputs=inputs, radius=6.0)
        norms = np.linalg.norm(found.x_train.reshape(-1, columns), axis=1)
        np.testing.assert_allclose(norms, 6 if inputs == "sphere" else 3, rtol=1e-5)


def test_views_tell_what_each_patch_takes():
    assert patch_views("blocks", 6, 2).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert patch_views("strided", 6, 3).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert patch_views("identical", 6, 2).tolist() == [[0, 1]] * 3
    random = patch_views("random", 30, 3, seed=1)
    assert random.shape == (10, 3)
    assert all(len(set(view)) == 3 for view in random.tolist())
    assert len({tuple(view) for view in random.tolist()}) == 10
    assert len(set(random.ravel().tolist())) < 30
    assert not np.array_equal(random, patch_views("random", 30, 3, seed=2))
    with pytest.raises(ValueError, match="kind='rows'"):
        patch_views("rows", 6, 2)
    with pytest.raises(ValueError, match="patch_size=4, dimension=6"):
        patch_views("blocks", 6, 4)


def test_a_teacher_sees_its_views():
    teacher = ConvTeacher(
        kernel=np.array([[1.0], [10.0]]), thresholds=np.zeros(1), outgoing=np.ones(1),
        views=np.array([[0, 2], [1, 2]]),
    )  # fmt: skip
    # The mean of 1 + 30 and 2 + 30; 600 points, more than one chunk.
    np.testing.assert_allclose(teacher(np.tile([[1.0, 2.0, 3.0]], (600, 1))), 31.5)
    found = sphere_regression(5, 12, 3, num_test=5, views="identical")
    changed = found.x_test.copy()
    changed[:, 3:] += 1
    np.testing.assert_array_equal(found.teacher(changed), found.y_test)


def test_the_default_views_are_patches_side_by_side():
    found = sphere_regression(5, 12, 3, num_test=5)
    plain = dataclasses.replace(found.teacher, views=None)
    np.testing.assert_array_equal(plain(found.x_test), found.y_test)
