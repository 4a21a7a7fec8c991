"""What decides a sweep over the strength of structured sparsity."""

import dataclasses
import json
from typing import Any, Literal

from tfconvbias import models
from tfconvbias.regularizers import KernelNumber, KernelSize, StructuredSparsity
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_config import option

_HOW = ("run_dir", "resume", "checkpoint_every", "verbose")
_COUNTED = ("number", "number_squared")


@dataclasses.dataclass(frozen=True)
class SparsityConfig:
    """What decides the result of a sweep over α and τ, and where it is kept.

    Raises:
        ConfigError: If a value is out of its range, or two fields contradict each other.
    """

    base: Literal["imagenet8", "imagenet18", "cifar20", "cifar20_square"] = option(
        "cifar20", "base architecture, see StructuredBase"
    )
    width: float = option(1.0, "times the widths of the base architecture")
    residual: bool = option(True, "shortcuts over pairs of convolutions; without: a plain network")

    dataset: str = option("cifar10", "cifar10, cifar100, svhn, motifs10, or a folder of images")
    data_dir: str | None = option(None, "where TensorFlow Datasets keeps its files")
    num_train: int | None = option(None, "train on this many images; none: all")
    num_test: int | None = option(None, "measure on this many test images; none: all")
    augment: str = option("flip_crop", "augmentation policy, see tfconvbias.data.augmentation")

    penalty: Literal["number", "size", "number_squared", "size_squared", "multiply_adds"] = option(
        "number", "Ω: number or size of the kernels, or a coupled form, see Complexity"
    )
    method: Literal["proximal", "gradient"] = option(
        "proximal", "proximal: exact zeros (number and size); gradient: Ω in the loss, then τ"
    )
    groups: Literal["half_ring", "ring"] = option("half_ring", "nested groups of the sizes")
    norm: Literal["l2", "normalized", "scaled", "linf"] = option("l2", "norm of a group")
    folded: bool = option(
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
    learning_rate: float = option(0.1, "initial rate of the base and of the baselines")
    sparse_learning_rate: float = option(0.05, "initial rate with the penalty")
    fine_tune_learning_rate: float = option(0.02, "initial rate of the compact networks")
    momentum: float = option(0.9, "momentum")
    weight_decay: float = option(1e-4, "coupled decay of the kernels")
    batch_size: int = option(128, "images a step")

    uniform_widths: tuple[float, ...] = option(
        (0.7, 0.5, 0.35), "baselines: the base with all widths times these"
    )
    random_widths: int = option(
        3, "baselines: networks of random widths, of the found ones' multiply-adds"
    )
    baseline_epochs: int | None = option(
        None, "epochs of each baseline; none: those of base, path and fine-tuning together"
    )
    latency_batch: int = option(256, "images of the timed inference")
    seed: int = option(0, "seed of initial weights, batch order, augmentation, random widths")

    run_dir: str = option("runs/structured-sparsity", "folder of models, results and the report")
    resume: bool = option(False, "continue the sweep in the run folder")
    checkpoint_every: int = option(1, "epochs between checkpoints")
    verbose: Literal["line", "silent"] = option("line", "progress: a line an epoch, or nothing")

    def __post_init__(self):
        positive = (
            "width epochs sparse_epochs fine_tune_epochs batch_size latency_batch checkpoint_every"
        )
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive. Received: {getattr(self, name)}")
        if self.baseline_epochs is not None and self.baseline_epochs < 1:
            raise ConfigError(f"baseline_epochs must be positive. Received: {self.baseline_epochs}")
        for name in ("alphas", "taus"):
            values = getattr(self, name)
            if not values or any(not 0 <= v < float("inf") for v in values):
                raise ConfigError(
                    f"{name} must hold one or more finite numbers >= 0. Received: {values}"
                )
            if list(values) != sorted(set(values)):
                raise ConfigError(f"{name} must increase. Received: {values}")
        if any(not 0 < width < 1 for width in self.uniform_widths):
            raise ConfigError(
                f"uniform_widths must lie between 0 and 1. Received: {self.uniform_widths}"
            )
        if self.random_widths < 0:
            raise ConfigError(f"random_widths must not be negative. Received: {self.random_widths}")
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
    def group_penalty(self) -> StructuredSparsity:
        """The groups and the norm by which kernels are shrunk and removed; its α is 0."""
        if self.penalty in _COUNTED:
            return KernelNumber(0.0, norm=self.norm)
        return KernelSize(0.0, groups=self.groups, norm=self.norm)

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result, as JSON holds them."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in _HOW}
        return json.loads(json.dumps(fields))
