r"""Sharpness of the loss during training, against the edge of stability."""

from typing import Any

import keras

from tfconvbias.analysis import (
    HessianEigenvalues,
    LossDerivatives,
    gradient_norm,
    top_hessian_eigenvalues,
)
from tfconvbias.arguments import OpenShare, PositiveInt, checked
from tfconvbias.callbacks.measurement import Measurement


@checked
class Sharpness(Measurement):
    r"""Log the top Hessian eigenvalue `sharpness` and, for SGD, the `edge` of stability.

    Gradient descent with step size η diverges along directions whose curvature exceeds 2/η; full
    batches drive the sharpness up to that edge and hold it there. With momentum μ the edge is
    $2 (1 + \mu) / \eta$, and $(2 + 2\mu) / (\eta (1 + 2\mu))$ with Nesterov's. The optimizer's own
    weight decay λ multiplies either one by $1 - \eta\lambda/2$, along the weights that decay; an
    ℓ2 penalty belongs to the loss instead, and so to the sharpness. The step size is read from the
    optimizer at each measurement, so that the edge follows a schedule. Sharpness and edge are in
    the units of the compiled loss: with Keras' `"mse"` at step size η/2 both are twice what they
    are with half the mean squared error at η, though the training is the same.

    SGD may stand inside optimizers that hold another one as `inner_optimizer`, such as
    `LossScaleOptimizer` or `Proximal`, whose step after the update is a contraction and keeps the
    edge where it is.

    Each search starts from the eigenvectors of the last one, so that a measurement soon after
    another costs a few Hessian-vector products.

    Logs: `sharpness` (and `sharpness_2` to `sharpness_k`), `edge` with `include_edge`,
    `gradient_norm` with `include_gradient_norm`. They are NaN when the model has diverged.

    Attributes:
        measurements: Name → every value that this `fit` measured, also during an epoch; `step`
            counts the training steps before each.

    Args:
        x: Inputs of the data set whose loss is measured, usually the training set; or a data set
            as `analysis.LossDerivatives` takes it.
        y: Targets; `None` for a data set.
        loss: Loss, or one for each output. Defaults to the compiled loss.
        k: Number of eigenvalues.
        every: Epochs between two measurements.
        every_steps: Training steps between two measurements during an epoch, from step 0 on; with
            `steps_per_execution` they take place after the execution that reaches the step. `None`
            measures at the end of epochs only. `measurements` holds them.
        include_edge: Whether to log the edge, which only SGD has.
        include_gradient_norm: Whether to log the gradient's norm as well.
        tolerance: Residual of the eigenvalues, as in `analysis.top_hessian_eigenvalues`.
        **options: Further arguments of `analysis.LossDerivatives`, such as `batch_size`.

    Raises:
        ValueError: When training begins, if `include_edge` is set and the optimizer isn't SGD.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x, y = np.ones((4, 1)), np.zeros((4, 1))
    >>> history = model.fit(x, y, callbacks=[Sharpness(x, y)], verbose=0).history
    >>> [round(history[name][0], 3) for name in ("sharpness", "edge")]
    [2.0, 20.0]

    Reference: Cohen et al. 2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge
    of Stability"; arXiv 2603.04807.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        loss: Any = None,
        *,
        k: PositiveInt = 1,
        every: PositiveInt = 1,
        every_steps: PositiveInt | None = None,
        include_edge: bool = True,
        include_gradient_norm: bool = False,
        tolerance: OpenShare = 1e-3,
        **options: Any,
    ):
        super().__init__(every)
        self.x, self.y, self.loss = x, y, loss
        self.k = k
        self.every_steps = every_steps
        self.include_edge = include_edge
        self.include_gradient_norm = include_gradient_norm
        self.tolerance = tolerance
        self.options = options
        self.names = ("sharpness", *(f"sharpness_{i}" for i in range(2, k + 1)))
        self.names += ("edge",) * include_edge + ("gradient_norm",) * include_gradient_norm
        self.measurements: dict[str, list[float]] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Build the derivatives of the loss; forget what an earlier `fit` measured."""
        if self.include_edge and not isinstance(
            _innermost(self.model.optimizer), keras.optimizers.SGD
        ):
            raise ValueError(
                "The edge of stability 2/η is that of SGD; set `include_edge=False`. "
                f"Received: optimizer={self.model.optimizer!r}"
            )
        self._derivatives = LossDerivatives(self.model, self.x, self.y, self.loss, **self.options)
        self._last: HessianEigenvalues | None = None
        self._step = self._epoch_start = 0
        self.measurements = {name: [] for name in ("step", *self.names)}
        if self.every_steps is not None:
            self.measure({})

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Count the steps from here."""
        self._epoch_start = self._step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure after the step that completes a multiple of `every_steps`."""
        # Keras counts the last execution of an epoch in full, also where it was cut short.
        steps = min(batch + 1, self.params.get("steps") or batch + 1)
        before, self._step = self._step, self._epoch_start + steps
        if self.every_steps and self._step // self.every_steps > before // self.every_steps:
            self.measure({})

    def measure(self, logs: dict) -> dict[str, float]:
        """Top eigenvalues, edge and gradient norm of the present model."""
        values = dict.fromkeys(self.names, float("nan"))
        # On JAX this brings the variables up to date during an epoch.
        optimizer = self.model.optimizer
        try:
            found = top_hessian_eigenvalues(
                self._derivatives, k=self.k, tolerance=self.tolerance, start=self._last
            )
            values.update(zip(self.names, map(float, found.values), strict=False))
            self._last = found
        except FloatingPointError:
            self._last = None
        if self.include_edge:
            values["edge"] = _edge(_innermost(optimizer))
        if self.include_gradient_norm:
            values["gradient_norm"] = gradient_norm(self._derivatives)
        known = self.measurements
        again = known["step"][-1:] == [self._step]
        for name, value in {"step": self._step, **values}.items():
            known[name][len(known[name]) - again :] = [value]
        return values


def _innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _edge(optimizer: keras.optimizers.SGD) -> float:
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    if rate == 0:
        return float("inf")
    momentum = optimizer.momentum
    damping = 1 + 2 * momentum if optimizer.nesterov else 1.0
    decay = rate * (optimizer.weight_decay or 0.0)
    return (2 - decay) * (1 + momentum) / (rate * damping)
