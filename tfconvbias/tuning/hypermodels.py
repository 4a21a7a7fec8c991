"""The paper's search spaces as KerasTuner hypermodels."""

from collections.abc import Sequence

import keras
import keras_tuner

from tfconvbias import analysis, callbacks, data
from tfconvbias.training import ConfigError, RunConfig, ShuffledBatches, build_model
from tfconvbias.training.build import compile_model
from tfconvbias.tuning.search_config import SearchConfig

_EVALUATION_BATCH = 1000


class _TrainingHyperModel(keras_tuner.HyperModel):
    """A search space over run configurations.

    Args:
        config: what all trials share, and the values that are tried.
        dataset: its training and validation images are used, its test images never.
    """

    optimizer: str

    def __init__(self, config: SearchConfig, dataset: data.ImageDataset):
        super().__init__(name=f"{config.model_name}_{config.optimizer}")
        if config.optimizer != self.optimizer:
            raise ConfigError(
                f"{type(self).__name__} searches optimizer={self.optimizer!r}. "
                f"Received: optimizer={config.optimizer!r}"
            )
        if len(dataset.x_validation) == 0:
            raise ConfigError(
                f"A search needs validation images. Received: data set {dataset.name} without any"
            )
        self.config = config
        self.dataset = dataset

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Enter the fields that are searched, each with the values to try; the first is default."""
        for field, values in self.config.choices().items():
            hp.Choice(field, list(values), default=values[0], ordered=True)

    def configure(self, hp: keras_tuner.HyperParameters) -> RunConfig:
        """The run that a trial stands for."""
        self.declare_hyperparameters(hp)
        return self.config.trial({field: hp.get(field) for field in self.config.choices()})

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build and compile a trial's model; the rate falls over all of the run's epochs."""
        config = self.configure(hp)
        keras.utils.set_random_seed(config.seed)
        model = build_model(config, self.dataset)
        steps = len(self.dataset.x_train) // config.batch_size
        compile_model(config, model, steps * config.epochs)
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *,
        epochs: int | None = None,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int = 0,
    ) -> keras.callbacks.History:
        """Train a trial's model as `training.run` would.

        Args:
            hp: the trial's values.
            model: from `build`.
            epochs: stop after this epoch; by default the configuration's last.
            initial_epoch: epochs that the model has behind it.
            callbacks: of Keras.
            verbose: of Keras.

        Returns:
            The history, with `val_accuracy`, and `nonzero_share` of the kernels' weights.

        Raises:
            keras_tuner.errors.FailedTrialError: If the loss became NaN or infinite.
        """
        config = self.configure(hp)
        guard, watchers = self._watchers(config)
        batches = ShuffledBatches(
            self.dataset.x_train, self.dataset.y_train, config.batch_size, config.seed
        )
        history = model.fit(
            batches.stream(initial_epoch),
            steps_per_epoch=batches.num_batches,
            shuffle=False,
            validation_data=(self.dataset.x_validation, self.dataset.y_validation),
            validation_batch_size=_EVALUATION_BATCH,
            initial_epoch=initial_epoch,
            epochs=config.epochs if epochs is None else epochs,
            callbacks=[*watchers, *callbacks],
            verbose=verbose,
        )
        if guard.diverged is not None:
            raise keras_tuner.errors.FailedTrialError(
                f"The loss became NaN or infinite in epoch {guard.diverged}."
            )
        return history

    @staticmethod
    def _watchers(
        config: RunConfig,
    ) -> tuple[callbacks.StopOnNonFiniteLoss, list[keras.callbacks.Callback]]:
        guard = callbacks.StopOnNonFiniteLoss()
        return guard, [callbacks.EpochSeeds(config.seed), _NonZeroShare(), guard]


class SGDHyperModel(_TrainingHyperModel):
    """SGD: rate × momentum × weight decay × dropout, 20 combinations at the paper's one rate.

    Fits any KerasTuner tuner: `keras_tuner.GridSearch(SGDHyperModel(config, dataset), …)`.

    Args:
        config: what all trials share, and the values that are tried; `optimizer="sgd"`.
        dataset: its training and validation images are used, its test images never.

    Raises:
        ConfigError: If the configuration is of another optimizer, or there is no validation split.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, appendix A.2.
    """

    optimizer = "sgd"


class BetaLassoHyperModel(_TrainingHyperModel):
    """β-LASSO: rate × λ × λ of the convolution's layers × dropout, 50 combinations at one rate.

    Args:
        config: what all trials share, and the values that are tried; `optimizer="beta_lasso"`.
        dataset: its training and validation images are used, its test images never.

    Raises:
        ConfigError: If the configuration is of another optimizer, or there is no validation split.

    Reference:
        Neyshabur, "Towards Learning Convolutions from Scratch", 2020, appendix A.2.
    """

    optimizer = "beta_lasso"


def hypermodel(config: SearchConfig, dataset: data.ImageDataset) -> _TrainingHyperModel:
    """The search space of the configuration's optimizer."""
    kind = SGDHyperModel if config.optimizer == "sgd" else BetaLassoHyperModel
    return kind(config, dataset)


class _NonZeroShare(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            found = analysis.kernels(self.model).values()
            total = sum(int(keras.ops.size(kernel)) for kernel in found)
            logs["nonzero_share"] = sum(analysis.num_nonzeros(self.model).values()) / total
