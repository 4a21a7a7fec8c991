"""What decides the result of the switch-time protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfconvbias.lazy import callbacks
from tfconvbias.training import ConfigError, DataConfig, Execution, ManyRuns, option


@dataclass(frozen=True)
class NetworkConfig(DataConfig, Execution):
    """The CNN, and what its embeddings share.

    Raises:
        ConfigError: If a value is out of its range.
    """

    network: Literal["vanilla", "alexnet"] = option("vanilla", "the CNN")
    filters: int = option(64, "channels of VanillaCNN's convolutions")
    kernel_size: int | None = option(
        None, "taps of a wide convolution along each axis; none: all that meet an input"
    )

    def __post_init__(self):
        super().__post_init__()
        self._positive("filters")
        self._positive("kernel_size", optional=True)


@dataclass(frozen=True)
class SwitchTimeConfig(NetworkConfig, ManyRuns):
    """The CNN, the networks that it is embedded in, their trainings, and what is measured.

    Raises:
        ConfigError: If a value is out of its range.
    """

    target: Literal["dense", "local", "wide"] = option(
        "dense",
        "layers that the convolutions become; dense: eFCN; local: LCN; wide: larger convolutions",
    )
    padding: Literal["folded", "explicit"] = option(
        "folded",
        "zeros around the images of a dense target; folded: they have no weights; explicit: they "
        "are inputs with weights",
    )
    epochs: int = option(150, "epochs of the CNN")
    learning_rate: float = option(0.1, "learning rate of the CNN")
    embedded_epochs: int = option(100, "epochs of each embedded network and of the FCN")
    embedded_learning_rate: float = option(
        0.01, "learning rate of the embedded networks and of the FCN"
    )
    switch_times: tuple[int, ...] = option(
        (), "epochs of the CNN after which it is embedded; none given: log-spaced"
    )
    batch_size: int = option(250, "images per step; the last, partial batch of an epoch is dropped")
    shuffle: bool = option(
        True, "a new order of the images in each epoch; the paper's code keeps one order"
    )
    curvature_samples: int = option(
        1000, "training images for ‖∇L‖ and the Hessian; 0: neither is measured"
    )
    num_points: int = option(11, "points of each interpolation; 0: no interpolations")
    string_epochs: int = option(3, "most passes of the string over its images; 0: no string")
    string_learning_rate: float = option(0.1, "learning rate of the string")
    string_tolerance: float = option(
        0.0, "share of the straight line's residual at which the string stops"
    )
    string_samples: int = option(1000, "training images whose loss the string follows, in batches")
    stiffness: float = option(1.0, "stiffness k of the string")
    num_seeds: int = option(
        1, "seeds, counted from --seed, each in a folder of its own; all see the same images"
    )

    run_dir: str = option(
        "runs/efcn-switch-time", "folder of histories, results and the report", decides=False
    )
    checkpoint_every: int = option(5, "epochs between checkpoints", decides=False)

    def __post_init__(self):
        super().__post_init__()
        self._positive("epochs", "embedded_epochs", "batch_size", "string_samples")
        self._num_runs("num_seeds")
        self._above_zero("learning_rate", "embedded_learning_rate", "string_learning_rate")
        self._at_least_zero("curvature_samples", "num_points", "string_epochs", "stiffness")
        self._at_least_zero("string_tolerance")
        if any(not 0 <= t <= self.epochs for t in self.switch_times):
            raise ConfigError(
                f"switch_times must lie in 0 … {self.epochs}. "
                f"Received: switch_times={self.switch_times}"
            )
        if self.num_points and self.num_points < 3:
            raise ConfigError(
                f"num_points must be 0 or at least 3. Received: num_points={self.num_points}"
            )

    @property
    def times(self) -> tuple[int, ...]:
        """The switch times, increasing; the last epoch is always among them."""
        if not self.switch_times:
            return callbacks.log_spaced_epochs(self.epochs)
        return tuple(sorted({*self.switch_times, self.epochs}))
