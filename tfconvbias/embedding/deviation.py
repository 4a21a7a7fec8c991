"""How far weights are from a convolution's."""

import dataclasses
import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.embedding import kernels
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.plan import margins
from tfconvbias.embedding.project import local_geometry
from tfconvbias.embedding.wide import EmbeddedConv
from tfconvbias.graph import leaf_layers, read_graph
from tfconvbias.graph.calls import is_functional
from tfconvbias.graph.facts import kind_of
from tfconvbias.graph.geometry import Pairs


@dataclasses.dataclass(frozen=True)
class Deviation:
    r"""Norms of the orthogonal parts of weights $\theta$, and their shares.

    $$\theta = \theta_\text{conv} + \theta_\text{broken} + \theta_\text{off-local}$$

    Attributes:
        norm: ‖θ‖ of what was counted.
        off_local: δ = ‖θ_off-local‖ / ‖θ‖, the paper's measure. 0 where θ = 0.
        broken_sharing: ‖θ_broken‖ / ‖θ‖: local weights minus their mean over the positions.
        layers: The same for the kernel of each embedded layer.
    """

    norm: float
    off_local: float
    broken_sharing: float
    layers: dict[str, "Deviation"] = dataclasses.field(default_factory=dict)


@checked
def deviation(
    model: keras.Model,
    *,
    include_biases: bool = False,
    include_head: bool = False,
    include_padding: bool = False,
) -> Deviation:
    r"""Deviation of a model from the subspace of the convolutions that it was embedded from.

    Exactly 0 right after `embed` (the broken-sharing part of float64 weights up to rounding). By
    default θ is all kernels of embedded and locally connected layers, without the entries that
    always meet padding, be it a layer's own or that of ZeroPadding layers in front of it. A weight
    of a wide convolution counts once, however many positions share it, and nothing breaks its
    sharing; its off-local part are the taps that the convolution did not have.

    Args:
        model: A model from `embed`, trained or not. In a model whose graph cannot be read, such as
            a subclassed one, ZeroPadding layers in front of locally connected ones are not seen.
        include_biases: Whether the biases of these layers count: their mean over positions in the
            convolutional part, the rest in the broken-sharing part.
        include_head: Whether all other trainable weights count, in the norm ‖θ‖ alone.
        include_padding: Whether the entries that cannot change an output count: rows of explicitly
            padded inputs in dense kernels, taps on padding in local ones.

    Returns:
        A `Deviation`.

    Raises:
        ValueError: If the model holds no embedded and no locally connected layer.

    Example:
        >>> from tfconvbias.embedding import embed
        >>> cnn = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3)])
        >>> deviation(embed(cnn)).off_local
        0.0

    Reference:
        d'Ascoli et al., 2019, section 4.3. The paper does not say what θ holds; the second ratio is
        ours.
    """
    layers: dict[str, Deviation] = {}
    parts = np.zeros(3)
    counted: set[int] = set()
    rims = margins(read_graph(model)) if is_functional(model) else {}
    for layer in embedded_layers(model):
        own = _kernel_parts(layer, include_padding, rims.get(id(layer), ()))
        layers[layer.name] = _ratios(own)
        parts += own
        counted.add(id(layer.kernel))
        if layer.bias is not None:
            counted.add(id(layer.bias))
            if include_biases:
                parts += _bias_parts(layer)
    if not layers:
        raise ValueError(
            f"The model holds no embedded and no locally connected layer. Received: model={model!r}"
        )
    rest = 0.0
    if include_head:
        for variable in model.trainable_variables:
            if id(variable) not in counted:
                rest += float(np.sum(np.square(ops.convert_to_numpy(variable), dtype=np.float64)))
    return dataclasses.replace(_ratios(parts, rest), layers=layers)


@checked
def embedded_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The embedded dense, locally connected and wide layers of a model and of those inside it.

    Each comes once, also where several models inside it hold it.
    """
    for layer in leaf_layers(model):
        if isinstance(layer, EmbeddedDense | EmbeddedConv) or kind_of(layer) == "local":
            yield layer


def _kernel_parts(layer: keras.layers.Layer, include_padding: bool, margin: Pairs) -> np.ndarray:
    kernel = ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, EmbeddedDense):
        return np.array(kernels.squared_norms(kernel, layer.geometry, include_padding))
    if isinstance(layer, EmbeddedConv):
        return _wide_parts(layer, kernel, include_padding)
    live = kernels.live_taps(local_geometry(layer, margin))
    if include_padding:
        live[:] = True
    values = kernel.reshape(*live.shape, -1)
    conv = broken = 0.0
    for tap in range(live.shape[1]):
        entries = values[live[:, tap], tap]
        if len(entries):
            mean = entries.mean(axis=0, dtype=np.float64)
            conv += len(entries) * float(np.sum(mean**2))
            broken += float(np.sum((entries - mean) ** 2))
    return np.array([conv, broken, 0.0])


def _wide_parts(layer: EmbeddedConv, kernel: np.ndarray, include_padding: bool) -> np.ndarray:
    squares = np.square(kernel, dtype=np.float64)
    if not include_padding:
        squares[layer.wide_geometry.tap_counts().reshape(layer.kernel_size) == 0] = 0.0
    conv = squares[layer.inner].sum()
    squares[layer.inner] = 0.0
    return np.array([conv, 0.0, squares.sum()])


def _bias_parts(layer: keras.layers.Layer) -> np.ndarray:
    bias = ops.convert_to_numpy(layer.bias)
    if isinstance(layer, EmbeddedDense):
        bias = kernels.unflatten_bias(bias, layer.geometry)
    bias = bias.reshape(-1, bias.shape[-1])
    mean = bias.mean(axis=0, dtype=np.float64)
    return np.array([len(bias) * np.sum(mean**2), np.sum((bias - mean) ** 2), 0.0])


def _ratios(parts: np.ndarray, rest: float = 0.0) -> Deviation:
    norm = math.sqrt(parts.sum() + rest)
    scale = 1 / norm if norm else 0.0
    return Deviation(norm, math.sqrt(parts[2]) * scale, math.sqrt(parts[1]) * scale)
