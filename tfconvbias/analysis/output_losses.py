"""The losses of a model's outputs, weighted as `compile` weights them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
from keras import ops

from tfconvbias.analysis.loss_batches import Batch

LossLike: TypeAlias = str | keras.losses.Loss | Callable


class OutputLosses:
    """The sum of the losses of all outputs, for one batch.

    Args:
        model: The model, whose compiled loss is taken where `loss` is `None`.
        loss: One loss for all outputs, or a list or dictionary with one for each; an output whose
            loss is `None` does not count.
        loss_weights: Factors of the losses, in the same form.
        dtype: Dtype of the sum.

    Raises:
        ValueError: If there is no loss, or one without reduction.
    """

    def __init__(self, model: keras.Model, loss: Any, loss_weights: Any, dtype: str):
        if loss is None:
            loss = getattr(model, "loss", None)
            if loss is not None and loss_weights is None:
                loss_weights = _compiled_weights(model)
        if loss is None:
            raise ValueError(
                "`loss` must be given for a model that is not compiled with one. "
                "Received: loss=None"
            )
        self._names = getattr(model, "output_names", None)
        self._dtype = dtype
        self._losses = _map(lambda one: None if one is None else _as_loss(one, dtype), loss)
        if not any(isinstance(found, keras.losses.Loss) for found in _values(self._losses)):
            raise ValueError(f"`loss` must hold one loss at least. Received: loss={loss!r}")
        self._weights = loss_weights

    def __call__(self, outputs: Any, batch: Batch, expected_targets: bool = False) -> Any:
        """The batch's part of the loss of all samples.

        Args:
            outputs: What the model gives for the batch.
            batch: The batch.
            expected_targets: Replace each target by what the model expects it to be, a constant.
        """
        align = self._aligned
        flat = self.flatten(outputs)
        total = ops.zeros((), self._dtype)
        for output, target, loss, factor, weight, weight_share in zip(
            flat,
            align("y", batch.y, outputs),
            align("loss", self._losses, outputs, spread=True),
            align("loss_weights", self._weights, outputs),
            align("sample_weight", batch.weights, outputs, spread=True),
            align("sample_weight", batch.weight_shares, outputs, spread=True),
            strict=True,
        ):
            if loss is None:
                continue
            if loss.reduction == "sum":
                scale = 1.0
            elif loss.reduction == "mean_with_sample_weight" and weight is not None:
                scale = weight_share
            else:
                scale = batch.share
            if expected_targets:
                loss, target = _expectation(loss, output)
            value = ops.cast(loss(target, output, sample_weight=weight), self._dtype) * scale
            total = total + (value if factor is None else value * float(factor))
        return total

    @staticmethod
    def flatten(outputs: Any) -> list:
        """The outputs as a list; a dictionary's in the order of its sorted keys."""
        if isinstance(outputs, Mapping):
            return [outputs[key] for key in sorted(outputs)]
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    def _aligned(self, name: str, value: Any, outputs: Any, *, spread: bool = False) -> list:
        """One value for each output; `spread` gives every output a value that stands alone."""
        count = len(self.flatten(outputs))
        if value is None:
            return [None] * count
        if isinstance(value, Mapping):
            keys = sorted(outputs) if isinstance(outputs, Mapping) else self._names
            unknown = set(value) - set(keys or ())
            if keys is not None and len(keys) == count and not unknown:
                return [value.get(key) for key in keys]
        elif isinstance(value, list | tuple):
            if len(value) == count and not isinstance(outputs, Mapping):
                return list(value)
        elif spread or count == 1:
            return [value] * count
        form = sorted(outputs) if isinstance(outputs, Mapping) else count
        raise ValueError(
            f"`{name}` must have the structure of the model's outputs ({form}). "
            f"Received: {_map(lambda one: type(one).__name__, value)}"
        )


class _FunctionLoss(keras.losses.Loss):
    """A function `(y_true, y_pred) -> values` with the mean reduction and weights of `compile`."""

    def __init__(self, function, dtype):
        super().__init__(name="function_loss", dtype=dtype)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def _compiled_weights(model: keras.Model) -> Any:
    """The `loss_weights` of `compile`."""
    try:
        config = model.get_compile_config() or {}
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "The model's `compile` has arguments that Keras cannot serialize, so that its loss "
            f"weights cannot be read: give `loss` and `loss_weights`. Received: {error}"
        ) from error
    return keras.saving.deserialize_keras_object(config.get("loss_weights"))


def _as_loss(loss: LossLike, dtype: str) -> keras.losses.Loss:
    if not isinstance(loss, str | keras.losses.Loss) and not callable(loss):
        raise ValueError(
            f"`loss` must be a name, a loss or a function. Received: {type(loss).__name__}"
        )
    if not isinstance(loss, keras.losses.Loss):
        loss = keras.losses.get(loss)
        if isinstance(loss, keras.losses.Loss) and dtype != keras.config.floatx():
            loss = type(loss).from_config({**loss.get_config(), "dtype": dtype})
    if not isinstance(loss, keras.losses.Loss):
        loss = _FunctionLoss(loss, dtype)
    if loss.reduction in (None, "none"):
        raise ValueError(
            f"`loss` must be reduced to a scalar. Received: reduction={loss.reduction}"
        )
    return loss


def _probabilities(output, from_logits):
    return ops.softmax(output) if from_logits else output / ops.sum(output, axis=-1, keepdims=True)


def _probability(output, from_logits):
    return ops.sigmoid(output) if from_logits else output


def _itself(output, from_logits):
    return output


# Losses that are negative log-likelihoods, linear in the target up to terms without the output.
# The values give the target's mean, as the output states it.
_MEANS: dict[Any, Callable] = {
    keras.losses.MeanSquaredError: _itself,
    keras.losses.mean_squared_error: _itself,
    keras.losses.Poisson: _itself,
    keras.losses.poisson: _itself,
    keras.losses.CategoricalCrossentropy: _probabilities,
    keras.losses.categorical_crossentropy: _probabilities,
    keras.losses.SparseCategoricalCrossentropy: _probabilities,
    keras.losses.sparse_categorical_crossentropy: _probabilities,
    keras.losses.BinaryCrossentropy: _probability,
    keras.losses.binary_crossentropy: _probability,
}


def _expectation(loss: keras.losses.Loss, output: Any) -> tuple[keras.losses.Loss, Any]:
    """The loss that takes an expected target, and that target."""
    is_function = isinstance(loss, _FunctionLoss)
    kind = loss.function if is_function else type(loss)
    config = {} if is_function else loss.get_config()
    usual = {"label_smoothing": 0.0, "ignore_class": None, "axis": -1}
    if kind not in _MEANS or any(config.get(key, value) != value for key, value in usual.items()):
        raise ValueError(
            'curvature="fisher" needs a loss that is a negative log-likelihood: the mean squared '
            "error, Poisson, or a crossentropy without label smoothing and ignored classes; "
            f'"ggn" takes every loss. Received: {loss.name}'
        )
    from_logits = bool(config.get("from_logits"))
    target = ops.stop_gradient(_MEANS[kind](output, from_logits))
    if kind is keras.losses.SparseCategoricalCrossentropy:
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=from_logits, reduction=loss.reduction, dtype=loss.dtype
        )
    elif kind is keras.losses.sparse_categorical_crossentropy:
        loss = _FunctionLoss(keras.losses.categorical_crossentropy, loss.dtype)
    return loss, target


def _map(function, value):
    """A function of each value of a list or dictionary, or of the value itself."""
    if isinstance(value, Mapping):
        return {key: function(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [function(one) for one in value]
    return function(value)


def _values(value):
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else [value]
