"""A proximal step after any optimizer's update: exact zeros for whole groups of weights."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.optimizers import hyperparameter
from tfconvbias.optimizers.hyperparameter import Hyperparameter
from tfconvbias.optimizers.penalized import (
    check_penalized,
    choose_penalized,
    is_kernel,
    variable_path,
)


def is_convolution_kernel(variable) -> bool:
    """Whether a variable is a layer's kernel with at least one spatial axis."""
    return is_kernel(variable) and len(variable.shape) > 2


class _Gammas:
    """Kernel → γ, by the kernel's id.

    Held in a plain object so that Keras does not count them among the optimizer's own variables:
    its checkpoints would hold them twice, and JAX would be handed the same buffer twice.
    """

    def __init__(self) -> None:
        self.of_kernel: dict[int, keras.Variable] = {}


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class Proximal(keras.optimizers.Optimizer):
    r"""Any optimizer, followed by the proximal step of a structured sparsity penalty.

    A subgradient of a group norm leaves groups only near zero; the proximal operator sets them to
    exactly zero, so that no threshold has to be chosen afterwards. With θ⁺ the weights after the
    inner optimizer's update, η its learning rate and α Ω the penalty:

    ```
    θ = argmin_u  ½ ‖u − θ⁺‖² + η α Ω(u)
    ```

    For `KernelNumber` this shrinks each kernel's norm by η α, for `KernelSize` it is the exact
    operator of the nested groups. It takes the place of the penalty in the loss: do not give the
    layers the same penalty as `kernel_regularizer` as well. With an adaptive inner optimizer
    (Adam) the step is η α too, not scaled coordinate by coordinate.

    Where a BatchNormalization follows a kernel k, the length of k changes no output: shrinking the
    kernels would change their effective learning rate and nothing else. With `gammas` the operator
    therefore acts on γ·k/‖k‖. Its result is stored as a new γ and a kernel of the old length ‖k‖;
    for `KernelNumber` with ℓ2 norm, γ shrinks by η α. A kernel that is removed becomes zero
    together with its γ, and stays zero: if the inner optimizer's momentum moved it ever so little,
    the BatchNormalization would scale it up to the size of the others. A γ that was zero before the
    step, as one that is initialised so, has removed nothing: its kernel stays, and γ leaves zero
    when the loss pulls harder than the penalty.

    Weight decay, clipping, loss scaling and gradient accumulation are arguments of the inner
    optimizer; with accumulation the proximal step follows real updates only. Moving averages
    (`use_ema`) are arguments of `Proximal`, since they are taken of the weights after the proximal
    step. The average of a weight that was set to zero decays and is not exactly zero.

    Args:
        inner_optimizer: A `keras.optimizers.Optimizer` without `use_ema`, or its name.
        penalty: An object with `proximal(kernel, step)`, such as
            `tfconvbias.regularizers.KernelNumber(0.0)` or `KernelSize(0.0)`; its own α is not used.
        alpha: α: a number >= 0 or a `LearningRateSchedule` over the optimizer's iterations. A
            number may be changed while a compiled step runs: `optimizer.alpha = 1e-4`.
        penalized: Which variables: a regular expression searched for in the path, or a callable
            that takes the variable and returns a bool. Defaults to the convolution kernels (with
            spatial axes), so that a dense classifier is left alone.
        gammas: Path of a kernel → path of the γ of the BatchNormalization that follows it, which
            `tfconvbias.regularizers.following_gammas(model)` finds. Defaults to none.
        penalties: Path of a kernel → the penalty to use for it in place of `penalty`, which
            `tfconvbias.regularizers.layer_penalties(model, penalty)` makes: an optimizer does not
            see the layer, and the kernel of a depthwise or transposed convolution counts its
            kernels along other axes. `tfconvbias.regularizers.proximal_optimizer` takes a model
            and does both. Defaults to none.
        use_ema: Whether to keep an exponential moving average of every trainable variable, which
            `fit` writes into the model after its last epoch.
        ema_momentum: Share of the old average in the new one, in [0, 1].
        ema_overwrite_frequency: Number of updates after which the averages are written into the
            model during training, again and again. Defaults to never.
        name: Name of the optimizer.

    Raises:
        ValueError: For a negative α, a penalty without `proximal`, an inner optimizer with
            `use_ema`, a pattern that matches nothing, a penalized variable whose shape the penalty
            does not know, a path in `gammas` or `penalties` that is no trainable variable's, or a γ
            that does not have one number for each kernel.

    Example:
    >>> from tfconvbias.regularizers import KernelSize
    >>> optimizer = Proximal(keras.optimizers.SGD(0.1), KernelSize(0.0), alpha=1e-3)

    With BatchNormalization:

    >>> from tfconvbias.regularizers import KernelNumber, following_gammas
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.BatchNormalization()])
    >>> gammas = following_gammas(model)
    >>> optimizer = Proximal(keras.optimizers.SGD(0.1), KernelNumber(0.0), 1e-2, gammas=gammas)

    Reference:
        Jenatton et al., "Proximal Methods for Hierarchical Sparse Coding", JMLR 2011; a step
        beyond "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", which
        thresholds. Shrinking γ alone is Liu et al., "Learning Efficient Convolutional Networks
        through Network Slimming", 2017, with a proximal step in place of a subgradient.
    """

    def __init__(
        self,
        inner_optimizer: str | Mapping[str, Any] | keras.optimizers.Optimizer,
        penalty: Any,
        alpha: float | Callable,
        penalized: str | Callable[[Any], bool] | None = None,
        gammas: Mapping[str, str] | None = None,
        penalties: Mapping[str, Any] | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        name: str | None = "proximal",
    ):
        for one in (penalty, *(penalties or {}).values()):
            if not callable(getattr(one, "proximal", None)):
                raise ValueError(
                    "`penalty` must have a method `proximal(kernel, step)`, as "
                    f"`tfconvbias.regularizers.KernelNumber` has. Received: penalty={one}"
                )
        check_penalized(penalized)
        try:
            inner_optimizer = keras.optimizers.get(inner_optimizer)
        except ValueError as error:
            raise ValueError(
                "`inner_optimizer` must be an optimizer or the name of one. "
                f"Received: inner_optimizer={inner_optimizer!r}"
            ) from error
        if getattr(inner_optimizer, "use_ema", False):
            raise ValueError(
                "`use_ema` must be given to `Proximal`, which averages the weights after its step, "
                f"not to the inner optimizer. Received: inner_optimizer={inner_optimizer.name!r} "
                "with use_ema=True"
            )
        super().__init__(
            learning_rate=0.0,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            name=name,
        )
        self.inner_optimizer = inner_optimizer
        self.penalty = penalty
        self.penalized = penalized
        self.gammas = dict(gammas or {})
        self.penalties = dict(penalties or {})
        self._alpha = Hyperparameter(self, "alpha", alpha)
        self._chosen: list[int] = []
        self._gammas = _Gammas()

    @property
    def alpha(self):
        """α: a variable, or the present value of a schedule."""
        return self._alpha.current

    @alpha.setter
    def alpha(self, value):
        self._alpha.set(value)

    def build(self, variables):
        chosen = choose_penalized(variables, self.penalized or is_convolution_kernel)
        for variable, is_chosen in zip(variables, chosen, strict=True):
            penalty = self._penalty_of(variable)
            if is_chosen and hasattr(penalty, "check_kernel"):
                try:
                    penalty.check_kernel(variable.shape)
                except ValueError as error:
                    raise ValueError(f"Variable {variable.path!r}: {error}") from error
        self._chosen = [id(v) for v, is_chosen in zip(variables, chosen, strict=True) if is_chosen]
        by_path = {variable.path: variable for variable in variables}
        unknown = sorted({*self.gammas, *self.gammas.values()} - by_path.keys())
        if unknown:
            raise ValueError(
                f"`gammas` must hold paths of trainable variables. Received: {unknown}"
            )
        unknown = sorted(self.penalties.keys() - by_path.keys())
        if unknown:
            raise ValueError(
                f"`penalties` must hold paths of trainable variables. Received: {unknown}"
            )
        self._gammas.of_kernel = {
            id(by_path[kernel]): by_path[gamma] for kernel, gamma in self.gammas.items()
        }
        for variable in variables:
            if id(variable) in self._gammas.of_kernel and id(variable) in self._chosen:
                self._check_gamma(variable, self._gammas.of_kernel[id(variable)])
        self.inner_optimizer.build(variables)
        super().build(variables)

    def _penalty_of(self, variable):
        return self.penalties.get(variable_path(variable), self.penalty)

    def _check_gamma(self, variable, gamma) -> None:
        columns = ops.zeros(variable.shape)
        count = self._penalty_of(variable).columns(columns).shape[-1]
        if tuple(gamma.shape) != (count,):
            raise ValueError(
                f"The penalty sees {count} kernels in {variable.path!r}, but {gamma.path!r} has "
                f"the shape {tuple(gamma.shape)}. Pass `penalties`, or use "
                "`tfconvbias.regularizers.proximal_optimizer`, so that each layer's kernels are "
                "counted along its own axes."
            )

    @property
    def variables(self):
        return super().variables + self.inner_optimizer.variables

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        trainable_variables = list(trainable_variables)
        grads = list(grads)
        if not self.built:
            self.build(trainable_variables)
        rate = ops.convert_to_tensor(self.inner_optimizer.learning_rate)
        step = ops.cast(rate, "float32") * ops.cast(self._alpha.current, "float32")
        before = ops.convert_to_tensor(self.inner_optimizer.iterations) + 0
        chosen = set(self._chosen)
        before_step = {
            id(variable): self._channels(variable)
            for variable in trainable_variables
            if id(variable) in self._gammas.of_kernel and id(variable) in chosen
        }
        self.inner_optimizer.apply(grads, trainable_variables)
        if self.inner_optimizer.gradient_accumulation_steps:
            # Between real updates the weights stand still, and so must the proximal step.
            moved = ops.not_equal(ops.convert_to_tensor(self.inner_optimizer.iterations), before)
            step = step * ops.cast(moved, "float32")
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            if gradient is not None and id(variable) in chosen:
                self._shrink(variable, step, before_step.get(id(variable)))
        if self.use_ema:
            self._average(is_first=ops.equal(before, 0))
        self._iterations.assign_add(1)

    def _channels(self, variable):
        """Which kernels are there, and which of them have a γ that is not zero."""
        columns = self._penalty_of(variable).columns(ops.convert_to_tensor(variable))
        gamma = ops.convert_to_tensor(self._gammas.of_kernel[id(variable)])
        return _lengths(columns) > 0, ops.not_equal(gamma, 0)

    def _shrink(self, variable, step, before_step):
        penalty = self._penalty_of(variable)
        value = ops.convert_to_tensor(variable)
        step = ops.cast(step, value.dtype)
        if before_step is None:
            self.assign(variable, penalty.proximal(value, step))
            return
        alive, scaled = before_step
        gamma = self._gammas.of_kernel[id(variable)]
        columns = penalty.columns(value)
        lengths = _lengths(columns)
        scale = ops.convert_to_tensor(gamma) * ops.cast(alive, value.dtype)
        tiny = keras.config.epsilon()
        units = columns / ops.maximum(lengths, tiny)
        folded = penalty.restore(units * scale, value.shape)
        shrunk = penalty.columns(penalty.proximal(folded, step))
        left = _lengths(shrunk)
        # γ keeps its sign and takes the length; the kernel gets back the length that it had.
        self.assign(gamma, ops.sign(scale) * left)
        direction = shrunk / ops.maximum(left, tiny) * ops.sign(scale)
        waits = ops.logical_and(alive, ops.logical_not(ops.logical_or(scaled, left > 0)))
        kernels = ops.where(waits, columns, direction * lengths)
        self.assign(variable, penalty.restore(kernels, value.shape))

    def _average(self, is_first):
        """Updates the moving averages, and writes them into the weights when that is due."""
        momentum = ops.where(is_first, 0.0, self.ema_momentum)
        frequency = self.ema_overwrite_frequency
        averages = self._model_variables_moving_average
        for variable, average in zip(self._trainable_variables, averages, strict=True):
            share = ops.cast(momentum, variable.dtype)
            value = ops.convert_to_tensor(variable)
            mean = share * ops.convert_to_tensor(average) + (1 - share) * value
            self.assign(average, mean)
            if frequency:
                is_due = ops.equal((ops.convert_to_tensor(self._iterations) + 1) % frequency, 0)
                self.assign(variable, ops.where(is_due, mean, value))

    @property
    def learning_rate(self):
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.inner_optimizer.learning_rate = value

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def get_config(self):
        if callable(self.penalized):
            raise ValueError(
                "`Proximal` can be saved only with `penalized` as a regular expression or None. "
                f"Received: penalized={self.penalized}"
            )
        serialize = keras.saving.serialize_keras_object
        return {
            "inner_optimizer": serialize(self.inner_optimizer),
            "penalty": serialize(self.penalty),
            "alpha": self._alpha.to_config(),
            "penalized": self.penalized,
            "gammas": self.gammas,
            "penalties": {path: serialize(one) for path, one in self.penalties.items()},
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        deserialize = keras.saving.deserialize_keras_object
        serialized = ("inner_optimizer", "penalty", "alpha", "penalties")
        return cls(
            deserialize(config["inner_optimizer"], custom_objects=custom_objects),
            deserialize(config["penalty"], custom_objects=custom_objects),
            hyperparameter.from_config(config["alpha"], custom_objects=custom_objects),
            penalties={
                path: deserialize(one, custom_objects=custom_objects)
                for path, one in config["penalties"].items()
            },
            **{name: value for name, value in config.items() if name not in serialized},
        )


def _lengths(columns):
    """ℓ2 norm of each column, the last axis."""
    return ops.sqrt(ops.sum(ops.square(columns), axis=tuple(range(len(columns.shape) - 1))))
