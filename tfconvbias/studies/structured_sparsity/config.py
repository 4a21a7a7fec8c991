"""What decides a sweep over the strength of structured sparsity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfconvbias.lazy import models, regularizers
from tfconvbias.training import ConfigError, DataConfig, Execution, option

_COUNTED = ("number", "number_squared")


@dataclass(frozen=True)
class SparsityConfig(DataConfig, Execution):
    """The base, the path of α, the thresholds τ, the compact networks and the baselines.

    Raises:
        ConfigError: If a value is out of its range, or two fields contradict each other.
    """

    section = "the sweep"

    base: Literal["imagenet8", "imagenet18", "cifar8", "cifar20", "cifar20_square"] = option(
        "cifar20", "base architecture, see models.StructuredBase"
    )
    width: float = option(1.0, "factor on the widths of the base architecture")
    residual: bool = option(True, "shortcuts over pairs of convolutions; without: a plain network")
    augment: str = option("flip_crop", "augmentation policy, see tfconvbias.data.augmentation")

    penalty: Literal["number", "size", "number_squared", "size_squared", "multiply_adds"] = option(
        "number", "Ω: number or size of the kernels, or a coupled form, see regularizers.Complexity"
    )
    method: Literal["proximal", "gradient"] = option(
        "proximal", "proximal: exact zeros (number and size); gradient: Ω in the loss, then τ"
    )
    groups: Literal["half_ring", "ring"] = option("half_ring", "nested groups of the sizes")
    norm: Literal["l2", "normalized", "scaled", "linf"] = option("l2", "norm of a group")
    fold_normalization: bool = option(
        True, "penalize kernels together with the BatchNormalization that follows"
    )
    alphas: tuple[float, ...] = option(
        (0.0015, 0.002, 0.0025, 0.003, 0.004), "α of the path, from dense to sparse; 0: a control"
    )
    taus: tuple[float, ...] = option((0.0,), "thresholds τ; 0 removes exact zeros only")
    relative: bool = option(
        False, "τ is a fraction of the largest norm of a kernel in the same layer"
    )
    warm_start: bool = option(True, "start each α from the α before; without: from the base")

    epochs: int = option(160, "epochs of the base")
    sparse_epochs: int = option(40, "epochs with the penalty, for each α")
    fine_tune_epochs: int = option(40, "epochs of each compact network")
    learning_rate: float = option(0.1, "initial learning rate of the base and of the baselines")
    sparse_learning_rate: float = option(0.05, "initial learning rate with the penalty")
    fine_tune_learning_rate: float = option(0.02, "initial learning rate of the compact networks")
    momentum: float = option(0.9, "momentum of the optimizer")
    weight_decay: float = option(1e-4, "coupled decay of the kernels")
    batch_size: int = option(128, "images per step; the last, partial batch of an epoch is dropped")

    uniform_widths: tuple[float, ...] = option(
        (0.7, 0.5, 0.35), "baselines: the base with all widths times these"
    )
    random_widths: int = option(
        3, "baselines: networks of random widths, with the multiply-adds of the networks found"
    )
    baseline_epochs: int | None = option(
        None, "epochs of each baseline; none: those of base, path and fine-tuning together"
    )
    latency_batch: int = option(256, "images of the timed inference")

    run_dir: str = option(
        "runs/structured-sparsity", "folder of models, results and the report", decides=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("epochs", "sparse_epochs", "fine_tune_epochs", "batch_size", "latency_batch")
        self._positive("baseline_epochs", optional=True)
        self._above_zero("width")
        self._at_least_zero("learning_rate", "sparse_learning_rate", "fine_tune_learning_rate")
        self._at_least_zero("weight_decay")
        self._num_runs("random_widths", at_least=0)
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1). Received: momentum={self.momentum}")
        for name in ("alphas", "taus"):
            values = getattr(self, name)
            if not values or any(not 0 <= v < float("inf") for v in values):
                raise ConfigError(
                    f"{name} must hold one or more finite numbers that are not negative. "
                    f"Received: {name}={values}"
                )
            if list(values) != sorted(set(values)):
                raise ConfigError(f"{name} must increase. Received: {name}={values}")
        if any(not 0 < width < 1 for width in self.uniform_widths):
            raise ConfigError(
                "uniform_widths must lie between 0 and 1. "
                f"Received: uniform_widths={self.uniform_widths}"
            )
        if self.method == "proximal":
            if self.penalty not in ("number", "size"):
                raise ConfigError(
                    "method='proximal' knows the penalties number and size. "
                    f"Received: penalty={self.penalty!r}; use --method gradient"
                )
        elif max(self.taus) == 0:
            raise ConfigError(
                "method='gradient' leaves no exact zeros: give a threshold, such as "
                f"--taus 0.01 --relative. Received: taus={self.taus}"
            )

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(width, kernel size) of the base's convolutions."""
        return tuple((max(1, round(self.width * w)), size) for w, size in models.BASES[self.base])

    @property
    def total_epochs(self) -> int:
        """Epochs that the network of the last α has seen, or `baseline_epochs` where given."""
        path = len(self.alphas) if self.warm_start else 1
        spent = self.epochs + path * self.sparse_epochs + self.fine_tune_epochs
        return spent if self.baseline_epochs is None else self.baseline_epochs

    @property
    def group_penalty(self) -> regularizers.StructuredSparsity:
        """The groups and the norm by which kernels are shrunk and removed; its α is 0."""
        if self.penalty in _COUNTED:
            return regularizers.KernelNumber(0.0, norm=self.norm)
        return regularizers.KernelSize(0.0, groups=self.groups, norm=self.norm)
