"""The penalty that peels kernels from the outside in, and so learns their sizes."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.regularizers.group_norms import (
    group_weight,
    magnitude,
    safe_sqrt,
    shrink_factor,
    shrink_linf,
)
from tfconvbias.regularizers.nested_groups import STRATEGIES, increments, memberships, num_groups
from tfconvbias.regularizers.structured_sparsity import StructuredSparsity


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class KernelSize(StructuredSparsity):
    r"""Penalty on the size of every kernel: nested groups that grow from the outside in.

    With k_ij(G_n) the part of kernel j of layer i in group G_n, G_1 ⊂ G_2 ⊂ … ⊂ the whole kernel:

    ```
    α Ω2 = α Σ_j Σ_n ‖k_ij(G_n)‖      s'_ij = Σ_n ‖k_ij(G_n)‖ relaxes the size s_ij   (eq. 21, 22)
    ```

    `groups="half_ring"` peels in turn the top-left and the bottom-right row and column, so that
    sizes 0…ŝ occur; `"ring"` peels both at once: sizes 0, 1, 3, …, ŝ. The last group is the whole
    kernel, so this penalty removes kernels too. With all groups dead but `live` ones the size is
    `live` for half-rings and 2·live − 1 for rings (0 if none): the draft's claim that eq. 20 holds
    for rings as well is wrong.

    Args:
        alpha: α >= 0, may be changed while a model trains.
        groups: `"half_ring"` (default) or `"ring"`.
        norm: `"l2"` (default); `"normalized"`, ‖·‖₂/√|G| with |G| the number of weights in the
            group; `"scaled"`, √|G|·‖·‖₂; or `"linf"`, the maximum.
        kernel_axes: Axes that count the kernels: -1 (default, Conv), `(-2, -1)` for a depthwise
            kernel, -2 for a transposed convolution.

    Raises:
        ValueError: For a negative α, unknown groups or norm, a weight without spatial axes or with
            unequal ones.

    Example:
    >>> regularizer = KernelSize(1.0, norm="linf")
    >>> float(regularizer(keras.ops.ones((3, 3, 1, 1))))
    3.0

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", eqs. 17-23;
        the proximal operator is that of Jenatton et al., "Proximal Methods for Hierarchical Sparse
        Coding", JMLR 2011: one pass over the groups, inner ones first.
    """

    def __init__(
        self,
        alpha: float,
        groups: str = "half_ring",
        norm: str = "l2",
        kernel_axes: int | Sequence[int] = -1,
        name: str | None = None,
    ):
        super().__init__(alpha, norm=norm, kernel_axes=kernel_axes, name=name)
        if groups not in STRATEGIES:
            raise ValueError(f"`groups` must be one of {STRATEGIES}. Received: groups={groups!r}")
        self.groups = groups

    def check_kernel(self, shape) -> None:
        super().check_kernel(shape)
        spatial = tuple(shape[:-2])
        if not spatial or len(set(spatial)) != 1:
            raise ValueError(
                "`KernelSize` needs a convolution kernel with spatial axes of one size; use "
                f"`KernelNumber` for other kernels. Received: a variable of shape {tuple(shape)}"
            )

    def group_norms(self, kernel):
        columns = self.columns(kernel)
        size, rank = columns.shape[0], len(columns.shape) - 2
        member = memberships(size, rank, self.groups)
        if self.norm == "linf":
            peaks = ops.reshape(ops.max(magnitude(columns), axis=-2), (1, size**rank, -1))
            return ops.max(ops.where(member[:, :, None], peaks, 0.0), axis=1)
        energy = ops.reshape(ops.sum(ops.square(columns), axis=-2), (size**rank, -1))
        squares = ops.matmul(ops.cast(member, energy.dtype), energy)
        return ops.cast(self._weights_of(member, columns), energy.dtype) * safe_sqrt(squares)

    def _weights_of(self, member, columns) -> np.ndarray:
        return group_weight(self.norm, member.sum(axis=1) * columns.shape[-2])[:, None]

    def measure(self, kernel):
        return ops.sum(self.group_norms(kernel), axis=0)

    def proximal(self, kernel, step):
        columns = self.columns(kernel)
        shrunk = (
            self._shrink_linf(columns, step) if self.norm == "linf" else self._shrink(columns, step)
        )
        return self.restore(shrunk, kernel.shape)

    def _shrink(self, columns, step):
        """Every group in turn, inner ones first; only the norms of the rings are carried."""
        size, rank = columns.shape[0], len(columns.shape) - 2
        first = increments(size, rank, self.groups).reshape(-1)
        count = num_groups(size, self.groups)
        ring = first[None, :] == np.arange(count)[:, None]
        weights = self._weights_of(memberships(size, rank, self.groups), columns)
        energy = ops.reshape(ops.sum(ops.square(columns), axis=-2), (size**rank, -1))
        rings = ops.matmul(ops.cast(ring, energy.dtype), energy)
        # inside: squared norm of the group so far; factor: what each ring has been scaled by.
        inside = ops.zeros_like(rings[0])
        factors: list = []
        for n in range(count):
            inside = inside + rings[n]
            shrink = shrink_factor(ops.sqrt(inside), step * float(weights[n, 0]))
            inside = inside * ops.square(shrink)
            factors = [factor * shrink for factor in factors] + [shrink]
        scale = ops.matmul(ops.cast(ring.T, energy.dtype), ops.stack(factors))
        return columns * ops.reshape(scale, (*(size,) * rank, 1, -1))

    def _shrink_linf(self, columns, step):
        size, rank = columns.shape[0], len(columns.shape) - 2
        inputs = columns.shape[-2]
        flat = ops.reshape(columns, (math.prod(columns.shape[:-1]), -1))
        for member in memberships(size, rank, self.groups):
            rows = np.repeat(member, inputs)[:, None]
            # Zeros outside the group do not change the projection onto the ℓ1 ball.
            flat = ops.where(rows, shrink_linf(ops.where(rows, flat, 0.0), step), flat)
        return ops.reshape(flat, columns.shape)

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}
