"""β-LASSO: gradient descent with an ℓ1 penalty and an aggressive threshold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from tfconvbias.arguments import Share, checked
from tfconvbias.optimizers import hyperparameter
from tfconvbias.optimizers.fused import apply_elementwise
from tfconvbias.optimizers.hyperparameter import Hyperparameter
from tfconvbias.optimizers.penalized import (
    check_pattern,
    check_penalized,
    choose_penalized,
    match_overrides,
    variable_path,
)


class PenalizedVariable(NamedTuple):
    """A penalized variable's path and its present λ."""

    path: str
    l1: float


class StepSizes(NamedTuple):
    """The numbers of one step on a penalized variable: η, η λ and β λ."""

    rate: Any
    pull: Any
    cutoff: Any


@dataclass
class _Penalties:
    """The λ of each pattern and, once the optimizer is built, of each variable by its position.

    Known by position because TensorFlow hands `update_step` a backend variable without a path. No
    mapping or tuple of its own in the optimizer, because Keras would wrap it to track its content.
    """

    overrides: dict[str, Hyperparameter]
    paths: list[str] = field(default_factory=list)
    strengths: list[Hyperparameter | None] = field(default_factory=list)


def hard_threshold_step(weights, direction, rate, pull, cutoff):
    """`weights - (rate * direction + pull * sign(weights))`, exactly 0 where below the cutoff."""
    stepped = weights - (rate * direction + pull * ops.sign(weights))
    # Asked this way round a NaN is kept, so that a diverged run shows.
    return ops.where(ops.abs(stepped) < cutoff, ops.zeros_like(stepped), stepped)


def soft_threshold_step(weights, direction, rate, pull, cutoff):
    """The same step, its magnitude reduced by the cutoff and never below 0."""
    stepped = weights - (rate * direction + pull * ops.sign(weights))
    return ops.sign(stepped) * ops.maximum(ops.abs(stepped) - cutoff, 0)


_STEPS: dict[str, Callable] = {"hard": hard_threshold_step, "soft": soft_threshold_step}


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class BetaLasso(keras.optimizers.SGD):
    """β-LASSO: gradient descent with an ℓ1 penalty and an aggressive threshold.

    It learns which connections a layer needs and leaves every other weight exactly zero. With
    `beta=0` it is plain ℓ1 subgradient descent; with `l1=0` it is `keras.optimizers.SGD`, which
    also is what updates every variable that is not penalized.

    With θ a penalized variable, g the gradient of the loss (as clipped), η the `learning_rate`,
    λ = `l1` and β = `beta`, element by element:

    ```
    θ' = θ - (η g + η λ sign(θ))            sign is taken before the step, sign(0) = 0
    θ  = θ'  where |θ'| >= β λ, else 0      threshold="hard"
    θ  = sign(θ') max(|θ'| - β λ, 0)        threshold="soft"
    ```

    The threshold β λ is not scaled by η. A zero weight feels no penalty and comes back only if
    η |g| >= β λ; as η falls to 0 the set of non-zero weights freezes.

    With `momentum` μ > 0 the velocity gathers the gradient of the loss alone, and the penalty acts
    on the weight directly (decoupled, as weight decay is in Keras):

    ```
    v  = μ v - η g
    θ' = θ + v - η λ sign(θ)                nesterov=False
    θ' = θ + μ v - η g - η λ sign(θ)        nesterov=True
    ```

    followed by the threshold. If the velocity gathered the penalty too, a weight that was just set
    to zero or crossed zero would be driven on by pulls towards the side that it has left. The
    loss's long-run step grows by 1/(1 - μ) and the penalty's does not, so scale `l1` by 1/(1 - μ)
    to keep their balance. The velocity of a zero weight goes on; it comes back when |v| >= β λ
    (with `nesterov`, |μ v - η g|).

    `l1`, `beta` and the values in `l1_overrides` are variables of the optimizer: assign to them at
    any time and a step that is already compiled obeys (`optimizer.l1 = 1e-4`,
    `optimizer.beta.assign(10.0)`, `optimizer.l1_overrides = {"conv1": 2e-5}`); they are saved with
    its state. Each may instead be a `LearningRateSchedule`, evaluated at the step count that the
    learning rate's schedule sees. Under JAX a change takes effect when an epoch begins, as it does
    for the learning rate. `LossScaleOptimizer` (the policy `mixed_float16`) holds this optimizer as
    its `inner_optimizer`.

    Clipping, loss scaling, gradient accumulation and weight decay come before the update, so only
    the real update thresholds. With `use_ema` the averages of zeroed weights decay and are not
    exactly zero. A sparse gradient (embedding) of a penalized variable gives what the dense
    gradient gives: every row is pulled and thresholded, touched or not.

    Args:
        learning_rate: η: a float, a `LearningRateSchedule` or a callable without arguments.
        l1: λ, the strength of the penalty: a number >= 0 or a `LearningRateSchedule`.
        beta: β, the threshold in units of λ: a number >= 0 or a `LearningRateSchedule`. The paper
            uses 0, 1 and 50.
        threshold: `"hard"`, the paper's formula, or `"soft"`.
        momentum: μ, a number in [0, 1]. Defaults to 0.
        nesterov: Whether the momentum is Nesterov's; needs `momentum > 0`.
        l1_overrides: Maps regular expressions to a λ of their own, a number or a schedule, for the
            penalized variables in whose path they are found (`re.search`). Two patterns that match
            one variable are an error. Begin a pattern with a layer's name, not with `^` or the
            model's name: a path may begin with the model's name, but does not where Keras has
            reloaded a Sequential model.
        penalized: Which variables are penalized: a regular expression searched for in the path, or
            a callable that takes the variable and returns a bool. Defaults to the kernels: the
            variables called `kernel` or `..._kernel` (`tfconvbias.optimizers.is_kernel`).
        weight_decay: w in θ ← θ − η w θ, which comes before each update. Defaults to none.
        clipnorm: Largest norm of each variable's gradient. Defaults to no limit.
        clipvalue: Largest absolute value of an entry of a gradient. Defaults to no limit.
        global_clipnorm: Largest norm of all gradients together. Defaults to no limit.
        use_ema: Whether to keep an exponential moving average of every trainable variable, which
            `fit` writes into the model after its last epoch.
        ema_momentum: Share of the old average in the new one, in [0, 1].
        ema_overwrite_frequency: Number of updates after which the averages are written into the
            model during training, again and again. Defaults to never.
        loss_scale_factor: Factor on the loss, by which the gradients are divided again, against
            underflow in half precision. Defaults to none.
        gradient_accumulation_steps: Number of steps whose mean gradient makes one update. Defaults
            to an update in every step.
        name: Name of the optimizer.
        **kwargs: Further arguments of `keras.optimizers.SGD`.

    Raises:
        ValueError: For a value out of range. When the optimizer is built: if `penalized` or a
            pattern in `l1_overrides` matches nothing, or two patterns match one variable, or a
            penalized variable is kept in half precision (a step of 1e-6 vanishes there; the
            policies `mixed_float16` and `mixed_bfloat16` keep variables in float32).

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fc1")])
    >>> optimizer = BetaLasso(0.1, l1=1e-5, beta=50, l1_overrides={"fc1": 2e-5})
    >>> optimizer.build(model.trainable_variables)
    >>> [(p.path.endswith("fc1/kernel"), f"{p.l1:.0e}") for p in optimizer.penalized_variables]
    [(True, '2e-05')]

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", NeurIPS 2020, Algorithm 1. The
        paper calls its threshold a soft one, while its formula is the hard one; momentum is ours
        (the paper uses none).
    """

    def __init__(
        self,
        learning_rate: float | Callable | keras.Variable,
        l1: float | Callable,
        beta: float | Callable,
        threshold: Literal["hard", "soft"] = "hard",
        momentum: Share = 0.0,
        nesterov: bool = False,
        l1_overrides: Mapping[str, Any] | None = None,
        penalized: str | Callable[[Any], bool] | None = None,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = "beta_lasso",
        **kwargs: Any,
    ):
        if isinstance(learning_rate, Real) and learning_rate < 0:
            raise ValueError(
                f"`learning_rate` must be finite and >= 0. Received: learning_rate={learning_rate}"
            )
        if nesterov and momentum == 0:
            raise ValueError(
                "`nesterov=True` needs `momentum > 0`. "
                f"Received: nesterov={nesterov}, momentum={momentum}"
            )
        for pattern in l1_overrides or {}:
            check_pattern("l1_overrides", pattern)
        check_penalized(penalized)
        super().__init__(
            learning_rate=learning_rate,
            momentum=float(momentum),
            nesterov=bool(nesterov),
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **kwargs,
        )
        self.threshold = threshold
        self.penalized = penalized
        self._l1 = Hyperparameter(self, "l1", l1)
        self._beta = Hyperparameter(self, "beta", beta)
        self._penalties = _Penalties(
            {
                pattern: Hyperparameter(self, f"l1_overrides[{pattern!r}]", value)
                for pattern, value in (l1_overrides or {}).items()
            }
        )

    @property
    def l1(self):
        """λ where nothing overrides it: a variable, or the present value of a schedule."""
        return self._l1.current

    @l1.setter
    def l1(self, value):
        self._l1.set(value)

    @property
    def beta(self):
        """β: a variable, or the present value of a schedule."""
        return self._beta.current

    @beta.setter
    def beta(self, value):
        self._beta.set(value)

    @property
    def l1_overrides(self):
        """The λ of each pattern: a variable, or the present value of a schedule.

        Assign a mapping from patterns to numbers to change some or all of them.
        """
        return {pattern: l1.current for pattern, l1 in self._penalties.overrides.items()}

    @l1_overrides.setter
    def l1_overrides(self, values):
        overrides = self._penalties.overrides
        for pattern in values:
            if pattern not in overrides:
                raise ValueError(
                    "Only the patterns given to the constructor can be assigned to. "
                    f"Received: {pattern!r}. Known: {', '.join(map(repr, overrides)) or 'none'}"
                )
        for pattern, value in values.items():
            overrides[pattern].set(value)

    @property
    def penalized_variables(self) -> list[PenalizedVariable]:
        """Path and present λ of each penalized variable; the optimizer must be built.

        Outside a compiled step only, for callbacks and reports.
        """
        if not self.built:
            raise ValueError(
                "`penalized_variables` are known once the optimizer is built: "
                "call `build(model.trainable_variables)` or train for a step first."
            )
        return [
            PenalizedVariable(path, l1.to_float())
            for path, l1 in zip(self._penalties.paths, self._penalties.strengths, strict=True)
            if l1 is not None
        ]

    def build(self, variables):
        if self.built:
            return
        penalties = self._penalties
        chosen = choose_penalized(variables, self.penalized)
        patterns = match_overrides(variables, chosen, penalties.overrides)
        paths = [variable_path(variable) for variable in variables]
        for variable, path, is_chosen in zip(variables, paths, chosen, strict=True):
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if is_chosen and dtype not in ("float32", "float64"):
                raise ValueError(
                    "A penalized variable must be float32 or float64: steps of learning rate times "
                    "`l1` vanish in half precision. The policies mixed_float16 and mixed_bfloat16 "
                    f"keep variables in float32. Received: {path!r} of dtype {dtype}"
                )
        penalties.paths = paths
        penalties.strengths = [
            (self._l1 if pattern is None else penalties.overrides[pattern]) if is_chosen else None
            for is_chosen, pattern in zip(chosen, patterns, strict=True)
        ]
        super().build(variables)

    def step_sizes(self, variable, learning_rate=None) -> StepSizes | None:
        """η, η λ and β λ of the present step for a variable, None if it is not penalized.

        Args:
            variable: A variable that the optimizer was built with.
            learning_rate: η; by default the optimizer's at its present iteration.
        """
        strength = self._penalties.strengths[self._get_variable_index(variable)]
        if strength is None:
            return None
        rate = self.learning_rate if learning_rate is None else learning_rate
        rate = ops.cast(rate, variable.dtype)
        l1 = ops.cast(strength.current, variable.dtype)
        return StepSizes(rate, rate * l1, ops.cast(self._beta.current, variable.dtype) * l1)

    def update_step(self, gradient, variable, learning_rate):
        sizes = self.step_sizes(variable, learning_rate)
        if sizes is None:
            super().update_step(gradient, variable, learning_rate)
            return
        rate, pull, cutoff = sizes
        index, dtype = self._get_variable_index(variable), variable.dtype
        # Also makes a sparse gradient dense, since the penalty acts on every row.
        gradient = ops.cast(ops.convert_to_tensor(gradient), dtype)
        if self.momentum:
            momentum = ops.cast(self.momentum, dtype)
            velocity = self.momentums[index] * momentum - gradient * rate
            self.assign(self.momentums[index], velocity)
            gradient = velocity * momentum - gradient * rate if self.nesterov else velocity
            rate = ops.cast(-1, dtype)
        step = _STEPS[self.threshold]
        apply_elementwise(self, step, variable, gradient, rate, pull, cutoff)

    def get_config(self):
        config = super().get_config()
        penalized = self.penalized
        if callable(penalized):
            penalized = keras.saving.serialize_keras_object(penalized)
        overrides = self._penalties.overrides
        config.update(
            {
                "l1": self._l1.to_config(),
                "beta": self._beta.to_config(),
                "threshold": self.threshold,
                "l1_overrides": {p: l1.to_config() for p, l1 in overrides.items()} or None,
                "penalized": penalized,
            }
        )
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("l1", "beta"):
            config[name] = hyperparameter.from_config(config[name], custom_objects)
        if config["l1_overrides"] is not None:
            config["l1_overrides"] = {
                pattern: hyperparameter.from_config(value, custom_objects)
                for pattern, value in config["l1_overrides"].items()
            }
        if isinstance(config["penalized"], dict):
            config["penalized"] = keras.saving.deserialize_keras_object(
                config["penalized"], custom_objects=custom_objects
            )
        return super().from_config(config, custom_objects=custom_objects)
