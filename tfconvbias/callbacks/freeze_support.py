"""Zeros that stay zero under any optimizer, and what that misses."""

import re
from typing import Annotated, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis import LossDerivatives
from tfconvbias.arguments import NonNegativeInt, PositiveInt, Range, checked
from tfconvbias.callbacks.measurement import Measurement
from tfconvbias.optimizers import BetaLasso, is_kernel


class FreezeAudit(NamedTuple):
    """What one kernel's frozen zeros would have done in a step.

    Attributes:
        epoch: Index of the epoch after which the gradient was taken.
        path: Path of the kernel.
        frozen: Number of weights that are kept at zero.
        missed: How many of them have a gradient that reaches the limit.
        limit: What the magnitude of a gradient has to reach.
    """

    epoch: int
    path: str
    frozen: int
    missed: int
    limit: float


@checked
class FreezeSupport(Measurement):
    """Keep every weight that is zero when training begins at zero, and count what that misses.

    The optimizer, whatever it is, updates all weights, and the frozen ones are set to zero again
    within the same step, on every backend. A frozen network can be trained as `layers.SparseDense`;
    this callback shows before whether freezing costs anything.

    `CertifiedSparsity` proves that a zero stays zero, and needs β-LASSO without momentum for it.
    Freezing proves nothing, hence the audits: after every `every` epochs the gradient of the loss
    on one batch, drawn from `x` and `y`, is computed for all weights, and a frozen weight counts as
    missed if

    ```
    |g| >= limit,     by default β λ / η of the optimizer `BetaLasso`
    ```

    With the default, and neither momentum nor clipping, these are the zeros that would have come
    back in a step on that batch. Other optimizers know no such number, and need a `limit`; the
    gradients of weights that are not frozen are a measure for it.

    The callback adds `missed` to the logs, the number over all kernels (NaN in epochs without an
    audit); `audits` holds a `FreezeAudit` for each kernel and audit. Put it before callbacks that
    write the logs. It works through the kernels' constraints, which are put back when training
    ends; if an exception ends training, call `release()`. An average of weights that `use_ema`
    writes into the model when training ends has the frozen zeros as well, if it began with them.

    Args:
        x: Inputs to draw the audited batches from.
        y: Targets.
        layers: A regular expression, searched for in the paths of the trainable kernels. By default
            all of them.
        limit: What the magnitude of a missed weight's gradient reaches, or None for that of
            `BetaLasso`; infinity counts none.
        every: Epochs between two audits. The last epoch is always audited.
        batch_size: Number of examples in an audited batch; at most that of `x`.
        seed: Seed of the drawing of the batches.

    Raises:
        ValueError: If `limit` is not positive or `every` below 1. When training begins: if no
            kernel matches `layers`, or there is no `limit` and the optimizer is not `BetaLasso`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> _ = model.layers[0].kernel.assign([[1.0], [0.0]])
        >>> model.compile(keras.optimizers.Adam(0.1), "mse")
        >>> x, y = np.ones((4, 2)), np.full((4, 1), 3.0)
        >>> freeze = FreezeSupport(x, y, limit=0.1)
        >>> history = model.fit(x, y, verbose=0, callbacks=[freeze]).history
        >>> history["missed"], float(model.layers[0].kernel[1, 0])
        ([1], 0.0)
    """

    names = ("missed",)

    def __init__(
        self,
        x: Any,
        y: Any,
        layers: str | None = None,
        limit: Annotated[float, Range(above=0, infinite=True)] | None = None,
        *,
        every: PositiveInt = 1,
        batch_size: PositiveInt = 128,
        seed: NonNegativeInt = 0,
    ):
        super().__init__(every)
        self.x, self.y = x, y
        self.layers = layers
        self.limit = limit
        self.batch_size = batch_size
        self.seed = seed
        self.audits: list[FreezeAudit] = []
        self._constraints: list[tuple] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the zeros and have each step put them back."""
        if self.limit is None and not isinstance(self.model.optimizer, BetaLasso):
            raise ValueError(
                "Only `BetaLasso` says which gradient brings a zero back; give a `limit`. "
                f"Received: limit=None with {type(self.model.optimizer).__name__}"
            )
        kernels = [
            variable
            for variable in self.model.trainable_variables
            if is_kernel(variable) and re.search(self.layers or "", variable.path)
        ]
        if not kernels:
            raise ValueError(
                "`layers` must be found in the path of a trainable kernel. "
                f"Received: layers={self.layers!r}"
            )
        self.release()
        self.audits = []
        self._noise = np.random.default_rng(self.seed)
        self._frozen = [ops.convert_to_numpy(kernel) == 0 for kernel in kernels]
        self._derivatives = LossDerivatives(
            self.model,
            self.x,
            self.y,
            self.model.loss,
            training=True,
            include_penalties=False,
            variables=kernels,
        )
        self._constraints = [(kernel, kernel.constraint) for kernel in kernels]
        for kernel, frozen in zip(kernels, self._frozen, strict=True):
            kernel.constraint = _Frozen(frozen, kernel.constraint)
        # A step that was compiled before knows nothing of the constraints.
        self.model.make_train_function(force=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Audit after the epoch's last step."""
        self._epoch = epoch
        super().on_epoch_end(epoch, logs)

    def measure(self, logs: dict) -> dict[str, float]:
        """The number of frozen weights whose gradient on one batch reaches the limit."""
        size = self._derivatives.num_samples
        rows = self._noise.choice(size, min(self.batch_size, size), replace=False)
        gradients = self._derivatives.gradient(np.sort(rows))
        begin = total = 0
        for (kernel, _), frozen in zip(self._constraints, self._frozen, strict=True):
            gradient = gradients[begin : begin + frozen.size].reshape(frozen.shape)
            begin += frozen.size
            limit = self._limit(kernel)
            # Asked this way round, a NaN is missed.
            missed = int(np.count_nonzero(frozen & ~(np.abs(gradient) < limit)))
            num_frozen = int(np.count_nonzero(frozen))
            self.audits.append(FreezeAudit(self._epoch, kernel.path, num_frozen, missed, limit))
            total += missed
        return {"missed": total}

    def on_train_end(self, logs: dict | None = None) -> None:
        """Give the kernels their own constraints back."""
        self.release()

    def release(self) -> None:
        """Let the weights go, as `on_train_end` does."""
        if self._constraints:
            for kernel, constraint in self._constraints:
                kernel.constraint = constraint
            self._constraints = []
            self.model.make_train_function(force=True)

    def _limit(self, kernel) -> float:
        if self.limit is not None:
            return self.limit
        sizes = self.model.optimizer.step_sizes(kernel)
        if sizes is None:
            # Without a threshold every gradient moves a zero.
            return 0.0
        rate, _, cutoff = (float(ops.convert_to_numpy(size)) for size in sizes)
        return cutoff / rate if rate > 0 else float("inf")


class _Frozen(keras.constraints.Constraint):
    """A kernel's own constraint, and then zeros where it is frozen."""

    def __init__(self, frozen, constraint):
        self.frozen, self.constraint = frozen, constraint

    def __call__(self, weights):
        if self.constraint is not None:
            weights = self.constraint(weights)
        # A `keras.Variable` without a constraint of its own.
        weights = ops.convert_to_tensor(weights)
        return ops.where(self.frozen, ops.zeros_like(weights), weights)
