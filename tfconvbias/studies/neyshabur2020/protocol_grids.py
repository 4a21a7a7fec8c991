"""Settings of a grid, stated so that they serve runs of every length."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

from tfconvbias.lazy import data, models, optimizers
from tfconvbias.training import ConfigError, RunConfig, learning_rate

_NAMES = {
    "momentum": "momentum",
    "weight_decay": "decay",
    "pull": "pull",
    "cutoff": "cutoff",
    "dropout_rate": "dropout",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a grid.

    Attributes:
        values: What is stated → its value: fields of `RunConfig`, and of β-LASSO the total `pull`
            λ Σ η and the `cutoff` β λ by `initial_deviation`.
        l1_ratio: λ of the layers that are dense in every family by that of the others.
    """

    values: Mapping[str, float]
    l1_ratio: float = 0.25

    @property
    def label(self) -> str:
        """The values in words."""
        return ", ".join(f"{_NAMES[name]} {value:g}" for name, value in self.values.items())

    def apply(self, config: RunConfig, dataset: data.ImageDataset) -> RunConfig:
        """The run with this setting.

        Args:
            config: The run, its epochs and its width among the rest.
            dataset: What it trains on.
        """
        return config.replace(**self.fields(config, dataset))

    def fields(self, config: RunConfig, dataset: data.ImageDataset) -> dict[str, float]:
        """The fields of `RunConfig` that the setting decides, for this run."""
        fields = dict(self.values)
        if "pull" not in fields:
            return fields
        num_train = len(dataset.x_train)
        if config.train_on_all:
            num_train += len(dataset.x_validation)
        steps = max(1, config.epochs * (num_train // config.batch_size))
        cutoff = fields.pop("cutoff") * initial_deviation(config, dataset.image_shape)
        l1, beta = optimizers.beta_lasso_settings(
            fields.pop("pull"), cutoff, learning_rate(config, steps), steps
        )
        return {
            "l1_conv": l1,
            "l1": self.l1_ratio * l1,
            "beta": beta,
            "momentum": 0.0,
            "weight_decay": 0.0,
            **fields,
        }


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination of some values.

    Args:
        choices: What is tried → its values.
        l1_ratio: λ of the layers that are dense in every family by that of the others.

    Raises:
        ConfigError: If a value is out of its range.
    """

    choices: Mapping[str, tuple[float, ...]]
    l1_ratio: float

    def __post_init__(self):
        for name, values in self.choices.items():
            for value in values:
                if name == "pull" and not 0 < value < math.inf:
                    raise ConfigError(f"pulls must be positive. Received: {value}")
                if name == "cutoff" and not 0 <= value < math.inf:
                    raise ConfigError(f"cutoffs must be at least 0. Received: {value}")
                if name not in ("pull", "cutoff"):
                    RunConfig(**{name: value})  # type: ignore[arg-type]

    def __len__(self) -> int:
        return math.prod(map(len, self.choices.values()))

    def settings(self) -> list[Setting]:
        """All of them, the last value changing fastest."""
        return [
            Setting(dict(zip(self.choices, values, strict=True)), self.l1_ratio)
            for values in itertools.product(*self.choices.values())
        ]

    def at_the_edge(self, setting: Setting) -> list[str]:
        """Which values of a setting are the largest tried, or the smallest above 0, of several.

        A better setting may lie beyond them.
        """
        found = []
        for name, values in self.choices.items():
            positive = [value for value in values if value > 0]
            value = setting.values[name]
            if len(positive) > 1 and value in (min(positive), max(positive)):
                found.append(f"{_NAMES[name]} {value:g}")
        return found


def initial_deviation(config: RunConfig, image_shape: tuple[int, int, int]) -> float:
    """Standard deviation of the initial weights that a cutoff is measured by.

    In a fully connected network that is the first layer's, of Glorot's uniform distribution,
    sqrt(2 / (inputs + outputs)); in ResNet18 the last stage's, of He's normal distribution,
    sqrt(2 / inputs), which is the smallest of its convolutions.

    Args:
        config: Of S-FC, D-FC, 3-FC or ResNet18 of convolutions.
        image_shape: `(rows, cols, channels)`.

    Raises:
        ConfigError: If the network is another one.
    """
    rows, cols, _ = image_shape
    if config.family == "three_fc":
        units = config.hidden_units
    elif config.connectivity == "dense" and config.family in ("s", "d"):
        stride = 2 if config.family == "s" else 1
        units = -(-rows // stride) * -(-cols // stride) * config.base_channels
    elif config.family == "resnet18" and config.connectivity == "conv":
        filters = models.layer_tables.STAGES[-1][0] * config.base_channels
        return math.sqrt(2 / ((config.kernel_size or 3) ** 2 * filters))
    else:
        raise ConfigError(
            "A grid of β-LASSO is for fully connected networks and ResNet18. "
            f"Received: family={config.family!r}, connectivity={config.connectivity!r}"
        )
    return math.sqrt(2 / (math.prod(image_shape) + units))
