"""What decides a comparison of methods that make a network smaller or sparser."""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.training import ConfigError, ManyRuns, option

FROM_SCRATCH = ("dense", "uniform", "random")
"""Baselines that train one network all the time: the base, and narrower ones."""

PRUNED = tuple(
    f"prune_{importance}"
    for importance in ("magnitude", "bn_scale", "lamp", "fpgm", "taylor", "random_channels")
)
"""Channels cut at once by `surgery.prune`, by the importance in the name."""

SINGLE_WEIGHTS = ("magnitude", "n_m", "beta_lasso")
"""Methods that leave single weights: zeros in kernels of the old shape."""

METHODS = (*FROM_SCRATCH, *PRUNED, "proximal", *SINGLE_WEIGHTS)
"""All methods, see `ComparisonConfig`."""

TITLES = {
    "dense": "dense base",
    "uniform": "uniform widths",
    "random": "random widths",
    "prune_magnitude": "pruned, magnitude",
    "prune_bn_scale": "pruned, normalization scale",
    "prune_lamp": "pruned, LAMP",
    "prune_fpgm": "pruned, FPGM",
    "prune_taylor": "pruned, Taylor",
    "prune_random_channels": "pruned, random channels",
    "proximal": "proximal step",
    "magnitude": "weight magnitude",
    "n_m": "N:M patterns",
    "beta_lasso": "β-LASSO",
}
"""What each method is called in tables and figures."""

_BLOCKS = (4, 8, 16)


class Setting(NamedTuple):
    """What is tuned: the rate of the last training, and how strongly a penalty acts before it.

    Attributes:
        learning_rate: Rate at which the last training begins.
        strength: α of `proximal` or λ of `beta_lasso`; `None` for other methods.
    """

    learning_rate: float
    strength: float | None = None

    def __str__(self) -> str:
        suffix = "" if self.strength is None else f", strength {self.strength:g}"
        return f"rate {self.learning_rate:g}{suffix}"


@dataclass(frozen=True)
class ComparisonConfig(ManyRuns):
    """Methods, budgets, seeds, and as many settings for each method.

    Every network sees the images for `epochs + sparse_epochs + fine_tune_epochs` epochs. `dense`,
    `uniform` and `random` spend them on one network: the base, the base with all widths times one
    factor, and random widths. The others begin with the seed's base after `epochs` and go on for
    `sparse_epochs`, then meet the budget exactly and spend `fine_tune_epochs` on what is left:

    - `prune_…`: the base trains on, then `surgery.prune` cuts channels.
    - `proximal`: structured sparsity by the proximal step with α, then the threshold τ that leaves
      the budget, and `surgery.compact`.
    - `magnitude`: `PruneDuringFit` with the cubic schedule zeroes the smallest weights.
    - `n_m`: `PruneDuringFit` leaves n of every 4, 8 or 16 weights in a row.
    - `beta_lasso`: β-LASSO with λ, then the largest weights of the whole network are kept.

    A budget is the share of the multiply-adds that is left, and for the last three methods the
    share of the weights.

    Args:
        sweep: What all trainings share. Its `run_dir` is the comparison's folder; `seed` chooses
            the images. Methods, budgets and seeds can be added later, with `resume`.

    Raises:
        ConfigError: If a value is out of its range, or methods have unequal numbers of settings.
    """

    fixed = (
        *("taus", "warm_start", "method", "fine_tune_learning_rate"),
        *("uniform_widths", "random_widths", "baseline_epochs", "latency_batch"),
    )

    sweep: SparsityConfig = SparsityConfig(
        base="cifar8", residual=False, run_dir="runs/sparsity-comparison"
    )

    methods: tuple[str, ...] = option(
        ("uniform", "random", "prune_magnitude", "prune_taylor", "proximal"),
        f"some of {', '.join(METHODS)}",
        decides=False,
    )
    budgets: tuple[float, ...] = option(
        (0.5, 0.25, 0.12),
        "shares of the multiply-adds, or of the weights, that are left",
        decides=False,
    )
    seeds: tuple[int, ...] = option(
        (0, 1, 2),
        "seeds; settings are tried with the first one, the best one runs with all",
        decides=False,
    )
    scratch_learning_rates: tuple[float, ...] = option(
        (0.05, 0.1, 0.2), "settings of dense, uniform and random: initial learning rates"
    )
    fine_tune_learning_rates: tuple[float, ...] = option(
        (0.02, 0.05, 0.1), "settings of all others: initial learning rates of what is left"
    )
    alphas: tuple[float, ...] = option(
        (0.05, 0.1, 0.2), "α of proximal, one beside each of the rates above"
    )
    l1s: tuple[float, ...] = option(
        (1e-4, 2e-4, 4e-4), "λ of beta_lasso, one beside each of the rates above"
    )
    beta: float = option(5.0, "β of beta_lasso: weights below βλ become zero")

    def __post_init__(self):
        super().__post_init__()
        self._distinct("methods", "budgets", "seeds", "scratch_learning_rates")
        self._seeds("seeds")
        self._at_least_zero("beta")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ConfigError(f"methods must be some of {', '.join(METHODS)}. Received: {unknown}")
        if any(not 0 < budget < 1 for budget in self.budgets):
            raise ConfigError(f"budgets must lie between 0 and 1. Received: budgets={self.budgets}")
        if any(seed < 0 for seed in self.seeds):
            raise ConfigError(f"seeds must not be negative. Received: seeds={self.seeds}")
        counts = {name: len(self.settings(name)) for name in self.methods}
        if len(set(counts.values())) > 1:
            raise ConfigError(f"Each method must try as many settings. Received: {counts}")
        if set(self.methods) & set(SINGLE_WEIGHTS) and self.sweep.device_epochs != "off":
            raise ConfigError(
                "Zeros are held after every step, so that an epoch cannot be one execution. "
                f"Received: device_epochs={self.sweep.device_epochs!r}; use --device-epochs off"
            )
        if "n_m" in self.methods:
            for budget in self.budgets:
                pattern_of(budget)

    @property
    def total_epochs(self) -> int:
        """Epochs of every network in all."""
        return self.sweep.epochs + self.sweep.sparse_epochs + self.sweep.fine_tune_epochs

    def settings(self, method: str) -> tuple[Setting, ...]:
        """What a method tries."""
        if method in FROM_SCRATCH:
            return tuple(map(Setting, self.scratch_learning_rates))
        rates = self.fine_tune_learning_rates
        strengths = {"proximal": self.alphas, "beta_lasso": self.l1s}.get(method)
        if strengths is None:
            return tuple(map(Setting, rates))
        if len(strengths) != len(rates):
            raise ConfigError(
                f"{method} needs one strength beside each of the fine_tune_learning_rates. "
                f"Received: {strengths} beside {rates}"
            )
        return tuple(map(Setting, rates, strengths))

    def budgets_of(self, method: str) -> tuple[float, ...]:
        """The budgets at which a method runs; the dense base has all."""
        return (1.0,) if method == "dense" else self.budgets


def pattern_of(budget: float) -> tuple[int, int]:
    """The pattern n:m of a share of weights, with the smallest m of 4, 8 and 16.

    Raises:
        ConfigError: If there is none.

    Example:
        >>> pattern_of(0.5), pattern_of(0.125)
        ((2, 4), (1, 8))
    """
    for block in _BLOCKS:
        count = Fraction(budget).limit_denominator(1000) * block
        if count.denominator == 1:
            return int(count), block
    raise ConfigError(f"n_m needs budgets of n/4, n/8 or n/16. Received: {budget}")
