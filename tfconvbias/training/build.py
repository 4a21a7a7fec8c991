"""From a configuration to data, a model and its compilation."""

from __future__ import annotations

import re
from typing import Any

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.lazy import data, keras, models, optimizers
from tfconvbias.training.environment import accelerators
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.run_config import RunConfig

CONV_LAYERS = r"(^|/)(conv\d+|stage\d+_block\d+_(conv\d|shortcut))/"
"""The layers that stand for convolutions in every family, by variable path."""


@checked
def build_model(config: RunConfig, dataset: data.ImageDataset | data.Loaders) -> keras.Model:
    """Build the configured network on raw uint8 images, its preprocessing inside.

    For loaders without statistics it is a network on float images, without preprocessing.

    Raises:
        ConfigError: If the augmentation is unknown, or the network would not fit into memory.
    """
    arguments: dict[str, Any] = {
        "input_shape": dataset.image_shape,
        "classes": dataset.num_classes,
        "preprocessing": _preprocessing(config, dataset),
        "kernel_regularizer": (
            keras.regularizers.L2(config.weight_decay / 2) if config.weight_decay else None
        ),
    }
    try:
        return _network(config, arguments)
    except MemoryError as error:
        raise ConfigError(str(error)) from error


def _preprocessing(
    config: RunConfig, dataset: data.ImageDataset | data.Loaders
) -> keras.layers.Layer | None:
    statistics: Any = dataset
    if isinstance(dataset, data.Loaders):
        if dataset.statistics is None:
            return None
        statistics = dataset.statistics
    try:
        return data.preprocessing(
            statistics,
            augment=config.augment,
            seed=config.seed,
            permute_pixels=config.permute_pixels,
            dataset=dataset.name,
            cutout_length=config.cutout_length,
            padding=config.crop_padding,
        )
    except ValueError as error:
        raise ConfigError(f"augment: {error}") from error


def _network(config: RunConfig, arguments: dict[str, Any]) -> keras.Model:
    if config.family == "three_fc":
        return models.ThreeFC(config.hidden_units, dropout_rate=config.dropout_rate, **arguments)
    arguments["connectivity"] = config.connectivity
    arguments["base_channels"] = config.base_channels
    if config.kernel_size is not None:
        arguments["kernel_size"] = config.kernel_size
    if config.family == "resnet18":
        return models.ResNet18(**arguments)
    arguments["dropout_rate"] = config.dropout_rate
    if config.family == "s":
        return models.SConv(hidden_ratio=config.hidden_ratio, **arguments)
    return models.DConv(**arguments)


@checked
def build_optimizer(
    config: RunConfig, steps: PositiveInt, model: keras.Model | None = None
) -> keras.optimizers.Optimizer:
    """Build the configured optimizer.

    Args:
        config: the run's configuration.
        steps: steps of the whole run, over which the cosine schedule falls to 0.
        model: a network of one's own; where no layer of it is called as a family's convolutions
            are, `l1` is the λ of all layers. By default one of the configured family.
    """
    rate = learning_rate(config, steps)
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum)
    convolutions = {CONV_LAYERS: config.l1_conv}
    if model is None:
        has_convolutions = config.family != "three_fc"
    else:
        has_convolutions = any(re.search(CONV_LAYERS, v.path) for v in model.trainable_variables)
    return optimizers.BetaLasso(
        rate,
        l1=config.l1,
        beta=config.beta,
        threshold=config.threshold,
        momentum=config.momentum,
        l1_overrides=convolutions if has_convolutions else None,
    )


@checked
def learning_rate(config: RunConfig, steps: PositiveInt) -> Any:
    """The configured rate as an optimizer takes it: a number, or a schedule over all steps."""
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(config.learning_rate, decay_steps=steps)
    return config.learning_rate


@checked
def compile_model(config: RunConfig, model: keras.Model, steps: PositiveInt) -> None:
    """Compile with cross-entropy on logits, accuracy and the configured optimizer.

    The moving statistics of normalizations are made to keep up with a run of so many steps.

    Args:
        config: The run's configuration.
        model: From `build_model`, or another classifier that puts out logits.
        steps: Steps of the whole run.
    """
    models.match_statistics_momentum(model, steps)
    chosen = {"auto": None, "on": True, "off": False}[config.jit_compile]
    compile_classifier(model, build_optimizer(config, steps, model), chosen)


@checked
def compile_classifier(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, jit_compile: Any = None
) -> None:
    """Compile with cross-entropy on logits and accuracy.

    Args:
        model: A classifier that puts out logits for integer labels.
        optimizer: A new one.
        jit_compile: Whether to compile with XLA; by default `xla_pays()`.
    """
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=xla_pays() if jit_compile is None else jit_compile,
    )


@checked
def with_precision(config: RunConfig) -> RunConfig:
    """The configuration with `precision="auto"` replaced by what it means on this machine."""
    if config.precision != "auto":
        return config
    return config.replace(precision="mixed_bfloat16" if accelerators() else "float32")


@checked
def xla_pays() -> bool | str:
    """Whether to compile with XLA when it is left to us.

    On TensorFlow's CPU the plain step is two to seven times as fast (S-CONV and S-LOCAL, α = 8,
    batch 128); elsewhere the choice is Keras' own.
    """
    return False if keras.config.backend() == "tensorflow" and not accelerators() else "auto"
