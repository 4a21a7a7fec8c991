"""The penalty that removes whole kernels, and so learns the width of a layer."""

import math

import keras
from keras import ops

from tfconvbias.regularizers.group_norms import (
    group_weight,
    magnitude,
    safe_sqrt,
    shrink_factor,
    shrink_linf,
)
from tfconvbias.regularizers.structured_sparsity import StructuredSparsity


@keras.saving.register_keras_serializable(package="tfconvbias")
class KernelNumber(StructuredSparsity):
    r"""Penalty on the number of kernels of a layer: a group lasso with one group per kernel.

    With k_ij the kernel j of layer i (`norm="l2"`):

    ```
    α Ω1 = α Σ_j ‖k_ij‖        d'_i = Σ_j ‖k_ij‖ relaxes the width d_i      (eq. 12, 13)
    ```

    Use it as `kernel_regularizer` of any Conv or Dense layer; `norm` replaces ‖·‖₂ by
    ‖·‖₂/√|G| (`"normalized"`, eq. 25, printed without its squares), √|G|·‖·‖₂ (`"scaled"`,
    eq. 29) or the maximum (`"linf"`). Gradient descent leaves kernels only near zero, so a
    threshold follows (`tfconvbias.surgery.threshold`); `tfconvbias.optimizers.Proximal` gives
    exact zeros instead.

    Args:
        alpha: α >= 0, may be changed while a model trains: `regularizer.alpha = 1e-3`, or
            `tfconvbias.regularizers.set_alpha(model, 1e-3)`.
        norm: `"l2"` (default), `"normalized"`, `"scaled"` or `"linf"`.
        kernel_axes: Axes that count the kernels: -1 (default, Conv and Dense), `(-2, -1)` for a
            depthwise kernel, -2 for a transposed convolution.

    Raises:
        ValueError: For a negative α, an unknown norm, or on a weight that is no kernel.

    Example:
    >>> regularizer = KernelNumber(0.5)
    >>> float(regularizer(keras.ops.ones((2, 2, 1, 3))))
    3.0

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", eqs. 11-14.
    """

    def group_norms(self, kernel):
        columns = self.columns(kernel)
        axes = tuple(range(len(columns.shape) - 1))
        if self.norm == "linf":
            return ops.max(magnitude(columns), axis=axes)[None]
        weight = float(group_weight(self.norm, math.prod(columns.shape[:-1])))
        return weight * safe_sqrt(ops.sum(ops.square(columns), axis=axes))[None]

    def measure(self, kernel):
        return self.group_norms(kernel)[0]

    def proximal(self, kernel, step):
        columns = self.columns(kernel)
        if self.norm == "linf":
            flat = ops.reshape(columns, (-1, columns.shape[-1]))
            shrunk = ops.reshape(shrink_linf(flat, step), columns.shape)
            return self.restore(shrunk, kernel.shape)
        axes = tuple(range(len(columns.shape) - 1))
        weight = float(group_weight(self.norm, math.prod(columns.shape[:-1])))
        norms = ops.sqrt(ops.sum(ops.square(columns), axis=axes))
        return self.restore(columns * shrink_factor(norms, step * weight), kernel.shape)
