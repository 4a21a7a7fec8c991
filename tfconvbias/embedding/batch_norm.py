"""BatchNormalization folded into the layers in front of it."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.embedding import layer_rules as rules
from tfconvbias.embedding.graph import Aliases, Copies, rebuild

_FOLDABLE = (*rules.CONV, *rules.DEPTHWISE, *rules.TRANSPOSED, *rules.LOCAL, keras.layers.Dense)


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    r"""Fold each BatchNormalization into the linear layer in front of it, for inference.

    With scale $\gamma$, shift $\beta$, moving mean $\mu$ and variance $\sigma^2$, per channel,

    $$w' = w \, \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad
      b' = \beta + (b - \mu) \, \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}$$

    A layer is folded into a convolution (plain, depthwise, transposed), locally connected or Dense
    layer without activation whose output nothing else reads, where the normalized axis is the
    channel axis and both layers are called once. All other BatchNormalization layers stay.

    Args:
        model: Built Sequential or functional model; it is left as it is.

    Returns:
        A functional model that equals the model's inference.

    Raises:
        ValueError: If the model is neither.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((4, 4, 1)),
        ...     keras.layers.Conv2D(2, 3, use_bias=False),
        ...     keras.layers.BatchNormalization(),
        ... ])
        >>> [type(layer).__name__ for layer in fold_batch_normalization(model).layers]
        ['InputLayer', 'Conv2D']
    """
    readers = _Readers()
    readers.read(rebuild(model, readers).outputs)
    return rebuild(model, _Folding(readers))


class _Readers:
    """Counts the calls of each layer and the readers of its output."""

    def __init__(self):
        self.calls: dict[int, int] = {}
        self.reads: dict[int, int] = {}
        self._copies = Copies()
        self._maker = Aliases()

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        self.read((args, kwargs))
        self.calls[id(layer)] = self.calls.get(id(layer), 0) + 1
        if isinstance(layer, keras.Model):
            nested = rebuild(layer, self)
            self.read(nested.outputs)
            outputs = nested(*args, **kwargs)
        else:
            outputs = self._copies.call(layer, *args, **kwargs)
        for tensor in keras.tree.flatten(outputs):
            self._maker.set(tensor, layer)
        return outputs

    def read(self, tensors: Any) -> None:
        """Count a reader of each of these tensors."""
        for tensor in keras.tree.flatten(tensors):
            made = self._maker.get(tensor)
            if made is not None:
                self.reads[id(made[0])] = self.reads.get(id(made[0]), 0) + 1


class _Folding:
    """Builds the folded layer when the walk comes to the BatchNormalization."""

    def __init__(self, readers: _Readers):
        self._readers = readers
        self._copies = Copies()
        self._linear = Aliases()
        self._nested: dict[int, keras.Model] = {}

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            if id(layer) not in self._nested:
                self._nested[id(layer)] = rebuild(layer, self)
            return self._nested[id(layer)](*args, **kwargs)
        if type(layer) is keras.layers.BatchNormalization and self._is_once(layer):
            found = self._linear.get(args[0])
            if found is not None and _axis(layer, args[0]) == _channel_axis(found[1], args[0]):
                return _folded(found[1], layer, found[0])
        outputs = self._copies.call(layer, *args, **kwargs)
        if (
            type(layer) in _FOLDABLE
            and self._is_once(layer)
            and self._readers.reads.get(id(layer), 0) == 1
            and layer.activation is keras.activations.linear
        ):
            self._linear.set(outputs, args[0], layer)
        return outputs

    def _is_once(self, layer: keras.layers.Layer) -> bool:
        return self._readers.calls[id(layer)] == 1


def _axis(norm: keras.layers.BatchNormalization, tensor: Any) -> int:
    return norm.axis % len(tensor.shape)


def _channel_axis(layer: keras.layers.Layer, tensor: Any) -> int:
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return 1
    return len(tensor.shape) - 1


def _folded(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization, inputs: Any) -> Any:
    """Call a copy of the layer with the normalization in its weights."""
    kernel = _float64(layer.kernel)
    scale = 1 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * _float64(norm.gamma)
    bias = 0.0 if layer.bias is None else _float64(layer.bias)
    bias = (bias - _float64(norm.moving_mean)) * scale
    if norm.beta is not None:
        bias = bias + _float64(norm.beta)
    if type(layer) in rules.TRANSPOSED:
        kernel = kernel * scale[:, None]
    elif type(layer) in rules.DEPTHWISE:
        kernel = kernel * scale.reshape(kernel.shape[-2:])
    else:
        kernel = kernel * scale
    if type(layer) in rules.LOCAL and layer.bias is None:
        rank = rules.rank_of(layer)
        bias = np.broadcast_to(bias, (*kernel.shape[:rank], len(bias)))
    copy = type(layer).from_config({**layer.get_config(), "use_bias": True})
    outputs = copy(inputs)
    copy.set_weights([kernel, bias])
    return outputs


def _float64(variable: keras.Variable) -> np.ndarray:
    return ops.convert_to_numpy(variable).astype(np.float64)
