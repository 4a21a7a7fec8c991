"""Description lengths of the families' members, dense, thinned out or as trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from tfconvbias import analysis, models
from tfconvbias.training import Config, ConfigError, RunFolder, format_table, option

_CONNECTIVITIES: tuple[Literal["conv", "local", "dense"], ...] = ("conv", "local", "dense")


@dataclass(frozen=True)
class DescriptionTableConfig(Config):
    """Which models are described, and for which bound.

    Raises:
        ConfigError: If a value is out of its range.
    """

    s_channels: int = option(16, "α of the S family; 150 in the paper (2 GB of memory)")
    d_channels: int = option(4, "α of the D family; 15 in the paper (3 GB of memory)")
    image_size: int = option(32, "side of the images")
    num_classes: int = option(10, "classes")
    kept: tuple[float, ...] = option(
        (0.01,), "shares of each kernel's weights, the largest, that thinned out models keep"
    )
    runs: tuple[str, ...] = option((), "run folders whose trained models are described, too")
    bits: int | None = option(None, "bits of a parameter; none: those of its dtype")
    num_samples: int = option(50_000, "training samples m of the bound")
    delta: float = option(0.05, "probability that the bound fails")
    train_error: float = option(0.0, "share of errors on the training samples")

    def __post_init__(self):
        super().__post_init__()
        self._positive("s_channels", "d_channels", "image_size", "num_classes", "num_samples")
        self._positive("bits", optional=True)
        if not all(0 < share <= 1 for share in self.kept):
            raise ConfigError(f"kept must lie in (0, 1]. Received: kept={self.kept}")
        if not 0 < self.delta < 1 or not 0 <= self.train_error <= 1:
            raise ConfigError(
                "delta must lie in (0, 1) and train_error in [0, 1]. "
                f"Received: delta={self.delta}, train_error={self.train_error}"
            )


def report_description_lengths(config: DescriptionTableConfig) -> None:
    """Print the table of `description_rows`."""
    print(format_table(list(description_rows(config))))


def description_rows(config: DescriptionTableConfig) -> Iterator[dict[str, str]]:
    """One row per model: counts of the kernels, lengths in bits, both bounds.

    - parameters, n, ‖w‖₀, k: as `analysis.description_length` with shared weights;
    - "plain, bits": all stored parameters; "sparse, bits": Theorem 2's description;
    - "unshared, bits": Theorem 2's when every position's weights count on their own;
    - "bound 1", "bound 2": of the theorems, on the share of errors. Above 1 they say nothing.

    Args:
        config: which models.

    Raises:
        ConfigError: If a run folder holds no trained model.
    """
    for name, model in _models(config):
        found = analysis.description_length(
            model, include="kernels", bits_per_parameter=config.bits
        )
        unshared = analysis.description_length(
            model, "none", include="kernels", bits_per_parameter=config.bits
        )
        plain_bound = analysis.generalization_bound(
            config.train_error, found.parameter_bits, config.num_samples, config.delta
        )
        sparse_bound = found.bound(config.train_error, config.num_samples, config.delta)
        yield {
            "model": name,
            "parameters": f"{found.num_parameters:,}",
            "n": f"{found.num_weights:,}",
            "‖w‖₀": f"{found.num_nonzeros:,}",
            "k": f"{found.num_values:,}",
            "plain, bits": f"{found.parameter_bits:.3g}",
            "sparse, bits": f"{found.bits:.3g}",
            "unshared, bits": f"{unshared.bits:.3g}",
            "bound 1": f"{plain_bound:.2f}",
            "bound 2": f"{sparse_bound:.2f}",
        }


def _models(config: DescriptionTableConfig) -> Iterator[tuple[str, keras.Model]]:
    # Before the work, so that a fault in a path shows at once.
    trained = {path: _last_model(path) for path in config.runs}
    shape = (config.image_size, config.image_size, 3)
    for letter, family, channels in (
        ("S", models.SConv, config.s_channels),
        ("D", models.DConv, config.d_channels),
    ):
        for connectivity in _CONNECTIVITIES:
            model = family(
                channels,
                connectivity,
                input_shape=shape,
                classes=config.num_classes,
                kernel_initializer="zeros",
            )
            _draw(model)
            suffix = {"conv": "CONV", "local": "LOCAL", "dense": "FC"}[connectivity]
            name = f"{letter}-{suffix}({channels})"
            yield name, model
            for share in sorted(config.kept, reverse=True):
                _keep_largest(model, share)
                yield f"{name}, {100 * share:g} % kept", model
            keras.utils.clear_session()
    for path, file in trained.items():
        yield path, keras.saving.load_model(file)


def _draw(model: keras.Model) -> None:
    """Give all kernels normal weights: the same on every backend, and none is zero."""
    generator = np.random.default_rng(0)
    for kernel in analysis.kernels(model).values():
        kernel.assign(generator.standard_normal(kernel.shape, dtype="float32"))


def _keep_largest(model: keras.Model, share: float) -> None:
    """Set all but the largest weights of each kernel to zero; shares must not grow."""
    for kernel in analysis.kernels(model).values():
        array = keras.ops.convert_to_numpy(kernel)
        sizes = np.abs(array).ravel()
        num_kept = max(1, round(share * array.size))
        smallest = np.partition(sizes, array.size - num_kept)[array.size - num_kept]
        kernel.assign(np.where(np.abs(array) >= smallest, array, 0))


def _last_model(path: str):
    folder = RunFolder(path)
    if not folder.last_model.exists():
        raise ConfigError(f"runs must be folders of finished runs. Received: {path}")
    return folder.last_model
