"""The steps from a dense network to a sparse one to a small one; sweeps and searches share them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from tfconvbias.training.checkpointed_fit import checkpointed_fit
from tfconvbias.training.sparsity_config import SparsityConfig

from tfconvbias import data, models, surgery
from tfconvbias.optimizers import Proximal
from tfconvbias.regularizers import Complexity, following_gammas
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_folder import History


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
        kernel_initializer: of every kernel; "zeros" spares the draws of a network that is counted.

    Raises:
        ConfigError: If the augmentation is unknown.
    """
    keras.utils.set_random_seed(config.seed)
    try:
        preprocessing = data.preprocessing(dataset, augment=config.augment, seed=config.seed)
    except ValueError as error:
        raise ConfigError(f"augment: {error}") from error
    decay = keras.regularizers.L2(config.weight_decay / 2) if config.weight_decay else None
    return models.StructuredBase(
        layers or config.layers,
        config.residual,
        models.BASE_STRIDES[config.base],
        input_shape=dataset.image_shape,
        classes=dataset.num_classes,
        use_max_pooling=config.base.startswith("imagenet"),
        preprocessing=preprocessing,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=decay,
    )


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
        gammas = following_gammas(network) if config.folded else None
        return network, Proximal(optimizer, config.group_penalty, alpha, gammas=gammas)
    options = {"groups": config.groups, "norm": config.norm, "folded": config.folded}
    return Complexity(network, alpha, config.penalty, **options), optimizer


def reduce(config: SparsityConfig, network: keras.Model, tau: float) -> Reduced:
    """Threshold a network at τ and make it compact.

    Args:
        config: The sweep's configuration.
        network: A trained one; it stays as it is.
        tau: τ.

    Raises:
        ValueError: If τ removes every kernel.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        thresholded = surgery.threshold(
            network, tau, config.relative, config.group_penalty, config.folded
        )
        smaller = surgery.compact(thresholded)
        report = surgery.report(thresholded, smaller)
    messages = tuple(dict.fromkeys(str(w.message) for w in caught))
    return Reduced(thresholded, smaller, report, messages)


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
    steps = epochs * (len(dataset.x_train) // config.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)
    return keras.optimizers.SGD(schedule, momentum=config.momentum)


def train(
    config: SparsityConfig,
    dataset: data.ImageDataset,
    folder: Path,
    model: keras.Model,
    epochs: int,
    optimizer: keras.optimizers.Optimizer,
    extra: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train with the sweep's batches, or what is left of it; see `checkpointed_fit`."""
    return checkpointed_fit(
        model,
        dataset,
        folder,
        epochs=epochs,
        optimizer=optimizer,
        batch_size=config.batch_size,
        shuffle=True,
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        verbose=config.verbose,
        extra=extra,
    )


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of a network for one image."""
    return surgery.architecture(network).total("multiply_adds")
