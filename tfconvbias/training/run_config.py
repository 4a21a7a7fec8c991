"""One frozen configuration describes a run: recipes differ by its fields, not by code."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from tfconvbias.training.errors import ConfigError

_NO_PART_OF_THE_RESULT = (
    *("run_dir", "resume", "checkpoint_every", "max_minutes", "device_epochs"),
    *("tensorboard", "verbose"),
)


def option(default: Any, help: str) -> Any:
    """A dataclass field with the sentence that `--help` shows for it."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run's result, and where the run is kept.

    Recipes hold one instance each and derive their rows with `dataclasses.replace`. Field help
    stands in the fields' metadata, from which `command_line.parse` makes the options.

    Raises:
        ConfigError: If a value is out of its range, or two fields contradict each other.
    """

    family: Literal["s", "d", "three_fc", "resnet18"] = option("s", "model family")
    connectivity: Literal["conv", "local", "dense"] = option(
        "conv", "conv, local (no weight sharing) or dense (no locality either)"
    )
    base_channels: int = option(16, "α: channels of the first layer (s, d, resnet18)")
    hidden_units: int = option(512, "units of each hidden layer (three_fc)")
    kernel_size: int | None = option(None, "side of the receptive fields; none: the family's own")
    dropout_rate: float = option(0.0, "dropout before the last two dense layers")

    dataset: str = option(
        "cifar10", "cifar10, cifar100, svhn, motifs10, motifs100, or a folder of images"
    )
    data_dir: str | None = option(None, "where TensorFlow Datasets keeps its files")
    num_train: int | None = option(None, "train on this many images, drawn by class; none: all")
    augment: str = option("none", "augmentation policy, see tfconvbias.data.augmentation")
    permute_pixels: int | None = option(
        None, "seed of one fixed permutation of all pixels; none: leave them in place"
    )

    optimizer: Literal["sgd", "beta_lasso"] = option("sgd", "sgd or beta_lasso")
    learning_rate: float = option(0.1, "initial learning rate")
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "cosine: per step to 0 over all epochs; constant"
    )
    momentum: float = option(0.0, "momentum of the optimizer")
    weight_decay: float = option(
        0.0, "coupled decay of the kernels, as an L2 term weight_decay/2 in the loss"
    )
    l1: float = option(5e-6, "β-LASSO's λ for the layers that are dense in every connectivity")
    l1_conv: float = option(2e-5, "β-LASSO's λ for the layers that stand for convolutions")
    beta: float = option(50.0, "β-LASSO's threshold coefficient β; 0 switches thresholding off")
    threshold: Literal["hard", "soft"] = option("hard", "β-LASSO's threshold")

    epochs: int = option(400, "passes over the training images")
    batch_size: int = option(512, "images a step; the last, partial batch of an epoch is dropped")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = option(
        "float32", "compute precision; variables stay float32"
    )
    jit_compile: Literal["auto", "on", "off"] = option("auto", "compile the step with XLA")
    seed: int = option(0, "seed of initial weights, batch order, augmentation and dropout")

    run_dir: str | None = option(None, "run folder; none: a name made from the configuration")
    resume: bool = option(False, "continue the run in the run folder where it stopped")
    checkpoint_every: int = option(1, "epochs between checkpoints")
    max_minutes: float | None = option(
        None, "stop behind a checkpoint before this time is over; --resume continues; none: no end"
    )
    device_epochs: bool = option(
        False, "hold the training images on the device and run each epoch in one execution"
    )
    tensorboard: bool = option(True, "write TensorBoard logs into the run folder")
    verbose: Literal["auto", "bar", "line", "silent"] = option(
        "auto", "progress: a bar, a line an epoch, or nothing; auto: a bar on a terminal"
    )

    def __post_init__(self):
        self._positive("base_channels", "hidden_units", "epochs", "batch_size", "checkpoint_every")
        self._positive("kernel_size", "num_train", optional=True)
        self._at_least_zero("learning_rate", "weight_decay", "l1", "l1_conv", "beta")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ConfigError(f"max_minutes must be positive. Received: {self.max_minutes=}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1). Received: momentum={self.momentum}")
        if not 0 <= self.dropout_rate < 1:
            raise ConfigError(
                f"dropout_rate must be in [0, 1). Received: dropout_rate={self.dropout_rate}"
            )
        if self.family == "three_fc" and self.connectivity != "dense":
            raise ConfigError(
                "family='three_fc' is dense throughout. "
                f"Received: connectivity={self.connectivity!r}"
            )
        if self.family == "resnet18" and self.dropout_rate:
            raise ConfigError(
                f"family='resnet18' has no dropout. Received: dropout_rate={self.dropout_rate}"
            )

    @property
    def model_name(self) -> str:
        """The member's name, such as s_fc."""
        if self.family == "three_fc":
            return self.family
        suffix = "fc" if self.connectivity == "dense" else self.connectivity
        return f"{self.family}_{suffix}"

    @property
    def width(self) -> int:
        """Base channels, or hidden units for 3-FC."""
        return self.hidden_units if self.family == "three_fc" else self.base_channels

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result: all but where and how it is come by and shown."""
        fields = dataclasses.asdict(self)
        for name in _NO_PART_OF_THE_RESULT:
            del fields[name]
        return fields

    def default_run_name(self) -> str:
        """A readable folder name that differs between any two different runs."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        dataset = self.dataset.rstrip("/").rsplit("/", 1)[-1]
        return (
            f"{self.model_name}{self.width}-{dataset}-{self.optimizer}"
            f"-e{self.epochs}-s{self.seed}-{digest[:8]}"
        )

    def _positive(self, *names: str, optional: bool = False) -> None:
        for name in names:
            value = getattr(self, name)
            if value is None and optional:
                continue
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a positive integer. Received: {name}={value}")

    def _at_least_zero(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(
                    f"{name} must be a finite number that is not negative. Received: {name}={value}"
                )
