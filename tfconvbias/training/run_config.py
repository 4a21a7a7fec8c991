"""One frozen configuration describes a run: recipes differ by its fields, not by code."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tfconvbias.training.config import option
from tfconvbias.training.data_config import DataConfig, dataset_label
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import Execution


@dataclass(frozen=True)
class RunConfig(DataConfig, Execution):
    """Everything that decides a training run's result, and where the run is kept.

    Recipes hold one instance each and derive their rows with `dataclasses.replace`. Field help
    stands in the fields' metadata, from which `command_line.parse` makes the options.

    Raises:
        ConfigError: If a value is out of its range, or two fields contradict each other.
    """

    section = "network and training"

    family: Literal["s", "d", "three_fc", "resnet18"] = option("s", "model family")
    connectivity: Literal["conv", "local", "dense"] = option(
        "conv", "conv, local (no weight sharing) or dense (no locality either)"
    )
    base_channels: int = option(16, "α: channels of the first layer (s, d, resnet18)")
    hidden_ratio: int = option(24, "units of fc1 by α (s)")
    hidden_units: int = option(512, "units of each hidden layer (three_fc)")
    kernel_size: int | None = option(None, "side of the receptive fields; none: the family's own")
    dropout_rate: float = option(0.0, "dropout before the last two dense layers")

    augment: str = option("none", "augmentation policy, see tfconvbias.data.augmentation")
    cutout_length: int | None = option(
        None, "side of the square that cutout removes; none: 20 for svhn, 16 otherwise"
    )
    crop_padding: int = option(
        4, "pixels of zeros around an image from which crop cuts; smaller images want fewer"
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
    batch_size: int = option(512, "images per step; the last, partial batch of an epoch is dropped")
    train_on_all: bool = option(
        False,
        "train on the validation images, too: a last step, once all choices are made; the test "
        "images are then measured after every epoch, and the last model counts",
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = option(
        "float32",
        "compute precision; variables stay float32; auto: mixed_bfloat16 on an accelerator, else "
        "float32",
    )
    jit_compile: Literal["auto", "on", "off"] = option("auto", "compile the step with XLA")
    certified_sparsity: bool = option(
        False,
        "β-LASSO: compute dense layers with the weights that are left wherever that is faster, on "
        "the processor; the same result up to rounding. Other optimizers stay as they are",
        decides=False,
    )
    stream: Literal["auto", "on", "off"] = option(
        "auto",
        "read the images of a folder from their files batch by batch, instead of all into memory; "
        "auto: where they would take more than a quarter of the memory left",
        decides=False,
    )
    tensorboard: bool = option(True, "write TensorBoard logs into the run folder", decides=False)

    def __post_init__(self):
        super().__post_init__()
        self._positive("base_channels", "hidden_units", "hidden_ratio", "epochs", "batch_size")
        self._positive("kernel_size", "cutout_length", optional=True)
        self._at_least_zero(
            "crop_padding", "learning_rate", "weight_decay", "l1", "l1_conv", "beta"
        )
        if self.certified_sparsity and self.device_epochs == "on":
            raise ConfigError(
                "certified_sparsity looks at the weights between steps, which device_epochs='on' "
                "takes as one. Received: both"
            )
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

    @property
    def is_certified(self) -> bool:
        """Whether β-LASSO trains on the weights that are left."""
        return self.certified_sparsity and self.optimizer == "beta_lasso"

    @property
    def streaming(self) -> Literal["off", "auto", "on"]:
        """`stream`: a run takes its images in batches."""
        return self.stream

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result, with the content of an augmentation's file."""
        found = super().identity()
        file = Path(self.augment)
        if file.suffix == ".json" and file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            found["augment"] = f"{file.name} {digest}"
        return found

    def default_run_name(self) -> str:
        """A readable folder name that differs between any two different runs."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return (
            f"{self.model_name}{self.width}-{dataset_label(self.dataset)}-{self.optimizer}"
            f"-e{self.epochs}-s{self.seed}-{digest[:8]}"
        )
