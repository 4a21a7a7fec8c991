"""Normalizations folded into the layers in front of them."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.graph.calls import Call, LayerGraph, TensorRef, read_graph
from tfconvbias.graph.facts import channel_axis, is_linear_layer, kind_of, known_facts
from tfconvbias.graph.rebuild import Rebuilder


def following_normalization(graph: LayerGraph, number: int) -> int | None:
    """The call of the normalization that alone reads the output of a call, or `None`.

    The call must be of a layer without activation, and the normalized axis its channel axis.
    """
    call = graph.calls[number]
    tensor = TensorRef(number, 0)
    readers = graph.consumers().get(tensor, [])
    if not is_linear_layer(call.operation) or len(readers) != 1:
        return None
    reader = graph.calls[readers[0]]
    if kind_of(reader.operation) != "normalization" or tensor in graph.flat_outputs():
        return None
    num_axes = len(graph.shapes[tensor])
    axes = (channel_axis(layer, num_axes) for layer in (call.operation, reader.operation))
    return readers[0] if len(set(axes)) == 1 else None


def folded_scale(normalization: Any) -> Any:
    r"""What a normalization multiplies the kernels before it with: $\gamma / \sqrt{\sigma^2 + ε}$.

    A tensor, so that a gradient reaches γ.
    """
    scale = ops.rsqrt(ops.convert_to_tensor(normalization.moving_variance) + normalization.epsilon)
    if normalization.scale:
        scale = scale * ops.convert_to_tensor(normalization.gamma)
    return scale


def scale_outputs(kernel: Any, scale: Any, output_axes: tuple[int, ...]) -> Any:
    """A kernel, array or tensor, times one factor for each output channel.

    Args:
        kernel: The kernel.
        scale: One factor for each output channel.
        output_axes: The axes that count them, as in `Kernel`.

    Example:
        >>> scale_outputs(np.ones((2, 3)), np.array([1.0, 2.0]), (-2,)).tolist()
        [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    reshape = np.reshape if isinstance(scale, np.ndarray) else ops.reshape
    last = enumerate(kernel.shape[-2:], start=-2)
    return kernel * reshape(scale, [size if axis in output_axes else 1 for axis, size in last])


@checked
def fold_normalization(model: keras.Model, keep: tuple[Any, ...] = ()) -> keras.Model:
    r"""Fold each BatchNormalization into the linear layer in front of it, for inference.

    With scale $\gamma$, shift $\beta$, moving mean $\mu$ and variance $\sigma^2$, per channel,

    $$w' = w \, \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad
      b' = \beta + (b - \mu) \, \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}$$

    A normalization is folded into a convolution of any kind, a locally connected or a Dense layer
    without activation whose output nothing else reads, where the normalized axis is the channel
    axis and both layers are called once. All others stay.

    Args:
        model: Functional model or built Sequential one; it is left as it is. Models nested in it
            are dissolved into it.
        keep: Names or classes of layers that take up no normalization and are not taken up.

    Returns:
        An uncompiled functional model that equals the model's inference.

    Raises:
        ValueError: If the model's graph cannot be read.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((4, 4, 1)),
        ...     keras.layers.Conv2D(2, 3, use_bias=False),
        ...     keras.layers.BatchNormalization(),
        ...     keras.layers.ReLU(),
        ... ])
        >>> [type(layer).__name__ for layer in fold_normalization(model).layers]
        ['InputLayer', 'Conv2D', 'ReLU']
    """
    return _Folding(read_graph(model), keep).model()


class _Folding(Rebuilder):
    """Gives kernel layers other weights, and leaves out the normalizations that follow them."""

    def __init__(self, graph: LayerGraph, keep: tuple[Any, ...]):
        super().__init__(graph)
        self._normalizations: dict[int, Any] = {}
        self._folded: set[int] = set()
        for number, call in enumerate(graph.calls):
            reader = following_normalization(graph, number)
            if reader is None:
                continue
            pair = (call, graph.calls[reader])
            if not any(graph.is_shared(one) or is_chosen(one, keep) for one in pair):
                self._normalizations[number] = pair[1].operation
                self._folded.add(reader)

    def make(self, number: int, call: Call) -> Any:
        if number in self._folded:
            return self.tensors[call.inputs[0]]
        normalization = self._normalizations.get(number)
        if normalization is not None:
            config = {**call.operation.get_config(), "use_bias": True}
            self.layer(call, config, _folded_weights(call.operation, normalization))
        return super().make(number, call)


def is_chosen(call: Call, choice: tuple[Any, ...]) -> bool:
    """Whether a call is of one of the layers that are chosen by name or by class."""
    for one in choice:
        if isinstance(one, str) and one in (call.name, call.operation.name):
            return True
        if isinstance(one, type) and isinstance(call.operation, one):
            return True
    return False


def _folded_weights(layer: Any, normalization: Any) -> list[np.ndarray]:
    """A layer's kernels and its bias, the last kernel and the bias with the normalization in."""
    facts = known_facts(layer)
    scale = 1 / np.sqrt(_float64(normalization.moving_variance) + normalization.epsilon)
    if normalization.scale:
        scale = scale * _float64(normalization.gamma)
    kernels = [_float64(getattr(layer, kernel.attribute)) for kernel in facts.kernels]
    kernels[-1] = scale_outputs(kernels[-1], scale, facts.kernels[-1].output_axes)
    bias = _float64(layer.bias) if layer.use_bias else 0.0
    bias = (bias - _float64(normalization.moving_mean)) * scale
    if normalization.center:
        bias = bias + _float64(normalization.beta)
    if facts.kind == "local":
        # One bias for each position.
        positions = kernels[-1].shape[: facts.rank]
        bias = np.broadcast_to(bias, (*positions, bias.shape[-1]))
    return [*kernels, bias]


def _float64(variable: keras.Variable) -> np.ndarray:
    return ops.convert_to_numpy(variable).astype(np.float64)
