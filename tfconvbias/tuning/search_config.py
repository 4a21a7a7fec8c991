"""A search: a run's configuration, and what is tried in place of some of its fields."""

from dataclasses import dataclass
from typing import Any, Literal

from tfconvbias.training import ConfigError, RunConfig, option

_L1_GRID = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)


@dataclass(frozen=True)
class SearchConfig(RunConfig):
    """Everything that decides a search, and where it is kept.

    The fields of `RunConfig` hold for every trial, but for those in place of which the lists here
    are tried: rate and dropout always, momentum and weight decay with SGD, the two λ with β-LASSO
    (β is fixed, as in the paper). `run_dir` is the search's folder and `resume` continues it. The
    defaults are the paper's grids.

    Raises:
        ConfigError: If a list is empty or repeats a value, or a value is out of its field's range.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, appendix A.2. The paper does
        not tell its dropout rate; 0.5 is ours.
    """

    algorithm: Literal["grid", "bayesian", "hyperband"] = option(
        "grid", "grid: every combination; bayesian; hyperband: many short runs, few long ones"
    )
    objective: Literal["accuracy", "accuracy_and_nonzeros"] = option(
        "accuracy", "validation accuracy, alone or less a price for non-zero weights"
    )
    nonzero_price: float = option(
        0.1, "accuracy that a model is worth less when all its weights are non-zero"
    )
    max_trials: int | None = option(
        None, "most trials; none: all of the grid, 20 of bayesian; hyperband counts for itself"
    )
    learning_rates: tuple[float, ...] = option(
        (0.1,), "initial rates; also 0.01 and 1 in the paper"
    )
    dropout_rates: tuple[float, ...] = option((0.0, 0.5), "rates before the last two dense layers")
    momenta: tuple[float, ...] = option((0.0, 0.9), "momenta of SGD")
    weight_decays: tuple[float, ...] = option(
        (0.0, 1e-4, 2e-4, 5e-4, 1e-3), "coupled weight decays of SGD"
    )
    l1_values: tuple[float, ...] = option(_L1_GRID, "λ of β-LASSO, layers dense in every family")
    l1_conv_values: tuple[float, ...] = option(
        _L1_GRID, "λ of β-LASSO, layers that stand for convolutions"
    )
    hyperband_factor: int = option(3, "hyperband: one in so many goes on, for so many times longer")
    worker_timeout: float = option(
        300.0, "seconds of silence after which the chief gives a worker's trial to another"
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("max_trials", optional=True)
        self._at_least_zero("nonzero_price")
        if self.hyperband_factor < 2:
            raise ConfigError(
                f"hyperband_factor must be at least 2. Received: {self.hyperband_factor=}"
            )
        if not self.worker_timeout > 0:
            raise ConfigError(f"worker_timeout must be positive. Received: {self.worker_timeout}")
        if self.algorithm == "hyperband" and self.max_trials is not None:
            raise ConfigError(
                "algorithm='hyperband' decides the number of its trials by epochs. "
                f"Received: max_trials={self.max_trials}"
            )
        for field, values in self.choices().items():
            if not values or len(set(values)) < len(values):
                raise ConfigError(
                    f"The values tried for {field} must be one or more, all different. "
                    f"Received: {values}"
                )
            for value in values:
                self.trial({field: value})

    def choices(self) -> dict[str, tuple[float, ...]]:
        """Field of `RunConfig` → the values tried for it, with this optimizer and family."""
        found = {"learning_rate": self.learning_rates, "dropout_rate": self.dropout_rates}
        if self.optimizer == "sgd":
            return found | {"momentum": self.momenta, "weight_decay": self.weight_decays}
        found["l1"] = self.l1_values
        if self.family != "three_fc":
            found["l1_conv"] = self.l1_conv_values
        return found

    def trial(self, values: dict[str, Any]) -> RunConfig:
        """The run with these values in place of the fields that are searched.

        Args:
            values: field → value; other fields that decide the result keep this configuration's
                value, and those that say where and how a run is shown have their defaults.
        """
        names = RunConfig(family=self.family, connectivity=self.connectivity).identity()
        return RunConfig(**{**{name: getattr(self, name) for name in names}, **values})

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result: not where it is kept, nor how patient the chief is."""
        fields = super().identity()
        for name in (*self.choices(), "worker_timeout"):
            del fields[name]
        return fields
