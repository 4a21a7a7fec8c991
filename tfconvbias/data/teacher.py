"""Regression with a teacher: targets of one fixed two-layer network over patches of the inputs."""

import dataclasses

import numpy as np

from tfconvbias.arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, checked

Array = np.ndarray

_CHUNK = 256


@checked
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
        views: `(J, patch_size)`, the inputs that each patch $\pi_l$ takes; `None`: patches side by
            side.

    Reference: Two-layer conv teacher of arXiv 2603.04807.
    """

    kernel: Array
    thresholds: Array
    outgoing: Array
    offset: float = 0.0
    scale: float = 1.0
    views: Array | None = None

    def __call__(self, x: Array) -> Array:
        """Targets `(n, 1)`, float32, of points `(n, d)`.

        Without `views`, d is a multiple of the patch size.
        """
        patch_size, width = self.kernel.shape
        if self.views is None and x.shape[1] % patch_size:
            raise ValueError(
                f"`x` must have a multiple of {patch_size} columns. Received: x.shape={x.shape}"
            )
        targets = np.empty((len(x), 1), "float32")
        # Overlapping patches of many points at once would not fit in memory.
        for begin in range(0, len(x), _CHUNK):
            points = x[begin : begin + _CHUNK].astype("float64")
            if self.views is not None:
                points = points[:, self.views]
            hidden = points.reshape(-1, patch_size) @ self.kernel - self.thresholds
            averages = np.maximum(hidden, 0).reshape(len(points), -1, width).mean(axis=1)
            targets[begin : begin + _CHUNK, 0] = (
                averages @ self.outgoing + self.offset
            ) / self.scale
        return targets


@checked
def conv_teacher(
    patch_size: PositiveInt,
    width: PositiveInt,
    sample: Array,
    *,
    views: Array | None = None,
    seed: NonNegativeInt = 0,
) -> ConvTeacher:
    """Draws a teacher and standardises its outputs to mean 0 and variance 1 on a sample.

    Weights are N(0, 1), thresholds U(−½, ½).

    Args:
        patch_size: Size m of a patch.
        width: Number K of units.
        sample: `(N, d)`, points of the input distribution that are used for nothing else.
        views: `(J, patch_size)`, the inputs that each patch takes; `None`: patches side by side.
        seed: Seed of the draw.
    """
    for name, value in (("patch_size", patch_size), ("width", width)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    rng = np.random.default_rng(seed)
    raw = ConvTeacher(
        kernel=rng.standard_normal((patch_size, width)),
        thresholds=rng.uniform(-0.5, 0.5, width),
        outgoing=rng.standard_normal(width),
        offset=rng.uniform(-1.0, 1.0),
        views=views,
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


@checked
@dataclasses.dataclass(frozen=True)
class TeacherRegression:
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
    noise: NonNegativeFloat
    teacher: ConvTeacher


@checked
def teacher_regression(
    x_train: Array,
    x_test: Array,
    teacher: ConvTeacher,
    *,
    noise: NonNegativeFloat = 1.0,
    seed: NonNegativeInt = 0,
) -> TeacherRegression:
    """Points with targets of a teacher; the training targets have Gaussian noise.

    Args:
        x_train: `(n, d)`.
        x_test: `(num_test, d)`.
        teacher: The function that labels both.
        noise: Standard deviation σ of the training noise.
        seed: Seed of the noise.
    """
    errors = np.random.default_rng(seed).standard_normal((len(x_train), 1)).astype("float32")
    return TeacherRegression(
        x_train=x_train,
        y_train=teacher(x_train) + np.float32(noise) * errors,
        x_test=x_test,
        y_test=teacher(x_test),
        noise=noise,
        teacher=teacher,
    )
