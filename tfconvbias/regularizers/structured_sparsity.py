"""What the structured sparsity regularizers share: α as a variable, the view of a kernel."""

import math
from collections.abc import Sequence
from numbers import Real

import keras
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.graph.facts import KERNEL_ARGUMENTS
from tfconvbias.regularizers.group_norms import NORMS


def check_alpha(alpha) -> float:
    """The penalty weight as a float; a ValueError unless it is finite and >= 0."""
    number = isinstance(alpha, Real) and not isinstance(alpha, bool)
    if not number or not math.isfinite(alpha) or alpha < 0:
        raise ValueError(f"`alpha` must be a finite number >= 0. Received: alpha={alpha}")
    return float(alpha)


class PenaltyWeight:
    """Gives a Keras layer or model the penalty weight α as tracked state that is no weight."""

    _alpha: keras.Variable

    def add_alpha(self, alpha) -> None:
        """Creates the variable, after the layer's own constructor has run."""
        self._alpha = keras.Variable(
            check_alpha(alpha), dtype="float32", trainable=False, autocast=False, name="alpha"
        )

    @property
    def alpha(self):
        """α, a variable: assign to it during training (`regularizer.alpha = 1e-4`)."""
        return self._alpha

    @alpha.setter
    def alpha(self, value):
        self._alpha.assign(check_alpha(value))

    def alpha_value(self) -> float:
        """The present α as a Python float."""
        return float(ops.convert_to_numpy(self._alpha))


@checked
class StructuredSparsity(PenaltyWeight, keras.layers.Layer, keras.regularizers.Regularizer):
    """Base of the regularizers that act on groups of kernel weights.

    It is a regularizer that also is a Keras layer without inputs, for one reason: a layer that is
    given it as `kernel_regularizer` then tracks its variable α as state of the model (as it tracks
    the state of a seed generator), so that a training step compiled by TensorFlow, JAX or PyTorch
    reads the present α. A variable inside a plain regularizer would be frozen into a step that JAX
    compiles. α is state and no weight: `get_weights()` and `count_params()` do not show it, and it
    is saved and restored with the model. One instance may serve many layers, which then share α.

    Args:
        alpha: α >= 0, weight of the penalty.
        norm: Norm of a group, one of `"l2"`, `"normalized"`, `"scaled"`, `"linf"`.
        kernel_axes: Axes of the kernel that count the kernels j; the others are inside one. `-1`
            for Conv and Dense, `(-2, -1)` for a depthwise kernel, `-2` for a transposed one.
        name: Name of the object.
    """

    def __init__(
        self,
        alpha: float,
        norm: str = "l2",
        kernel_axes: int | Sequence[int] = -1,
        name: str | None = None,
    ):
        super().__init__(trainable=False, name=name)
        if norm not in NORMS:
            raise ValueError(f"`norm` must be one of {NORMS}. Received: norm={norm!r}")
        axes = (kernel_axes,) if isinstance(kernel_axes, int) else tuple(kernel_axes)
        if not axes or not set(axes) <= {-1, -2} or len(set(axes)) != len(axes):
            raise ValueError(
                f"`kernel_axes` must be -1, -2 or (-2, -1). Received: kernel_axes={kernel_axes}"
            )
        self.norm = norm
        self.kernel_axes = tuple(sorted(axes))
        self.add_alpha(alpha)
        self.built = True

    @property
    def weights(self):
        """Empty: α is state of the training, not a weight of the layer that holds it."""
        return []

    def save_own_variables(self, store):
        store["alpha"] = ops.convert_to_numpy(self._alpha)

    def load_own_variables(self, store):
        # A file holds the α of a shared instance once, at the first layer that has it; at the
        # others, and in a file that was written without regularizers, the configuration's α stays.
        if "alpha" in store:
            self._alpha.assign(store["alpha"])

    def __call__(self, kernel):
        """The penalty α·Ω of one kernel, a scalar."""
        return ops.cast(self._alpha, kernel.dtype) * ops.sum(self.measure(kernel))

    def measure(self, kernel):
        """Relaxed number (d'_i summands, eq. 12) or size (s'_ij, eq. 21) of each kernel."""
        raise NotImplementedError

    def group_norms(self, kernel):
        """Norm of every group of every kernel, shape (groups, kernels)."""
        raise NotImplementedError

    def proximal(self, kernel, step):
        """Proximal operator of `step * Ω` at `kernel`: exact zeros for whole groups."""
        raise NotImplementedError

    def columns(self, kernel):
        """The kernel with one column per kernel j, shape (spatial…, inside, kernels)."""
        self.check_kernel(kernel.shape)
        rank = len(kernel.shape)
        spatial = tuple(kernel.shape[: rank - 2])
        if self.kernel_axes == (-2, -1):
            return ops.reshape(kernel, (*spatial, 1, -1))
        if self.kernel_axes == (-2,):
            return ops.swapaxes(kernel, -1, -2)
        return kernel

    def restore(self, columns, shape):
        """Reverses `columns`."""
        if self.kernel_axes == (-2, -1):
            return ops.reshape(columns, shape)
        if self.kernel_axes == (-2,):
            return ops.swapaxes(columns, -1, -2)
        return columns

    def check_kernel(self, shape) -> None:
        """A ValueError unless it is the shape of a kernel: at least (inputs, outputs)."""
        if len(shape) < 2:
            raise ValueError(
                f"`{type(self).__name__}` penalizes the kernel of a convolution or dense layer; "
                "a bias or a normalization's scale has none. "
                f"Received: a variable of shape {tuple(shape)}"
            )

    def get_config(self):
        return {
            "alpha": self.alpha_value(),
            "norm": self.norm,
            "kernel_axes": list(self.kernel_axes),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@checked
def set_alpha(model: keras.Model, alpha) -> int:
    """Sets the penalty weight α of every structured sparsity regularizer in a model.

    A step that is already compiled obeys; under JAX from the start of the next epoch, as it does
    for a learning rate.

    Args:
        model: A `keras.Model` whose layers hold the regularizers, or a `Complexity`.
        alpha: The new α >= 0.

    Returns:
        The number of regularizers that were set.

    Raises:
        ValueError: If α is negative or the model holds no such regularizer.

    Example:
    >>> from tfconvbias.regularizers import KernelNumber
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, kernel_regularizer=KernelNumber(1e-4))])
    >>> set_alpha(model, 1e-3)
    1
    """
    value = check_alpha(alpha)
    found = {id(part): part for part in _penalties_in(model)}
    if not found:
        raise ValueError(
            "`model` holds no structured sparsity regularizer whose alpha could be set. "
            f"Received: model={model.name!r}"
        )
    for part in found.values():
        part.alpha = value
    return len(found)


def _penalties_in(layer):
    if isinstance(layer, PenaltyWeight):
        yield layer
    for regularizer in regularizers_of(layer):
        if isinstance(regularizer, PenaltyWeight):
            yield regularizer
    for part in getattr(layer, "layers", ()):
        yield from _penalties_in(part)


def regularizers_of(layer) -> list:
    """The regularizers of a layer's own kernels, built or not."""
    held = (getattr(layer, f"{argument}_regularizer", None) for argument in KERNEL_ARGUMENTS)
    return [regularizer for regularizer in held if regularizer is not None]
