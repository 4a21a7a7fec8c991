r"""Regression on spheres: inputs without preferred directions, targets of one fixed network.

On a high-dimensional sphere every point is extreme, so that a dense ReLU network can give each
point a unit of its own. Patches of the same points live in few dimensions and overlap.
"""

from typing import Literal

import numpy as np

from tfconvbias.arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, checked
from tfconvbias.data.teacher import TeacherRegression, conv_teacher, teacher_regression
from tfconvbias.data.views import View, patch_views

Array = np.ndarray


@checked
def uniform_sphere(
    n: int, dimension: int, *, radius: NonNegativeFloat = 1.0, seed: NonNegativeInt = 0
) -> Array:
    """Points drawn uniformly from the sphere of a radius.

    Args:
        n: Number of points.
        dimension: Dimension d of the space that holds the sphere $S^{d-1}$.
        radius: Norm of each point.
        seed: Seed of the draw. The first points are the same for every `n`.

    Returns:
        `(n, dimension)`, float32.

    Example:
    >>> uniform_sphere(3, 4, radius=2.0).shape
    (3, 4)
    """
    _check_counts(n=n, dimension=dimension)
    points = np.random.default_rng(seed).standard_normal((n, dimension))
    points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype("float32")


@checked
def product_of_spheres(
    n: int,
    num_patches: int,
    patch_size: PositiveInt,
    *,
    radius: NonNegativeFloat = 1.0,
    seed: NonNegativeInt = 0,
) -> Array:
    r"""Points whose patches are each uniform on a sphere: $(S^{m-1})^J \subset \mathbb R^{Jm}$.

    Args:
        n: Number of points.
        num_patches: Number J of patches.
        patch_size: Size m of a patch.
        radius: Norm of each patch.
        seed: Seed of the draw.

    Returns:
        `(n, num_patches * patch_size)`, float32, one patch after the other.
    """
    _check_counts(n=n, num_patches=num_patches, patch_size=patch_size)
    patches = uniform_sphere(n * num_patches, patch_size, radius=radius, seed=seed)
    return patches.reshape(n, num_patches * patch_size)


@checked
def sphere_regression(
    n: int,
    dimension: int = 40,
    patch_size: PositiveInt = 4,
    *,
    noise: NonNegativeFloat = 1.0,
    num_test: int = 4000,
    teacher_width: int = 20,
    num_standardize: PositiveInt = 20_000,
    inputs: Literal["sphere", "product"] = "sphere",
    radius: NonNegativeFloat | None = None,
    views: View = "blocks",
    seed: NonNegativeInt = 0,
) -> TeacherRegression:
    r"""Points $x = \sqrt J\,\mathrm{Unif}(S^{d-1})$ with noisy targets of a convolutional teacher.

    The teacher and the test points depend on the seed alone, and the training points for a smaller
    `n` are the first of those for a larger `n`: runs with different `n` differ in nothing else.

    Args:
        n: Number of training points.
        dimension: d = J m.
        patch_size: m, which must divide `dimension`. With the default radius the mean squared norm
            of a patch is 1.
        noise: Standard deviation σ of the training noise.
        num_test: Number of test points.
        teacher_width: Units of the teacher.
        num_standardize: Further points on which the teacher is standardised.
        inputs: `"sphere"`, or `"product"` for patches that are each uniform on a sphere of
            their own, of equal radii, as `product_of_spheres` draws them.
        radius: Norm of each point, $\sqrt J$ by default.
        views: What the teacher's patches take, as `patch_views` says.
        seed: Seed of the teacher, the points and the noise.

    Raises:
        ValueError: If `patch_size` doesn't divide `dimension`, or for unknown `inputs` or `views`.
    """
    _check_counts(n=n, num_test=num_test)
    if inputs not in ("sphere", "product"):
        raise ValueError(f"`inputs` must be 'sphere' or 'product'. Received: inputs={inputs!r}")
    if dimension % patch_size:
        raise ValueError(
            "`patch_size` must divide `dimension`. "
            f"Received: patch_size={patch_size}, dimension={dimension}"
        )
    num_patches = dimension // patch_size
    radius = num_patches**0.5 if radius is None else radius
    seeds = np.random.SeedSequence(seed).generate_state(5)

    def points(count, index):
        if inputs == "product":
            each = radius / num_patches**0.5
            drawn = int(seeds[index])
            return product_of_spheres(count, num_patches, patch_size, radius=each, seed=drawn)
        return uniform_sphere(count, dimension, radius=radius, seed=int(seeds[index]))

    teacher = conv_teacher(
        patch_size,
        teacher_width,
        points(num_standardize, 0),
        views=patch_views(views, dimension, patch_size, seed=int(seeds[1])),
        seed=int(seeds[1]),
    )
    return teacher_regression(
        points(n, 2), points(num_test, 3), teacher, noise=noise, seed=int(seeds[4])
    )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
