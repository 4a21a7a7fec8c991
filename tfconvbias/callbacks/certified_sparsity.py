"""β-LASSO at the cost of the weights that are left."""

import re
import statistics
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.callbacks.certified_kernel import CertifiedKernel, StepCounts
from tfconvbias.callbacks.certified_limits import check_run, find_layers
from tfconvbias.callbacks.certified_step import CertifiedStep, make_step
from tfconvbias.callbacks.layer_costs import dense_seconds, sparse_seconds

# A layer above this density is not worth timing: a processor multiplies dense matrices some ten
# times faster per weight.
_HIGHEST_DENSITY = 0.2


# A layer that trains on its non-zeros shows within these steps whether that is faster.
_TRIAL_STEPS = 8


@dataclass(frozen=True)
class LayerEpoch:
    """How one layer was trained in one epoch, and what its zeros did.

    Attributes:
        epoch: Index of the epoch.
        layer: Name of the layer.
        is_sparse: Whether it was trained on its non-zeros.
        reason: Why.
        density: Part of the weights that were not zero when the epoch began.
        steps: Steps taken on the non-zeros; 0 where the layer was dense, like all that follows.
        checked: Part of the units, over all steps, for which the bound did not settle all zeros.
        returned: Zero weights that came back, summed over steps.
        sparse_ms: Median time of the layer's products, update and checks in a step.
        dense_ms: Time of the same work with the whole kernel, measured once.
        sparse_bytes: Most memory that weights, indices and gradients took.
        dense_bytes: Memory of the whole kernel and its gradient.
    """

    epoch: int
    layer: str
    is_sparse: bool
    reason: str
    density: float
    steps: int = 0
    checked: float = 0.0
    returned: int = 0
    sparse_ms: float = 0.0
    dense_ms: float = 0.0
    sparse_bytes: int = 0
    dense_bytes: int = 0


@checked
class CertifiedSparsity(keras.callbacks.Callback):
    """Train dense layers with β-LASSO at the cost of their non-zero weights, exactly.

    The run is the dense run: after every step the same weights are zero, and the others are equal
    up to rounding. (Where a weight lies on the threshold to the last bit, rounding decides its
    side, as it does between two machines.) Only the cost changes: a layer's products, gradients and
    updates are computed for its non-zeros, and a zero weight's gradient only where it could matter.

    With inputs `x` and gradients `d` of the units' sums over a batch, weight `(i, j)` has the
    gradient `g_ij = Σ_b x_bi d_bj`, and with momentum 0 a zero comes back only if η |g_ij| >= β λ.
    For the mean `c_i` of input `i` over the batch,

    ```
    |g_ij| <= ‖x_i - c_i‖₂ ‖d_j‖₂ + |c_i| |Σ_b d_bj|
    ```

    which, widened by what rounding can do, proves for many units that all of their zeros stay. The
    zeros of the other units go through products of integers of 8 or 16 bits, exact but for the
    rounding of activations to integers, which the same inequality bounds: that settles nearly all
    of them at a fraction of the time of their gradients. The few that are left have their gradients
    computed, and weights that come back join the others. Without Numba, all zeros of units that the
    bound does not settle have their gradients computed. The second term is small where a
    `BatchNormalization` follows the layer.

    Steps are fastest when the learning rate is small, since the bound then settles all units. At a
    large rate it may settle none, and the integers are what a step mostly costs. What a step costs
    outside the sparse layers (other layers, augmentation) stays as it is and limits the gain: with
    a few hundred weights in a layer nothing is gained at all, which `choose="measured"` finds out.

    Before each epoch every layer is timed, with its whole kernel and with its non-zeros, and takes
    the faster form. A layer whose first steps then turn out slower than dense ones, since too many
    zeros had to be checked, is dense for the rest of the epoch. `report` and `summary()` say for
    every epoch which form was chosen, why, and what it saved.

    The model stays the object that was compiled, and after each epoch, before validation and the
    other callbacks, its kernels hold the weights. Between the steps of an epoch, the kernel of a
    layer that trains on its non-zeros is empty on TensorFlow and PyTorch; a saved model is complete
    even then. If another callback raises an exception there, or on PyTorch the data do,
    `put_back()` brings the weights back. On JAX, Keras takes the weights of all layers out of the
    model during an epoch; a callback that asks for `self.model` gets them all, and each time that
    takes time and memory for the whole kernels. The products run on the processor, whatever the
    rest of the model runs on. The training step is not compiled by XLA on TensorFlow while a layer
    is sparse; on JAX it is, up to the products. Validation runs on the dense kernels. The callback
    adds `checked/<layer>` and `returned/<layer>` to the logs of each epoch (NaN while the layer is
    dense); put it before callbacks that write them.

    Numba, if installed (`pip install tfconvbias[sparse]`), makes the sparse steps several times
    faster; at a large learning rate they do not pay without it.

    Args:
        layers: A regular expression, searched for in the names of the dense layers: these are
            sparse as soon as that is faster, and it is an error if one cannot be. By default every
            `keras.layers.Dense` that can be: trainable, penalized by the optimizer, without
            regularizer or constraint of its kernel, not adapted by LoRA or quantized, and computing
            in the dtype of its kernel.
        choose: `"measured"`, or `"always"` to train every such layer sparsely from the first epoch,
            faster or not.
        batch_size: Number of examples that the first comparison assumes. Later ones use what the
            steps have shown.
        verbose: 1 prints `summary()` when training ends.

    Raises:
        ValueError: For arguments out of range. When training begins: if the optimizer is not
            `BetaLasso`, or uses momentum, `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`
            or gradient accumulation, with which a zero weight's future depends on more than its
            gradient in one step; if the model has a `train_step` of its own or is distributed; if
            no layer can be sparse. (`clipvalue`, `loss_scale_factor`, and schedules for η, λ and β
            are exact, as is assigning to them.)

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from tfconvbias.optimizers import BetaLasso
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
        >>> model.compile(BetaLasso(0.1, l1=0.01, beta=10), "mse")
        >>> sparsity = CertifiedSparsity(choose="always", verbose=0)
        >>> x, y = np.ones((16, 8)), np.ones((16, 4))
        >>> history = model.fit(x, y, batch_size=4, verbose=0, callbacks=[sparsity])
        >>> sparsity.report[0].steps
        4

    Reference:
        The certificate is ours; the algorithm is that of Neyshabur, "Towards Learning Convolutions
        from Scratch", NeurIPS 2020, Algorithm 1.
    """

    def __init__(
        self,
        layers: str | None = None,
        choose: str = "measured",
        batch_size: PositiveInt = 128,
        verbose: int = 1,
    ):
        super().__init__()
        if choose not in ("measured", "always"):
            raise ValueError(
                f"`choose` must be 'measured' or 'always'. Received: choose={choose!r}"
            )
        if layers is not None:
            try:
                re.compile(layers)
            except (TypeError, re.error) as error:
                raise ValueError(
                    f"`layers` must be a regular expression. Received: layers={layers!r} ({error})"
                ) from error
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.layers = layers
        self.choose = choose
        self.batch_size = batch_size
        self.verbose = verbose
        self.report: list[LayerEpoch] = []
        self._step: CertifiedStep | None = None

    def check(self, model: keras.Model) -> list[keras.Layer]:
        """The layers that can be trained on their non-zeros; `fit` asks this first.

        Args:
            model: A built and compiled model.

        Raises:
            ValueError: If a sparse run of the model would not be the dense one, as listed above.
        """
        check_run(model)
        return find_layers(model, self.layers)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuse what cannot be trained exactly and find the layers."""
        # On JAX every look at `self.model` makes Keras collect the weights.
        model = self._fitted = self.model
        self.report = []
        self._layers = self.check(model)
        self._dense_function = model.train_function
        self._dense_seconds: dict[str, float] = {}
        # A form that was compiled before is not compiled again when the layers go back to it.
        self._steps: dict[tuple, tuple] = {}
        self._num_steps = self.params.get("steps")
        self._last_batch = -1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Choose each layer's form and take out the kernels of the sparse ones."""
        self._plans = {layer: self._plan(epoch, layer) for layer in self._layers}
        chosen = [layer for layer, plan in self._plans.items() if plan.is_sparse]
        self._counts = {layer: StepCounts() for layer in chosen}
        self._tried: set = set()
        self._train_sparsely(chosen)

    def _train_sparsely(self, layers):
        """Have the model train these layers on their non-zeros, and the others as they are."""
        if not layers:
            self._step = None
            self.model.train_function = self._dense_function
            return
        key = tuple(layer.path for layer in layers)
        if key not in self._steps:
            optimizer = self.model.optimizer
            kernels = {x: CertifiedKernel(optimizer.threshold, optimizer.clipvalue) for x in layers}
            step = make_step(self.model, kernels)
            self._steps[key] = step, self._guarded(step)
        step, self.model.train_function = self._steps[key]
        for layer, kernel in step.kernels.items():
            kernel.counts = self._counts[layer]
        step.take_out()
        self._step = step

    def _guarded(self, step):
        """The step's train function, after whose errors the kernels are back in their place.

        The end of the data may be such an error where their number is not known before.
        """
        function = step.train_function()

        def run(*arguments):
            try:
                return function(*arguments)
            except BaseException:
                step.recover()
                self.put_back()
                raise

        return run

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Put the kernels back after the epoch's last step, before anything else reads them."""
        self._last_batch = batch
        if batch + 1 == self._num_steps or self._fitted.stop_training:
            self.put_back()
        elif self._step is not None and self.choose == "measured":
            self._leave_slow_layers(self._step)

    def _leave_slow_layers(self, step):
        """Go back to the dense form where the first steps of the epoch were slower than it."""
        slow = []
        for layer, kernel in step.kernels.items():
            seconds = kernel.counts.seconds
            if layer not in self._tried and len(seconds) >= _TRIAL_STEPS:
                self._tried.add(layer)
                # The first step may have to compile.
                if statistics.median(seconds[1:]) > self._dense_seconds[layer.path]:
                    slow.append(layer)
        if slow:
            self.put_back()
            self._train_sparsely([layer for layer in step.kernels if layer not in slow])

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Put the kernels back, whatever ended the epoch."""
        self.put_back()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Put the kernels back and report on the epoch."""
        self.put_back()
        self._num_steps = self._last_batch + 1
        for layer, plan in self._plans.items():
            done = self._completed(layer, plan)
            self.report.append(done)
            if logs is not None:
                logs[f"checked/{layer.name}"] = done.checked if done.steps else float("nan")
                logs[f"returned/{layer.name}"] = done.returned if done.steps else float("nan")

    def on_train_end(self, logs: dict | None = None) -> None:
        """Give the model its own training step back and print the summary."""
        self.put_back()
        if self.verbose:
            print(self.summary())

    def summary(self) -> str:
        """A table with one row for each layer and epoch."""
        rows = [
            f"{'epoch':>5} {'layer':<16} {'form':<6} {'density':>8} {'checked':>8} {'returned':>9} "
            f"{'ms/step':>8} {'dense':>8} {'MB':>7} {'dense':>7}  why"
        ]
        for done in self.report:
            row = f"{done.epoch + 1:>5} {done.layer:<16} {'sparse' if done.steps else 'dense':<6} "
            row += f"{100 * done.density:>6.2f} % "
            if done.steps:
                row += f"{100 * done.checked:>6.2f} % {done.returned:>9} {done.sparse_ms:>8.2f} "
            else:
                row += f"{'':>27} "
            row += f"{done.dense_ms:>8.2f} " if done.dense_ms else f"{'':>8} "
            row += f"{done.sparse_bytes / 1e6:>7.2f} " if done.steps else f"{'':>7} "
            rows.append(f"{row}{done.dense_bytes / 1e6:>7.2f}  {done.reason}")
        return "\n".join(rows)

    def put_back(self) -> None:
        """Have the model's kernels hold the weights again and its own training step use them.

        This is done after each epoch and each error of a step. Only an exception that another
        callback, or on PyTorch the data, raises in the middle of an epoch leaves it to be done, and
        on JAX Keras then does it.
        """
        if self._step is not None:
            self._step.put_back()
            self.model.train_function = self._dense_function

    def _plan(self, epoch, layer) -> LayerEpoch:
        """What the layer will be in this epoch, and why."""
        kernel = ops.convert_to_numpy(layer.kernel)
        density = np.count_nonzero(kernel) / kernel.size
        is_sparse, reason = self._choice(layer, kernel, density)
        dense_ms = 1e3 * self._dense_seconds.get(layer.path, 0.0)
        return LayerEpoch(
            epoch,
            layer.name,
            is_sparse,
            reason,
            density,
            dense_ms=dense_ms,
            dense_bytes=2 * kernel.nbytes,
        )

    def _choice(self, layer, kernel, density) -> tuple[bool, str]:
        if self.choose == "always":
            return True, "asked for"
        if density > _HIGHEST_DENSITY:
            return False, f"more than {100 * _HIGHEST_DENSITY:.0f} % of the weights are not zero"
        path = layer.path
        # A layer that trains first needs no gradient of its inputs.
        is_first = self.model.trainable_variables[0] is layer.kernel
        before = [done for done in self.report[-len(self._layers) :] if done.layer == layer.name]
        batch = self._num_examples(layer)
        if path not in self._dense_seconds:
            seconds = dense_seconds(kernel.shape, kernel.dtype, batch, not is_first)
            self._dense_seconds[path] = seconds
        dense_ms = 1e3 * self._dense_seconds[path]
        if before and before[0].steps > _TRIAL_STEPS:
            ms, source = before[0].sparse_ms, "measured in the last epoch"
        else:
            ms, source = 1e3 * sparse_seconds(kernel, batch, not is_first), "without checks"
        return ms < dense_ms, f"{ms:.2f} ms {source} against {dense_ms:.2f} dense"

    def _num_examples(self, layer) -> int:
        """Examples in a step, as far as steps have shown them."""
        if self._step is None or layer not in self._step.kernels:
            return self.batch_size
        return self._step.kernels[layer].counts.examples or self.batch_size

    def _completed(self, layer, plan: LayerEpoch) -> LayerEpoch:
        counts = self._counts.get(layer)
        if counts is None or not counts.steps:
            return plan
        reason = plan.reason
        if counts.steps <= self._last_batch:
            reason += f"; left after {counts.steps} steps, which took longer"
        return replace(
            plan,
            reason=reason,
            steps=counts.steps,
            checked=counts.units_checked / (counts.steps * layer.kernel.shape[1]),
            returned=counts.returned,
            sparse_ms=1e3 * statistics.median(counts.seconds),
            sparse_bytes=counts.peak_bytes,
        )
