"""The steps from a dense network to a sparse one to a small one; sweeps and searches share them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfconvbias.lazy import data, keras, models, regularizers, surgery
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.training import (
    ConfigError,
    Deadline,
    History,
    RecipeError,
    RunFolder,
    compile_classifier,
    fit,
)

TOLERANCE = 1e-5
"""Largest difference of outputs, relative to the largest output, that rounding explains."""


class CompactionError(RecipeError, RuntimeError):
    """A compact network computes something else than the network that it was made from."""


class NothingLeftError(ValueError):
    """A threshold removes every kernel of a network."""


class Reduced(NamedTuple):
    """A network without what the threshold removed.

    Attributes:
        thresholded: The network with zeros, of the old architecture.
        compact: The same function, smaller.
        report: The architecture of both.
        messages: Warnings of threshold and surgery: layers that keep their last kernel.
    """

    thresholded: keras.Model
    compact: keras.Model
    report: surgery.Report
    messages: tuple[str, ...]


def build_network(
    config: SparsityConfig,
    dataset: data.ImageDataset,
    layers: Sequence[tuple[int, int]] | None = None,
    kernel_initializer: str = "he_normal",
) -> keras.Model:
    """The base architecture, or one of other widths, on raw uint8 images, newly initialised.

    Args:
        config: The sweep's configuration.
        dataset: Gives image shape, classes and normalisation.
        layers: (width, kernel size) of each convolution; the base's by default.
        kernel_initializer: Initializer of every kernel; "zeros" is quicker where a network's
            multiply-adds are counted only.

    Raises:
        ConfigError: If the augmentation is unknown.
    """
    keras.utils.set_random_seed(config.seed)
    try:
        preprocessing = data.preprocessing(
            dataset,
            augment=config.augment,
            seed=config.seed,
            permute_pixels=config.permute_pixels,
        )
    except ValueError as error:
        raise ConfigError(f"augment: {error}") from error
    decay = keras.regularizers.L2(config.weight_decay / 2) if config.weight_decay else None
    network = models.StructuredBase(
        layers or config.layers,
        residual=config.residual,
        strides=models.BASE_STRIDES[config.base],
        input_shape=dataset.image_shape,
        classes=dataset.num_classes,
        use_max_pooling=config.base.startswith("imagenet"),
        preprocessing=preprocessing,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=decay,
    )
    # Its statistics must keep up with the shortest of its trainings.
    epochs = min(config.epochs, config.sparse_epochs, config.fine_tune_epochs)
    steps = epochs * max(1, len(dataset.x_train) // config.batch_size)
    models.match_statistics_momentum(network, steps)
    return network


def penalized(
    config: SparsityConfig, dataset: data.ImageDataset, network: keras.Model, alpha: float
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """What to train, and with which optimizer, so that the penalty acts on a network.

    Args:
        config: The sweep's configuration.
        dataset: Its size gives the steps over which the rate falls to 0.
        network: From `build_network`; its weights are the ones that are trained.
        alpha: α.
    """
    rate, epochs = config.sparse_learning_rate, config.sparse_epochs
    optimizer = momentum_sgd(config, dataset, rate, epochs)
    if config.method == "proximal":
        use_gammas = config.fold_normalization
        penalty = config.group_penalty
        return network, regularizers.proximal_optimizer(
            network, optimizer, penalty, alpha, use_gammas
        )
    penalized = regularizers.Complexity(
        network,
        alpha,
        config.penalty,
        groups=config.groups,
        norm=config.norm,
        fold_normalization=config.fold_normalization,
    )
    return penalized, optimizer


def reduce(config: SparsityConfig, network: keras.Model, tau: float) -> Reduced:
    """Threshold a network at τ and make it compact, with the constants of dead channels.

    So τ = 0 changes nothing that the network computes.

    Args:
        config: The sweep's configuration.
        network: A trained one; it stays as it is.
        tau: τ.

    Raises:
        NothingLeftError: If τ removes every kernel.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            thresholded = surgery.threshold(
                network,
                tau,
                config.relative,
                config.group_penalty,
                config.fold_normalization,
                shifts="keep",
            )
        except ValueError as error:
            # The configuration leaves no other reason; errors of `compact` are not caught.
            raise NothingLeftError(str(error)) from error
        smaller = surgery.compact(thresholded)
        report = surgery.report(thresholded, smaller)
    messages = tuple(dict.fromkeys(str(w.message) for w in caught))
    return Reduced(thresholded, smaller, report, messages)


def output_difference(name: str, reduced: Reduced, images: np.ndarray) -> float:
    """The largest difference of the outputs of both networks, relative to the largest output.

    Args:
        name: What the networks are called in an error.
        reduced: From `reduce`.
        images: uint8 `(n, height, width, channels)`.

    Raises:
        CompactionError: If it is above `TOLERANCE`: both should compute the same function.
    """
    first, second = (
        network.predict(images, batch_size=data.EVALUATION_BATCH_SIZE, verbose=0)
        for network in (reduced.thresholded, reduced.compact)
    )
    found = float(np.abs(first - second).max() / max(1.0, np.abs(first).max()))
    # A NaN is no agreement either.
    if not found <= TOLERANCE:
        raise CompactionError(
            f"{name}: the outputs of the compact network differ by {found:.2e} from those of the "
            f"thresholded network, relative to the largest; {TOLERANCE:g} is allowed. On a GPU, "
            "set the environment variable NVIDIA_TF32_OVERRIDE=0, so that float32 is not rounded "
            "to fewer digits, and continue with --resume. If that does not help, please report it "
            "as an error of surgery.compact; other --alphas or --taus in another --run-dir may "
            "avoid it."
        )
    return found


def random_layers(
    config: SparsityConfig, dataset: data.ImageDataset, target: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Random widths, no larger than the base's, whose network has about `target` multiply-adds.

    Args:
        config: The sweep's configuration.
        dataset: Gives image shape and classes.
        target: Multiply-adds per image.
        rng: Draws one number for each layer, one for each stage's residual stream.
    """
    # A stream of one or two channels would starve all the others, whatever their widths.
    draws = rng.uniform(0.25, 1.0, size=len(config.layers))
    if config.residual:
        # What is added up has one width in each stage.
        first = {width: i for i, (width, _) in reversed(list(enumerate(config.layers)))}
        for number, (width, _) in enumerate(config.layers):
            if number % 2 == 0:
                draws[number] = draws[first[width]]
    low, high = 0.0, 1.0 / draws.min()
    for _ in range(12):
        scale = (low + high) / 2
        layers = [
            (max(1, round(width * min(1.0, scale * draw))), size)
            for (width, size), draw in zip(config.layers, draws, strict=True)
        ]
        if multiply_adds(build_network(config, dataset, layers, "zeros")) < target:
            low = scale
        else:
            high = scale
    return layers


def momentum_sgd(
    config: SparsityConfig, dataset: data.ImageDataset, rate: float, epochs: int
) -> keras.optimizers.SGD:
    """SGD with the sweep's momentum, whose rate falls from `rate` to 0 over the epochs."""
    schedule = cosine_decay(config, dataset, rate, epochs)
    return keras.optimizers.SGD(schedule, momentum=config.momentum)


def cosine_decay(
    config: SparsityConfig, dataset: data.ImageDataset, rate: float, epochs: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls from `rate` to 0 over the epochs."""
    steps = epochs * (len(dataset.x_train) // config.batch_size)
    return keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)


def train(
    config: SparsityConfig,
    dataset: data.ImageDataset,
    folder: RunFolder,
    model: keras.Model,
    epochs: int,
    optimizer: keras.optimizers.Optimizer,
    deadline: Deadline,
    *,
    measured_on: str,
    watchers: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train with the configured batches, or do what is left of the training.

    Args:
        config: The sweep's configuration.
        dataset: What to train on and to measure on.
        folder: Where history and checkpoints are kept.
        model: A built network.
        epochs: Epochs in all.
        optimizer: A new one.
        deadline: When to stop.
        measured_on: `"test"`, with a row of epoch 0 in the history, or `"validation"`.
        watchers: Callbacks that run before a row of the history is written.

    Raises:
        RunPausedError: If the time was over before the last epoch.
        TrainingDivergedError: If the loss became NaN or infinite.
    """
    checkpoint = folder.checkpoint()
    is_done = checkpoint is not None and checkpoint[0] >= epochs
    if not is_done:
        deadline.pause_before(str(folder.path))
    compile_classifier(model, optimizer)
    return fit(
        model,
        dataset,
        folder,
        epochs=epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        measured_on=measured_on,
        measure_start=measured_on == "test",
        watchers=watchers,
        execution=config,
        deadline=deadline,
    )


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of a network for one image."""
    return surgery.architecture(network).total("multiply_adds")
