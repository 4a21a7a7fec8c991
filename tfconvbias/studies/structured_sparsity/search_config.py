"""What decides a search over α and τ."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.training import Config, ConfigError, Execution, option


@dataclass(frozen=True)
class SparsitySearchConfig(Config):
    """How (α, τ) are searched, and the trainings that all trials share.

    The grid tries the values in `alphas` and `taus` of the sweep; the other algorithms look between
    the smallest and the largest of each.

    Args:
        sweep: What all trials share. Its `run_dir` is the search's folder and `resume` continues
            the search; the fields named in `fixed` are not used.

    Raises:
        ConfigError: If a value is out of its range.
    """

    fixed = (
        *("uniform_widths", "random_widths", "baseline_epochs"),
        *("latency_batch", "warm_start", "num_test"),
    )

    sweep: SparsityConfig = SparsityConfig(run_dir="searches/structured-sparsity")

    algorithm: Literal["grid", "bayesian", "random"] = option(
        "grid", "grid: every combination; bayesian, random: between the smallest and the largest"
    )
    max_trials: int = option(20, "most trials of bayesian and random")
    multiply_add_price: float = option(
        0.1, "accuracy that a network is worth less with all of the base's multiply-adds"
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("max_trials")
        self._at_least_zero("multiply_add_price")
        if self.algorithm != "grid" and self.sweep.alphas[0] == 0:
            raise ConfigError(
                f"algorithm={self.algorithm!r} looks on a logarithmic scale: alphas must be "
                f"positive. Received: alphas={self.sweep.alphas}"
            )

    def trial(self, alpha: float, tau: float) -> SparsityConfig:
        """The sweep that runs one (α, τ).

        The fields that say where and how a sweep is kept and shown have their defaults.
        """
        shown = {field.name for field in dataclasses.fields(Execution)}
        usual = {f.name: f.default for f in dataclasses.fields(SparsityConfig) if f.name in shown}
        return self.sweep.replace(**usual, alphas=(alpha,), taus=(tau,))
