"""A dense layer's kernel during certified sparse training: its non-zeros, and one exact step."""

import time
from dataclasses import dataclass, field

import numpy as np

from tfconvbias.layers.sparse_products import (
    input_gradient,
    kernel_product,
    map_on_cores,
    num_cores,
    units_of,
    weight_gradient,
)
from tfconvbias.optimizers import StepSizes
from tfconvbias.optimizers.support_certificate import Reaching, reaching_weights

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
        peak_bytes: Most memory that the stored weights and their gradients took in a step.
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
        self.values = kernel[rows, units]
        self._store(rows.astype("int32"), units)

    def dense(self):
        """The kernel as an array `(inputs, units)`."""
        kernel = np.zeros(self.shape, self.values.dtype)
        kernel[self.rows, units_of(self.starts)] = self.values
        return kernel

    @property
    def num_stored(self) -> int:
        """Number of weights in store, a few of which may have become zero."""
        return self.values.size

    def product(self, inputs):
        """The units' sums, `(units, batch)`."""
        begin = time.perf_counter()
        outputs = kernel_product(inputs, self.values, self.rows, self.starts)
        self._seconds += time.perf_counter() - begin
        return outputs

    def input_gradient(self, gradient):
        """The gradient of the inputs, `(inputs, batch)`, from that of the units' sums."""
        begin = time.perf_counter()
        outputs = input_gradient(gradient, self.values, self.rows, self.starts, self.shape[0])
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
        counts = self.counts
        gradients = weight_gradient(inputs, gradient, self.rows, self.starts)
        was_zero = self.values == 0
        stored = self._stepped(self.values, gradients, sizes)
        counts.returned += int(np.count_nonzero(stored[was_zero]))
        limit = float(sizes.cutoff) / float(sizes.rate) if sizes.rate > 0 else np.inf
        reaching = reaching_weights(inputs, gradient, limit, map_on_cores, num_cores())
        self.values = stored
        arrived = self._insert(reaching, sizes) if reaching.rows.size else 0
        dropped = self.values.size - np.count_nonzero(self.values)
        if dropped > _DROPPED_AT * self.values.size:
            keep = np.flatnonzero(self.values)
            units = units_of(self.starts)[keep]
            self.values = self.values[keep]
            self._store(self.rows[keep], units)
        counts.steps += 1
        counts.examples = inputs.shape[1]
        counts.units_checked += reaching.num_checked
        counts.returned += arrived
        held = self.values.nbytes + self.rows.nbytes + self.starts.nbytes + gradients.nbytes
        counts.peak_bytes = max(counts.peak_bytes, held + reaching.num_bytes)
        counts.seconds.append(self._seconds + time.perf_counter() - begin)
        self._seconds = 0.0

    def _store(self, rows, units):
        self.rows = rows
        self.starts = np.searchsorted(units, np.arange(self.shape[1] + 1)).astype("int64")

    def _stepped(self, weights, gradients, sizes):
        """`hard_threshold_step` or `soft_threshold_step` of the optimizer, in NumPy."""
        if self.clipvalue is not None:
            gradients = np.clip(gradients, -self.clipvalue, self.clipvalue)
        rate, pull, cutoff = (np.asarray(size, weights.dtype) for size in sizes)
        stepped = weights - (rate * gradients + pull * np.sign(weights))
        if self.threshold == "soft":
            return np.sign(stepped) * np.maximum(np.abs(stepped) - cutoff, 0)
        stepped[np.abs(stepped) < cutoff] = 0
        return stepped

    def _insert(self, reaching: Reaching, sizes):
        """Store those of the given zero weights that the step makes non-zero; how many."""
        rows, units, gradients = reaching[:3]
        arriving = self._stepped(np.zeros_like(gradients), gradients, sizes)
        moved = np.flatnonzero(arriving)
        num_inputs = self.shape[0]
        stored_units = units_of(self.starts)
        stored = stored_units.astype("int64") * num_inputs + self.rows
        asked = units[moved].astype("int64") * num_inputs + rows[moved]
        # The block of gradients holds those of stored weights too; they have had their step.
        position = np.searchsorted(stored, asked)
        known = np.zeros(asked.size, bool)
        inside = position < stored.size
        known[inside] = stored[position[inside]] == asked[inside]
        moved, position = moved[~known], position[~known]
        if moved.size:
            self.values = np.insert(self.values, position, arriving[moved])
            units = np.insert(stored_units, position, units[moved])
            self._store(np.insert(self.rows, position, rows[moved]), units)
        return moved.size
