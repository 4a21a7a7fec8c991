"""A trial of the search over α and τ, as a hypermodel of KerasTuner."""

from typing import Any

import keras
import keras_tuner

from tfconvbias import data
from tfconvbias.arguments import checked
from tfconvbias.studies.structured_sparsity.search_config import SparsitySearchConfig
from tfconvbias.studies.structured_sparsity.steps import (
    NothingLeftError,
    build_network,
    momentum_sgd,
    multiply_adds,
    penalized,
    reduce,
    train,
)
from tfconvbias.training import (
    ConfigError,
    Deadline,
    History,
    RunFolder,
    RunPausedError,
    TrainingDivergedError,
)


@checked
class StructuredSparsityHyperModel(keras_tuner.HyperModel):
    """From the trained base: penalize with α, threshold at τ, make compact, fine-tune.

    Fits any KerasTuner tuner with the objective `score` (the larger the better), in one process,
    after `train_base`: trials of the same α share its training in `folder`.

    Args:
        config: What all trials share, and the values that are tried.
        dataset: Its training and validation images are used, its test images never.
        folder: Where trainings keep their checkpoints, each in a part.
        deadline: When to stop; by default never.

    Raises:
        ConfigError: If there is no validation split, or the augmentation is unknown.
    """

    def __init__(
        self,
        config: SparsitySearchConfig,
        dataset: data.ImageDataset,
        folder: RunFolder,
        deadline: Deadline | None = None,
    ):
        super().__init__(name="structured_sparsity")
        if len(dataset.x_validation) == 0:
            raise ConfigError(
                f"A search needs validation images. Received: data set {dataset.name} without any"
            )
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.deadline = deadline or Deadline(None)
        self.base = build_network(config.sweep, dataset)

    def train_base(self) -> None:
        """Train the base, or load it where it has been trained before.

        Raises:
            RunPausedError: If the time was over before the last epoch.
            TrainingDivergedError: If the loss became NaN or infinite.
        """
        sweep = self.config.sweep
        self._train("base", self.base, sweep.epochs, self._sgd(sweep.learning_rate, sweep.epochs))

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Enter α and τ."""
        sweep = self.config.sweep
        for name, values in (("alpha", sweep.alphas), ("tau", sweep.taus)):
            if self.config.algorithm == "grid" or len(values) == 1:
                hp.Choice(name, list(values), default=values[0], ordered=True)
            else:
                sampling = "log" if values[0] > 0 else "linear"
                hp.Float(name, values[0], values[-1], sampling=sampling)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The base with its trained weights."""
        self.declare_hyperparameters(hp)
        network = build_network(self.config.sweep, self.dataset)
        network.set_weights(self.base.get_weights())
        return network

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, **_: Any
    ) -> dict[str, float]:
        """One trial.

        Args:
            hp: α and τ.
            model: From `build`.

        Returns:
            `score`: validation accuracy less the price of the multiply-adds; `val_accuracy`,
            `multiply_adds_ratio` to the base, `parameters`.

        Raises:
            keras_tuner.errors.FailedTrialError: If the loss became NaN or infinite, or τ removed
                everything.
            keras_tuner.errors.FatalError: If the time was over; its cause is a `RunPausedError`.
        """
        sweep, alpha, tau = self.config.sweep, hp.get("alpha"), hp.get("tau")
        place = f"alpha-{alpha:g}"
        try:
            trained, optimizer = penalized(sweep, self.dataset, model, alpha)
            self._train(place, trained, sweep.sparse_epochs, optimizer)
            smaller = reduce(sweep, model, tau).compact
            epochs = sweep.fine_tune_epochs
            optimizer = self._sgd(sweep.fine_tune_learning_rate, epochs)
            history = self._train(f"{place}/tau-{tau:g}", smaller, epochs, optimizer)
        except (TrainingDivergedError, NothingLeftError) as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except RunPausedError as pause:
            # KerasTuner would take any other error for a failed trial.
            raise keras_tuner.errors.FatalError(str(pause)) from pause
        accuracy = history["val_accuracy"][-1]
        ratio = multiply_adds(smaller) / multiply_adds(self.base)
        return {
            "score": accuracy - self.config.multiply_add_price * ratio,
            "val_accuracy": accuracy,
            "multiply_adds_ratio": ratio,
            "parameters": float(smaller.count_params()),
        }

    def _train(
        self, name: str, model: keras.Model, epochs: int, optimizer: keras.optimizers.Optimizer
    ) -> History:
        return train(
            self.config.sweep,
            self.dataset,
            self.folder.part(name),
            model,
            epochs,
            optimizer,
            self.deadline,
            measured_on="validation",
        )

    def _sgd(self, rate: float, epochs: int) -> keras.optimizers.SGD:
        return momentum_sgd(self.config.sweep, self.dataset, rate, epochs)
