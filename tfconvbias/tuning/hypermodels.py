"""The search spaces of both optimizers as KerasTuner hypermodels."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner

from tfconvbias import analysis, data
from tfconvbias.arguments import checked
from tfconvbias.training import (
    ConfigError,
    Execution,
    RunConfig,
    RunFolder,
    TrainingDivergedError,
    build_model,
    compile_model,
    fit,
)
from tfconvbias.training.sparse_steps import sparse_steps
from tfconvbias.tuning.search_config import SearchConfig

BuildFunction = Callable[[RunConfig, data.ImageDataset], keras.Model]
"""Makes an uncompiled classifier on raw uint8 images for a trial's configuration."""


class _TrainingHyperModel(keras_tuner.HyperModel):
    """A search space over run configurations.

    Args:
        config: what all trials share, and the values that are tried.
        dataset: its training and validation images are used, its test images never.
        build_fn: builds each trial's network; by default `training.build_model`.
    """

    optimizer: str

    @checked
    def __init__(
        self,
        config: SearchConfig,
        dataset: data.ImageDataset,
        build_fn: BuildFunction = build_model,
    ):
        super().__init__(name=f"{config.run.model_name}_{config.run.optimizer}")
        if config.run.optimizer != self.optimizer:
            raise ConfigError(
                f"{type(self).__name__} searches optimizer={self.optimizer!r}. "
                f"Received: optimizer={config.run.optimizer!r}"
            )
        if len(dataset.x_validation) == 0:
            raise ConfigError(
                f"A search needs validation images. Received: data set {dataset.name} without any"
            )
        self.config = config
        self.dataset = dataset
        self.build_fn = build_fn

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
        model = self.build_fn(config, self.dataset)
        steps = len(self.dataset.x_train) // config.batch_size
        compile_model(config, model, steps * config.epochs)
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *,
        epochs: int | None = None,
        folder: RunFolder | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **_: Any,
    ) -> keras.callbacks.History:
        """Train a trial's model as `training.run` would.

        Args:
            hp: The trial's values.
            model: From `build`.
            epochs: Stop after this epoch; by default the configuration's last.
            folder: Where history and checkpoint are kept; a checkpoint that is there is continued.
                By default nothing is kept.
            callbacks: Of Keras.

        Returns:
            The history, with `val_accuracy`, and `nonzero_share` of the kernels' weights.

        Raises:
            keras_tuner.errors.FailedTrialError: If the loss became NaN or infinite.
        """
        config = self.configure(hp)
        last = config.epochs if epochs is None else epochs
        with tempfile.TemporaryDirectory() as passing:
            kept = RunFolder(passing) if folder is None else folder
            sparse = sparse_steps(config.replace(verbose="silent"), model, kept)
            try:
                columns = fit(
                    model,
                    self.dataset,
                    kept,
                    epochs=last,
                    batch_size=config.batch_size,
                    seed=config.seed,
                    watchers=[*sparse, _NonZeroShare(), *callbacks],
                    execution=Execution(checkpoint_every=last, verbose="silent"),
                )
            except TrainingDivergedError as error:
                raise keras_tuner.errors.FailedTrialError(str(error)) from error
        history = keras.callbacks.History()
        history.history = columns
        return history


class SGDHyperModel(_TrainingHyperModel):
    """SGD: rate × momentum × weight decay × dropout, 20 combinations by default.

    Fits any KerasTuner tuner: `keras_tuner.GridSearch(SGDHyperModel(config, dataset), …)`.

    Args:
        config: what all trials share, and the values that are tried; `optimizer="sgd"`.
        dataset: its training and validation images are used, its test images never.
        build_fn: `(RunConfig, ImageDataset) -> keras.Model`, builds each trial's network: any
            classifier that puts out logits for raw uint8 images, uncompiled. Rate, momentum and λ
            act through the optimizer (`l1_conv` on layers called conv1, conv2, …, where there are
            any); dropout and weight decay do what the function makes of
            `config.dropout_rate` and `config.weight_decay`. By default `training.build_model`.

    Raises:
        ConfigError: If the configuration is of another optimizer, or there is no validation split.
    """

    optimizer = "sgd"


class BetaLassoHyperModel(_TrainingHyperModel):
    """β-LASSO: rate × λ × λ of the convolution's layers × dropout, 50 combinations by default.

    Args:
        config: what all trials share, and the values that are tried; `optimizer="beta_lasso"`.
        dataset: its training and validation images are used, its test images never.
        build_fn: `(RunConfig, ImageDataset) -> keras.Model`, builds each trial's network: any
            classifier that puts out logits for raw uint8 images, uncompiled. Rate, momentum and λ
            act through the optimizer (`l1_conv` on layers called conv1, conv2, …, where there are
            any); dropout and weight decay do what the function makes of
            `config.dropout_rate` and `config.weight_decay`. By default `training.build_model`.

    Raises:
        ConfigError: If the configuration is of another optimizer, or there is no validation split.
    """

    optimizer = "beta_lasso"


@checked
def hypermodel(config: SearchConfig, dataset: data.ImageDataset) -> _TrainingHyperModel:
    """The search space of the configuration's optimizer."""
    kind = SGDHyperModel if config.run.optimizer == "sgd" else BetaLassoHyperModel
    return kind(config, dataset)


class _NonZeroShare(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            found = analysis.kernels(self.model).values()
            total = sum(int(keras.ops.size(kernel)) for kernel in found)
            logs["nonzero_share"] = sum(analysis.num_nonzeros(self.model).values()) / total
