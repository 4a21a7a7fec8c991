r"""Regression on spheres: inputs without preferred directions, targets of one fixed network.

On a high-dimensional sphere every point is extreme, so that a dense ReLU network can give each
point a unit of its own. Patches of the same points live in few dimensions and overlap.
"""

import dataclasses
from typing import Literal

import numpy as np

Array = np.ndarray


def uniform_sphere(n: int, dimension: int, *, radius: float = 1.0, seed: int = 0) -> Array:
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


def product_of_spheres(
    n: int, num_patches: int, patch_size: int, *, radius: float = 1.0, seed: int = 0
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


@dataclasses.dataclass(frozen=True)
class ConvTeacher:
    r"""A random two-layer ReLU network over patches, whose outputs are the targets.

    $$f^*(x) = \frac{1}{s}\Big(\sum_k v_k \frac1J \sum_l
    \mathrm{ReLU}(w_k^\top \pi_l x - b_k) + \beta_0 - \mu\Big)$$

    The mean μ and deviation s belong to the teacher, so that one function labels the training and
    the test points; standardising each set by itself would give two.

    Attributes:
        kernel: `(patch_size, width)`, the $w_k$ in columns.
        thresholds: `(width,)`, the $b_k$.
        outgoing: `(width,)`, the $v_k$.
        offset: β₀ − μ.
        scale: s.

    Reference: Two-layer conv teacher of arXiv 2603.04807.
    """

    kernel: Array
    thresholds: Array
    outgoing: Array
    offset: float = 0.0
    scale: float = 1.0

    def __call__(self, x: Array) -> Array:
        """Targets `(n, 1)`, float32, of points `(n, d)`; d is a multiple of the patch size."""
        patch_size, width = self.kernel.shape
        n, dimension = x.shape
        if dimension % patch_size:
            raise ValueError(
                f"`x` must have a multiple of {patch_size} columns. Received: x.shape={x.shape}"
            )
        patches = x.astype("float64").reshape(-1, patch_size)
        hidden = np.maximum(patches @ self.kernel - self.thresholds, 0)
        averages = hidden.reshape(n, -1, width).mean(axis=1)
        targets = (averages @ self.outgoing + self.offset) / self.scale
        return targets[:, None].astype("float32")


def conv_teacher(patch_size: int, width: int, sample: Array, *, seed: int = 0) -> ConvTeacher:
    """Draws a teacher and standardises its outputs to mean 0 and variance 1 on a sample.

    Weights are N(0, 1), thresholds U(−½, ½).

    Args:
        patch_size: Size m of a patch.
        width: Number K of units.
        sample: `(N, d)`, points of the input distribution that are used for nothing else.
        seed: Seed of the draw.
    """
    _check_counts(patch_size=patch_size, width=width)
    rng = np.random.default_rng(seed)
    raw = ConvTeacher(
        kernel=rng.standard_normal((patch_size, width)),
        thresholds=rng.uniform(-0.5, 0.5, width),
        outgoing=rng.standard_normal(width),
        offset=rng.uniform(-1.0, 1.0),
    )
    targets = raw(sample).astype("float64")
    if not targets.std() > 0:
        raise ValueError(
            f"The teacher is constant on the sample of {len(sample)} points; take a larger sample "
            "or another seed."
        )
    return dataclasses.replace(
        raw, offset=raw.offset - float(targets.mean()), scale=float(targets.std())
    )


@dataclasses.dataclass(frozen=True)
class SphereRegression:
    """Noisy training targets and clean test targets of one teacher.

    Attributes:
        x_train: `(n, d)`.
        y_train: `(n, 1)`, with noise.
        x_test: `(num_test, d)`.
        y_test: `(num_test, 1)`, without noise: the error against them is the excess risk.
        noise: Standard deviation σ of the training noise.
        teacher: The function that labelled both.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    noise: float
    teacher: ConvTeacher


def sphere_regression(
    n: int,
    dimension: int = 40,
    patch_size: int = 4,
    *,
    noise: float = 1.0,
    num_test: int = 4000,
    teacher_width: int = 20,
    num_standardize: int = 20_000,
    inputs: Literal["sphere", "product"] = "sphere",
    seed: int = 0,
) -> SphereRegression:
    r"""Points $x = \sqrt J\,\mathrm{Unif}(S^{d-1})$ with noisy targets of a convolutional teacher.

    The teacher and the test points depend on the seed alone, and the training points for a smaller
    `n` are the first of those for a larger `n`: runs with different `n` differ in nothing else.

    Args:
        n: Number of training points.
        dimension: d = J m.
        patch_size: m, which must divide `dimension`. The mean squared norm of a patch is 1.
        noise: Standard deviation σ of the training noise.
        num_test: Number of test points.
        teacher_width: Units of the teacher.
        num_standardize: Further points on which the teacher is standardised.
        inputs: `"sphere"`, or `"product"` for patches that are each uniform on a unit sphere of
            their own, as `product_of_spheres` draws them.
        seed: Seed of the teacher, the points and the noise.

    Raises:
        ValueError: If `patch_size` doesn't divide `dimension`, or for unknown `inputs`.
    """
    _check_counts(n=n, num_test=num_test)
    if inputs not in ("sphere", "product"):
        raise ValueError(f"`inputs` must be 'sphere' or 'product'. Received: inputs={inputs!r}")
    if patch_size < 1 or dimension % patch_size:
        raise ValueError(
            "`patch_size` must divide `dimension`. "
            f"Received: patch_size={patch_size}, dimension={dimension}"
        )
    radius = (dimension // patch_size) ** 0.5
    seeds = np.random.SeedSequence(seed).generate_state(5)

    def points(count, index):
        if inputs == "product":
            num_patches = dimension // patch_size
            return product_of_spheres(count, num_patches, patch_size, seed=int(seeds[index]))
        return uniform_sphere(count, dimension, radius=radius, seed=int(seeds[index]))

    teacher = conv_teacher(
        patch_size, teacher_width, points(num_standardize, 0), seed=int(seeds[1])
    )
    x_train, x_test = points(n, 2), points(num_test, 3)
    errors = np.random.default_rng(seeds[4]).standard_normal((n, 1)).astype("float32")
    return SphereRegression(
        x_train=x_train,
        y_train=teacher(x_train) + np.float32(noise) * errors,
        x_test=x_test,
        y_test=teacher(x_test),
        noise=noise,
        teacher=teacher,
    )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
