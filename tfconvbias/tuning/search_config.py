"""A search: a run's configuration, and what is tried in place of some of its fields."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tfconvbias.training import Config, ConfigError, Execution, RunConfig, option

_L1_GRID = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)


@dataclass(frozen=True)
class SearchConfig(Config):
    """What is searched, and the run that all trials share.

    The lists are tried in place of fields of the run: rate and dropout always, momentum and weight
    decay with SGD, the two λ with β-LASSO, whose β is fixed.

    Args:
        run: What all trials share. Its `run_dir` is the search's folder, and `resume` continues the
            search.

    Raises:
        ConfigError: If a list is empty or repeats a value, or a value is out of its field's range.
    """

    fixed = (
        *("momentum", "weight_decay", "l1", "l1_conv", "learning_rate", "dropout_rate"),
        *("train_on_all", "checkpoint_every", "max_minutes", "device_epochs", "tensorboard"),
    )

    run: RunConfig = RunConfig()

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
    learning_rates: tuple[float, ...] = option((0.1,), "initial rates")
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
        300.0,
        "seconds of silence after which the chief gives a worker's trial to another",
        decides=False,
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("max_trials", optional=True)
        self._at_least_zero("nonzero_price")
        if self.hyperband_factor < 2:
            raise ConfigError(
                f"hyperband_factor must be at least 2. Received: {self.hyperband_factor=}"
            )
        self._above_zero("worker_timeout")
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
        if self.run.optimizer == "sgd":
            return found | {"momentum": self.momenta, "weight_decay": self.weight_decays}
        found["l1"] = self.l1_values
        if self.run.family != "three_fc":
            found["l1_conv"] = self.l1_conv_values
        return found

    def trial(self, values: dict[str, Any]) -> RunConfig:
        """The run with these values in place of the fields that are searched.

        Args:
            values: Field → value. The fields that say where and how a run is kept and shown have
                their defaults.
        """
        shown = {field.name for field in dataclasses.fields(Execution)}
        usual = {f.name: f.default for f in dataclasses.fields(RunConfig) if f.name in shown}
        return self.run.replace(**{**usual, **values})
