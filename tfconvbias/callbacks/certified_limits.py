"""Which runs and which layers certified sparse training is exact for."""

import re

import keras

from tfconvbias.graph import leaf_layers
from tfconvbias.optimizers import BetaLasso

_NOT_EXACT = (
    "momentum",
    "weight_decay",
    "clipnorm",
    "global_clipnorm",
    "use_ema",
    "gradient_accumulation_steps",
)


def check_run(model) -> None:
    """Refuse a backend, a model or an optimizer for which a sparse run would not be the dense one.

    Raises:
        ValueError: With what is expected and what was found.
    """
    if keras.config.backend() not in ("tensorflow", "jax", "torch"):
        raise ValueError(
            "Certified sparse training needs the TensorFlow, the JAX or the PyTorch backend. "
            f"Received: the backend {keras.config.backend()!r}"
        )
    if getattr(model.train_step, "__func__", None) is not keras.Model.train_step:
        raise ValueError(
            "Certified sparse training takes the place of `keras.Model.train_step`, and this model "
            f"has a `train_step` of its own. Received: a model of {type(model).__name__}"
        )
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "Certified sparse training runs on one device. Received: a strategy over "
            f"{strategy.num_replicas_in_sync} replicas"
        )
    distribution = keras.distribution.distribution()
    if distribution is not None:
        raise ValueError(
            "Certified sparse training runs on one device. Received: the distribution "
            f"{type(distribution).__name__}"
        )
    if not model.trainable_variables:
        raise ValueError(
            "Certified sparse training cannot find the layers of a model before it is built: call "
            f"it on a batch first. Received: {type(model).__name__} without trainable variables"
        )
    optimizer = model.optimizer
    if not isinstance(optimizer, BetaLasso):
        raise ValueError(
            "Certified sparse training needs the optimizer `BetaLasso`, also not within a "
            f"`LossScaleOptimizer`. Received: {type(optimizer).__name__}"
        )
    for name in _NOT_EXACT:
        value = getattr(optimizer, name)
        if value:
            raise ValueError(
                f"Certified sparse training cannot be exact with `{name}`: a zero weight's future "
                "then depends on more than its gradient in one step. "
                f"Received: {name}={value} in the optimizer"
            )


def find_layers(model, pattern: str | None) -> list:
    """The layers that can be trained on their non-zeros.

    Args:
        model: A built model with a built `BetaLasso`.
        pattern: A regular expression searched for in the names of dense layers; None finds all
            that can be sparse.

    Raises:
        ValueError: If a layer that matches the pattern cannot be sparse, or no layer can.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    found, refused = [], {}
    for layer in leaf_layers(model):
        if not isinstance(layer, keras.layers.Dense):
            continue
        if pattern is not None and re.search(pattern, layer.name) is None:
            continue
        obstacle = _obstacle(model, layer)
        if obstacle is None:
            found.append(layer)
        else:
            refused[layer.name] = obstacle
    if not found or (pattern is not None and refused):
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in refused.items())
        raise ValueError(
            f"{'No layer' if not found else 'Not every layer asked for'} can be trained on its "
            f"non-zeros. Received: layers={pattern!r}, {reasons or 'which matches no dense layer'}"
        )
    return found


def _obstacle(model, layer) -> str | None:
    """Why the layer cannot be sparse, None if it can."""
    if type(layer) is not keras.layers.Dense:
        return f"is a {type(layer).__name__}, which may compute something else"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return "is adapted by LoRA or quantized"
    if not any(layer.kernel is variable for variable in model.trainable_variables):
        return "is not trained"
    if model.optimizer.step_sizes(layer.kernel) is None:
        return "is not penalized by the optimizer"
    if layer.kernel_regularizer is not None:
        return "has a regularizer of its kernel"
    if layer.kernel_constraint is not None:
        return "has a constraint of its kernel"
    if layer.compute_dtype != layer.kernel.dtype:
        return f"computes in {layer.compute_dtype}"
    return None
