"""KerasTuner over α and τ: how hard to penalize, and what to remove."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import keras_tuner
from tfconvbias.training.claimed_folder import check_folder, write_json
from tfconvbias.training.sparsity_steps import (
    build_network,
    momentum_sgd,
    multiply_adds,
    penalized,
    reduce,
    train,
)

from tfconvbias import data
from tfconvbias.training import (
    ConfigError,
    SparsityConfig,
    TrainingDivergedError,
    command_line,
    option,
)
from tfconvbias.training.batches import check_batch_size
from tfconvbias.training.build import load_dataset
from tfconvbias.training.table import format_table
from tfconvbias.tuning.errors import SearchError
from tfconvbias.tuning.search import without_deprecations

_METRICS = ("val_accuracy", "multiply_adds_ratio", "parameters")
OF_SWEEPS = ("uniform_widths", "random_widths", "baseline_epochs", "latency_batch", "warm_start")


@dataclasses.dataclass(frozen=True)
class SparsitySearchConfig(SparsityConfig):
    """Everything that decides a search over (α, τ), and where it is kept.

    `alphas` and `taus` are what the grid tries; the other algorithms look between the smallest and
    the largest of each. Fields of `SparsityConfig` that only a sweep has are not used.

    Raises:
        ConfigError: If a value is out of its range.
    """

    algorithm: Literal["grid", "bayesian", "random"] = option(
        "grid", "grid: every combination; bayesian, random: between the smallest and the largest"
    )
    max_trials: int = option(20, "most trials of bayesian and random")
    multiply_add_price: float = option(
        0.1, "accuracy that a network is worth less with all of the base's multiply-adds"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.max_trials < 1:
            raise ConfigError(f"max_trials must be positive. Received: {self.max_trials}")
        if not 0 <= self.multiply_add_price < float("inf"):
            raise ConfigError(
                "multiply_add_price must be a finite number >= 0. "
                f"Received: {self.multiply_add_price}"
            )
        if self.algorithm != "grid" and self.alphas[0] == 0:
            raise ConfigError(
                f"algorithm={self.algorithm!r} looks on a logarithmic scale: alphas must be "
                f"positive. Received: {self.alphas}"
            )

    def sweep(self, alpha: float, tau: float) -> SparsityConfig:
        """The sweep that runs one (α, τ), in a folder of its own."""
        names = {f.name for f in dataclasses.fields(SparsityConfig)} - {"run_dir", "resume"}
        fields = {name: getattr(self, name) for name in names}
        return SparsityConfig(**fields | {"alphas": (alpha,), "taus": (tau,)})

    def identity(self) -> dict[str, Any]:
        """The fields that decide the result: not those of sweeps alone."""
        return {k: v for k, v in super().identity().items() if k not in OF_SWEEPS}


class StructuredSparsityHyperModel(keras_tuner.HyperModel):
    """From the trained base: penalize with α, threshold at τ, make compact, fine-tune.

    Fits any KerasTuner tuner with the objective `score` (the larger the better), in one process:
    trials of the same α share its training in `folder`.

    Args:
        config: what all trials share, and the values that are tried.
        dataset: its training and validation images are used, its test images never.
        folder: where trainings keep their checkpoints.

    Raises:
        ConfigError: If there is no validation split.
    """

    def __init__(self, config: SparsitySearchConfig, dataset: data.ImageDataset, folder: Path):
        super().__init__(name="structured_sparsity")
        if len(dataset.x_validation) == 0:
            raise ConfigError(
                f"A search needs validation images. Received: data set {dataset.name} without any"
            )
        self.config = config
        self.folder = folder
        # Trainings measure themselves on these alone.
        self.dataset = dataclasses.replace(
            dataset, x_test=dataset.x_validation, y_test=dataset.y_validation
        )
        self.base = build_network(config, self.dataset)
        self._train(
            "base", self.base, config.epochs, self._sgd(config.learning_rate, config.epochs)
        )

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Enter α and τ."""
        for name, values in (("alpha", self.config.alphas), ("tau", self.config.taus)):
            if self.config.algorithm == "grid" or len(values) == 1:
                hp.Choice(name, list(values), default=values[0], ordered=True)
            else:
                sampling = "log" if values[0] > 0 else "linear"
                hp.Float(name, values[0], values[-1], sampling=sampling)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The base with its trained weights."""
        self.declare_hyperparameters(hp)
        network = build_network(self.config, self.dataset)
        network.set_weights(self.base.get_weights())
        return network

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, **_: Any
    ) -> dict[str, float]:
        """One trial.

        Args:
            hp: α and τ.
            model: from `build`.

        Returns:
            `score`: validation accuracy less the price of the multiply-adds; `val_accuracy`,
            `multiply_adds_ratio` to the base, `parameters`.

        Raises:
            keras_tuner.errors.FailedTrialError: If the loss became NaN or infinite, or τ removed
                everything.
        """
        config, alpha, tau = self.config, hp.get("alpha"), hp.get("tau")
        place = f"alpha-{alpha:g}"
        try:
            trained, optimizer = penalized(config, self.dataset, model, alpha)
            self._train(place, trained, config.sparse_epochs, optimizer)
            smaller = reduce(config, model, tau).compact
            epochs = config.fine_tune_epochs
            optimizer = self._sgd(config.fine_tune_learning_rate, epochs)
            history = self._train(f"{place}/tau-{tau:g}", smaller, epochs, optimizer)
        except (TrainingDivergedError, ValueError) as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        accuracy = history["test_accuracy"][-1]
        ratio = multiply_adds(smaller) / multiply_adds(self.base)
        return {
            "score": accuracy - config.multiply_add_price * ratio,
            "val_accuracy": accuracy,
            "multiply_adds_ratio": ratio,
            "parameters": float(smaller.count_params()),
        }

    def _train(
        self, name: str, model: keras.Model, epochs: int, optimizer: keras.optimizers.Optimizer
    ) -> dict[str, list[float]]:
        return train(self.config, self.dataset, self.folder / name, model, epochs, optimizer)

    def _sgd(self, rate: float, epochs: int) -> keras.optimizers.SGD:
        return momentum_sgd(self.config, self.dataset, rate, epochs)


def search_sparsity(
    config: SparsitySearchConfig, dataset: data.ImageDataset | None = None
) -> list[dict[str, Any]]:
    """Search (α, τ) by validation accuracy less a price for multiply-adds.

    Trials are written to disk as they end, and trainings keep checkpoints, so that a search that
    was killed continues with `config.resume`.

    Args:
        config: what to search, and where to keep it.
        dataset: the data set, where the caller has loaded it already.

    Returns:
        The trials, best first: `trial`, `alpha`, `tau`, `score` and the metrics, as they stand in
        `results.csv`. Trials that failed come last, with `message`.

    Raises:
        RunFolderError: If the folder holds another search, or this one without `config.resume`.
        SearchError: If no trial succeeded.
        ConfigError: If the data set has no validation images.
    """
    folder = Path(config.run_dir)
    file = folder / "search.json"
    claimed = check_folder(file, config.identity(), config.resume, "search")
    if dataset is None:
        dataset = load_dataset(config.dataset, config.data_dir)
    dataset = dataset.limit(num_train=config.num_train, seed=config.seed)
    check_batch_size(config.batch_size, len(dataset.x_train))
    if not claimed:
        write_json(file, config.identity())
    space = StructuredSparsityHyperModel(config, dataset, folder / "trainings")
    with without_deprecations():
        tuner = _tuner(config, space, folder)
        tuner.search(verbose=0)
    rows = [_row(trial) for trial in tuner.oracle.trials.values()]
    rows.sort(key=lambda row: (row["score"] is None, -(row["score"] or 0.0)))
    if not rows or rows[0]["score"] is None:
        raise SearchError(
            f"No trial succeeded. The first one's end: {rows[0]['message'] if rows else 'none ran'}"
        )
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def sparsity_search_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The trials as a Markdown table."""
    return format_table(
        [
            {
                "trial": row["trial"],
                "α": f"{row['alpha']:g}",
                "τ": f"{row['tau']:g}",
                "score": _shown(row["score"], "{:.4f}"),
                "validation, %": _shown(row["val_accuracy"], "{:.2%}").removesuffix("%"),
                "multiply-adds": _shown(row["multiply_adds_ratio"], "{:.1%}"),
                "parameters": _shown(row["parameters"], "{:,.0f}"),
                "end": row["message"] or "completed",
            }
            for row in rows
        ]
    )


def sparsity_command(config: SparsitySearchConfig, row: Mapping[str, Any]) -> str:
    """The command that runs one trial as a sweep, tested on the test images."""
    words = command_line.arguments_of(config.sweep(row["alpha"], row["tau"]), SparsityConfig())
    return f"python recipes/structured_sparsity.py {words}".strip()


def _tuner(
    config: SparsitySearchConfig, space: StructuredSparsityHyperModel, folder: Path
) -> keras_tuner.Tuner:
    kinds = {
        "grid": keras_tuner.GridSearch,
        "bayesian": keras_tuner.BayesianOptimization,
        "random": keras_tuner.RandomSearch,
    }
    most = (
        len(config.alphas) * len(config.taus) if config.algorithm == "grid" else config.max_trials
    )
    return kinds[config.algorithm](
        space,
        objective=keras_tuner.Objective("score", "max"),
        max_trials=most,
        seed=config.seed,
        directory=str(folder),
        project_name="trials",
        overwrite=False,
        # An α that removes everything fails, and others go on.
        max_consecutive_failed_trials=most + 1,
    )


def _row(trial: Any) -> dict[str, Any]:
    metrics = trial.metrics.metrics
    return {
        "trial": trial.trial_id,
        "alpha": trial.hyperparameters.get("alpha"),
        "tau": trial.hyperparameters.get("tau"),
        "score": trial.score,
        **{
            name: float(trial.metrics.get_last_value(name)) if name in metrics else None
            for name in _METRICS
        },
        "message": (trial.message or "").strip().rpartition("\n")[2],
    }


def _shown(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)
