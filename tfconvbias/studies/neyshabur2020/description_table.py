"""Description lengths of the families' members, dense, thinned out or as trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import analysis, keras, models, plots
from tfconvbias.training import (
    Config,
    ConfigError,
    RunFolder,
    environment,
    environment_note,
    evaluate,
    format_table,
    option,
    write_page,
)

_CONNECTIVITIES: tuple[Literal["conv", "local", "dense"], ...] = ("conv", "local", "dense")

_COUNTED: tuple[tuple[Literal["layers", "none"], Literal["kernels", "weights"]], ...] = (
    ("layers", "kernels"),
    ("none", "kernels"),
    ("layers", "weights"),
)

_NOTES = (
    "Counts and bits are those of the kernels. Every model is a point in the space of the fully "
    "connected one: n and the non-zero weights count entries of that one's matrices, k the "
    "parameters behind them. Plain: all stored parameters. Sparse: Theorem 2's description. "
    "Unshared: Theorem 2's where every position's weights count on their own.",
    "The bounds, of Theorem 1 on the plain description and of Theorem 2 on the sparse one, are on "
    "the share of errors on new images. They are those of a network fixed in advance up to its "
    "weights. They do not pay for what was chosen by looking at the data: architecture, settings, "
    "the epoch, the constants that normalize images. Bounds of models that are not trained assume "
    "their share of errors.",
)


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
    dataset: str | None = option(
        None, "images of the run folders, where they came from a folder; none: the runs' own"
    )
    data_dir: str | None = option(None, "where TensorFlow Datasets keeps its files")
    num_samples: int = option(
        50_000, "training images m of models that are not trained; of runs, m is known"
    )
    delta: float = option(0.05, "probability that the bound fails")
    train_error: float = option(
        0.0, "share of errors assumed of models that are not trained; runs are measured"
    )
    run_dir: str = option("runs/description-length", "folder of the report", decides=False)

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


@dataclass(frozen=True)
class _Described:
    """A model, and what the bounds on its errors start from."""

    name: str
    model: keras.Model
    train_error: float
    num_samples: int
    is_trained: bool = False


@dataclass(frozen=True)
class _Measured:
    """Lengths and bounds of a model, as numbers and as the cells of its row."""

    name: str
    plain_bits: float
    sparse_bits: float
    unshared_bits: float
    sparse_bound: float
    is_trained: bool
    cells: dict[str, str]


@checked
def report_description_lengths(config: DescriptionTableConfig) -> None:
    """Print the table of `description_rows`, what follows from it, and write the report.

    Raises:
        ConfigError: If a run folder holds no trained model, or its images are not found.
        RunFolderError: If the images are not those that a model was trained on.
    """
    found = list(_measurements(config))
    rows, findings = [one.cells for one in found], _findings(found)
    print("\n".join([format_table(rows), "", *findings]))
    kinds = {
        "plain: all stored parameters": [one.plain_bits for one in found],
        "unshared: Theorem 2 without sharing": [one.unshared_bits for one in found],
        "sparse: Theorem 2": [one.sparse_bits for one in found],
    }
    page = write_page(
        Path(config.run_dir) / "report.html",
        "Description lengths and generalization bounds",
        {"": rows},
        {
            "description-lengths": (
                "Bits of the kernels by three descriptions.",
                plots.code_lengths([one.name for one in found], kinds),
            )
        },
        [*_NOTES, f"Computed on {environment_note(environment())}."],
        findings=findings,
        settings=config,
        folders={path: RunFolder(path) for path in config.runs},
    )
    print(f"Report: {page}")


@checked
def description_rows(config: DescriptionTableConfig) -> Iterator[dict[str, str]]:
    """One row per model: counts of the kernels, lengths in bits, both bounds.

    - parameters, n, ‖w‖₀, k: as `analysis.description_length` with shared weights;
    - "plain, bits": all stored parameters; "sparse, bits": Theorem 2's description;
    - "unshared, bits": Theorem 2's when every position's weights count on their own;
    - "m": training images; "errors, %": share of them that are classified wrongly. A trained model
      is asked for its answers to the images it was trained on, as they are, without augmentation;
      for the others, both are the configuration's;
    - "bound 1", "bound 2": of the theorems, on the share of errors. Above 1 they say nothing. The
      descriptions behind them hold biases and normalizations too, not the kernels alone.

    Args:
        config: which models.

    Raises:
        ConfigError: If a run folder holds no trained model, or its images are not found.
        RunFolderError: If the images are not those that a model was trained on.
    """
    for measured in _measurements(config):
        yield measured.cells


def _measurements(config: DescriptionTableConfig) -> Iterator[_Measured]:
    for described in _models(config):
        model = described.model
        kernels, unshared, whole = (
            analysis.description_length(
                model, sharing, include=include, bits_per_parameter=config.bits
            )
            for sharing, include in _COUNTED
        )
        confidence = (described.num_samples, config.delta)
        plain_bound = analysis.generalization_bound(
            described.train_error, whole.parameter_bits, *confidence
        )
        sparse_bound = whole.bound(described.train_error, *confidence)
        origin = "" if described.is_trained else " assumed"
        cells = {
            "model": described.name,
            "parameters": f"{kernels.num_parameters:,}",
            "n": f"{kernels.num_weights:,}",
            "‖w‖₀": f"{kernels.num_nonzeros:,}",
            "k": f"{kernels.num_values:,}",
            "plain, bits": f"{kernels.parameter_bits:.3g}",
            "sparse, bits": f"{kernels.bits:.3g}",
            "unshared, bits": f"{unshared.bits:.3g}",
            "m": f"{described.num_samples:,}",
            "errors, %": f"{100 * described.train_error:.2f}{origin}",
            "bound 1": f"{plain_bound:.2f}",
            "bound 2": f"{sparse_bound:.2f}",
        }
        bits = (kernels.parameter_bits, kernels.bits, unshared.bits)
        yield _Measured(described.name, *bits, sparse_bound, described.is_trained, cells)


def _findings(found: Sequence[_Measured]) -> list[str]:
    """What the table says: whom Theorem 2's description makes shorter, and the best bound."""
    shorter = [one.name for one in found if one.sparse_bits < one.plain_bits]
    trained = [one for one in found if one.is_trained]
    best = min(trained or found, key=lambda one: one.sparse_bound)
    whose = "of the trained models" if trained else "where the share of training errors is assumed"
    says = "" if best.sparse_bound < 1 else ", which is not below 1 and says nothing"
    names = f": {'; '.join(shorter)}" if shorter else ""
    return [
        f"Theorem 2's description is shorter than all stored parameters for {len(shorter)} of "
        f"{len(found)} models{names}.",
        f"Smallest bound 2 on the share of errors, {whose}: {best.name}, "
        f"{best.sparse_bound:.2f}{says}.",
    ]


def _models(config: DescriptionTableConfig) -> Iterator[_Described]:
    # Before the work, so that a fault in a path shows at once.
    for path in config.runs:
        if not RunFolder(path).last_model.exists():
            raise ConfigError(f"runs must be folders of finished runs. Received: {path}")
    shape = (config.image_size, config.image_size, 3)
    for letter, family, channels in (
        ("S", models.SConv, config.s_channels),
        ("D", models.DConv, config.d_channels),
    ):
        for connectivity in _CONNECTIVITIES:
            model = family(
                channels,
                connectivity=connectivity,
                input_shape=shape,
                classes=config.num_classes,
                kernel_initializer="zeros",
            )
            _draw(model)
            suffix = {"conv": "CONV", "local": "LOCAL", "dense": "FC"}[connectivity]
            name = f"{letter}-{suffix}({channels})"
            assumed = (config.train_error, config.num_samples)
            yield _Described(name, model, *assumed)
            for share in sorted(config.kept, reverse=True):
                _keep_largest(model, share)
                yield _Described(f"{name}, {100 * share:g} % kept", model, *assumed)
            keras.utils.clear_session()
    for path in config.runs:
        yield _trained(path, config)


def _trained(path: str, config: DescriptionTableConfig) -> _Described:
    folder = RunFolder(path)
    images, labels = folder.dataset(config.dataset, config.data_dir).split("train")
    model = folder.load_model(folder.last_model)
    correct = evaluate(model, (images, labels))["accuracy"]
    return _Described(path, model, 1 - correct, len(images), is_trained=True)


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
