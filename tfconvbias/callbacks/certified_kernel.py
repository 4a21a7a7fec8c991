"""A dense layer's kernel during certified sparse training: its non-zeros, and one exact step."""

import time
from dataclasses import dataclass, field

import numpy as np

from tfconvbias.callbacks.weight_steps import Rule, Stored, merge, step
from tfconvbias.layers.sparse_products import (
    input_gradient,
    kernel_product,
    map_on_cores,
    num_cores,
    units_of,
)
from tfconvbias.optimizers import StepSizes
from tfconvbias.optimizers.support_certificate import reaching_weights

# Stored weights that have become zero are dropped once they are this part of all that is stored.
_DROPPED_AT = 0.1


@dataclass
class StepCounts:
    """What happened to one layer's zeros since the counts were last reset.

    Attributes:
        steps: Steps that were taken.
        units_checked: Units, summed over steps, for which the bound did not settle all zeros.
        returned: Zero weights, summed over steps, that came back.
        examples: Examples of the latest step.
        seconds: For each step, the time spent in the layer's products, update and check.
        peak_bytes: Most memory that the stored weights and the check of the others took in a step.
    """

    steps: int = 0
    units_checked: int = 0
    returned: int = 0
    examples: int = 0
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0


class CertifiedKernel:
    """The non-zero weights of a kernel `(inputs, units)`, trained by exact β-LASSO steps.

    Every stored weight has its gradient computed and is updated as in the dense layer. Of all other
    weights, which are zero, those that the certificate cannot prove to stay zero have their
    gradients computed too, and those that come back are stored from then on.

    Activations come transposed: `(inputs, batch)` and `(units, batch)`.

    Args:
        threshold: `"hard"` or `"soft"`, as in `BetaLasso`.
        clipvalue: Gradients are clipped to `[-clipvalue, clipvalue]`, or None.
    """

    def __init__(self, threshold: str = "hard", clipvalue: float | None = None):
        self.threshold = threshold
        self.clipvalue = clipvalue
        self.counts = StepCounts()
        self._seconds = 0.0

    def load(self, kernel) -> None:
        """Take the non-zeros of a dense kernel `(inputs, units)`."""
        self.shape = kernel.shape
        units, rows = np.nonzero(kernel.T)
        starts = np.searchsorted(units, np.arange(self.shape[1] + 1)).astype("int64")
        self._stored = Stored(kernel[rows, units], rows.astype("int32"), starts)

    def dense(self):
        """The kernel as an array `(inputs, units)`."""
        values, rows, starts = self._stored
        kernel = np.zeros(self.shape, values.dtype)
        kernel[rows, units_of(starts)] = values
        return kernel

    @property
    def dtype(self) -> np.dtype:
        """Type of the weights."""
        return self._stored.values.dtype

    @property
    def num_stored(self) -> int:
        """Number of weights in store, a few of which may have become zero."""
        return self._stored.values.size

    def product(self, inputs):
        """The units' sums, `(units, batch)`."""
        begin = time.perf_counter()
        outputs = kernel_product(inputs, *self._stored)
        self._seconds += time.perf_counter() - begin
        return outputs

    def input_gradient(self, gradient):
        """The gradient of the inputs, `(inputs, batch)`, from that of the units' sums."""
        begin = time.perf_counter()
        outputs = input_gradient(gradient, *self._stored, self.shape[0])
        self._seconds += time.perf_counter() - begin
        return outputs

    def update(self, inputs, gradient, sizes: StepSizes) -> None:
        """One step of β-LASSO on every weight, stored or not.

        Args:
            inputs: Array `(inputs, batch)`.
            gradient: Array `(units, batch)`: the gradient of the units' sums.
            sizes: η, η λ and β λ of this step.
        """
        begin = time.perf_counter()
        clip = np.inf if self.clipvalue is None else self.clipvalue
        rule = Rule(sizes, clip, self.threshold == "soft")
        stored, returned, num_zeros, num_bytes = step(self._stored, inputs, gradient, rule)
        limit = float(sizes.cutoff) / float(sizes.rate) if sizes.rate > 0 else np.inf
        reaching = reaching_weights(inputs, gradient, limit, map_on_cores, num_cores())
        arriving = rule.stepped(np.zeros_like(reaching.gradients), reaching.gradients)
        if arriving.any() or num_zeros > _DROPPED_AT * stored.values.size:
            stored, arrived = merge(stored, reaching.rows, reaching.units, arriving)
            returned += arrived
            num_bytes += stored.num_bytes
        self._stored = stored
        counts = self.counts
        counts.steps += 1
        counts.examples = inputs.shape[1]
        counts.units_checked += reaching.num_checked
        counts.returned += returned
        counts.peak_bytes = max(counts.peak_bytes, num_bytes + reaching.num_bytes)
        counts.seconds.append(self._seconds + time.perf_counter() - begin)
        self._seconds = 0.0
