"""Kernels during training: how many are live, and how alike they are."""

import keras
import numpy as np

from tfconvbias import analysis
from tfconvbias.arguments import NonNegativeFloat, PositiveInt, checked
from tfconvbias.callbacks.measurement import Measurement
from tfconvbias.regularizers import KernelNumber, StructuredSparsity


@checked
class LiveKernels(Measurement):
    """Add `live_kernels` to the logs: convolution kernels with a norm above a threshold.

    Args:
        penalty: Penalty whose norm of a whole kernel is compared with τ. Defaults to the ℓ2 norm.
        tau: The threshold τ; 0 counts the kernels that are not exactly zero.
        relative: Whether τ is a fraction of the largest norm in the same layer.
        every: Epochs between two measurements.

    Example:
        >>> watcher = LiveKernels(tau=1e-3)
        >>> watcher.names
        ('live_kernels',)
    """

    names = ("live_kernels",)

    def __init__(
        self,
        penalty: StructuredSparsity | None = None,
        tau: NonNegativeFloat = 0.0,
        relative: bool = False,
        every: PositiveInt = 1,
    ):
        super().__init__(every)
        self.penalty = penalty or KernelNumber(0.0)
        self.tau = tau
        self.relative = relative

    def measure(self, logs: dict) -> dict[str, float]:
        """The number of live kernels of the present model."""
        count = 0
        for kernel in analysis.kernels(self.model).values():
            if len(kernel.shape) > 2:
                norms = keras.ops.convert_to_numpy(self.penalty.group_norms(kernel.value)[-1])
                bound = self.tau * norms.max() if self.relative else self.tau
                count += int((norms > bound).sum())
        return {"live_kernels": float(count)}


class KernelCorrelation(Measurement):
    """Add `kernel_correlation` to the logs: the mean over layers of `analysis.kernel_correlation`.

    Layers with fewer than two live kernels are left out; the value is NaN if no layer is left.

    Args:
        every: Epochs between two measurements.

    Example:
        >>> watcher = KernelCorrelation(every=5)
        >>> watcher.every
        5
    """

    names = ("kernel_correlation",)

    def measure(self, logs: dict) -> dict[str, float]:
        """The mean correlation of the present model."""
        found = [v for v in analysis.kernel_correlation(self.model).values() if np.isfinite(v)]
        return {"kernel_correlation": float(np.mean(found)) if found else float("nan")}
