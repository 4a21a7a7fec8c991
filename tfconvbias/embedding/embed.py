"""A whole model with its convolutions as locally connected or dense layers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfconvbias.embedding import kernels
from tfconvbias.embedding import layer_rules as rules
from tfconvbias.embedding.batch_norm import fold_batch_normalization
from tfconvbias.embedding.embedded_dense import EmbeddedDense, build_with, dense_value
from tfconvbias.embedding.graph import rebuild
from tfconvbias.embedding.memory import available_bytes, readable
from tfconvbias.embedding.walk import Stage, Walk

_PEAK = 1.3
"""Memory at the peak of an embedding, as a multiple of the result."""


@dataclasses.dataclass(frozen=True)
class EmbeddedSize:
    """What an embedded model would take.

    Attributes:
        num_parameters: Parameters of the whole model.
        num_bytes: Memory of the embedded layers' variables.
        layers: Embedded layer → its parameters.
    """

    num_parameters: int
    num_bytes: int
    layers: dict[str, int]


def embed(
    model: keras.Model,
    target: str = "dense",
    padding: str = "folded",
    layers: Sequence[str] | None = None,
    *,
    fold_batch_norm: bool = False,
    max_bytes: int | None = None,
) -> keras.Model:
    r"""The same function with fewer constraints: a CNN as an LCN or an FCN, $\Phi$ of the paper.

    Each convolution becomes a layer between the same two volumes:

    - `target="dense"`: `Flatten → EmbeddedDense → Reshape`. The matrix of
      $d_\text{in} c_\text{in} \times d_\text{out} c_\text{out}$ entries ($d$ the number of
      positions) starts sparse (locality) and redundant (weight sharing), and training may fill it.
    - `target="local"`: a `LocallyConnected` layer: locality stays, sharing is free to break.

    All other layers stay as they are, since every volume keeps its shape: pooling, activations,
    dropout, merges, dense layers, and BatchNormalization per channel. Sequential and functional
    models with branches, shared and nested models are followed node by node. A convolution that is
    called on several input shapes becomes one layer for each. A separable convolution becomes two
    layers, `<name>_depthwise` and `<name>_pointwise`. An activation inside a convolution becomes an
    Activation layer behind it, since softmax and its like look at one axis of the volume.

    Regularizers come along and act on each entry of the larger kernel; constraints are refused.

    Args:
        model: Built Sequential or functional model; it is left as it is.
        target: `"dense"` or `"local"`. Layers that are locally connected already become dense with
            the first and stay with the second.
        padding: For `"dense"`, `"folded"`: inputs that are padding have no row, and ZeroPadding
            layers in front of a convolution go into it. `"explicit"`: the padded volume is the
            dense layer's input, as in the paper's code. A local target keeps padding as it is.
        layers: Names of the layers to embed; all others stay, whatever their class. Average pooling
            is embedded where it is named. `None`: every convolution.
        fold_batch_norm: Whether to fold each BatchNormalization behind a convolution into it first,
            with its moving statistics: the same function in inference.
        max_bytes: Refuse to make larger variables than this; `None`: what memory is left.

    Returns:
        An uncompiled functional model with the same inputs and outputs.

    Raises:
        ValueError: If an argument is out of range, a name in `layers` isn't one of the model's
            embeddable layers, a layer has a constraint or an input that isn't fully defined, or a
            transposed convolution is to become local.
        NotImplementedError: For a layer whose class is not known.
        MemoryError: If the result would be too large; nothing is allocated then.

    Example:
        >>> cnn = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
        ...     keras.layers.Flatten(),
        ...     keras.layers.Dense(10),
        ... ])
        >>> fcn = embed(cnn)
        >>> tuple(fcn.get_layer("conv").kernel.shape)
        (192, 256)
        >>> x = np.ones((1, 8, 8, 3), "float32")
        >>> bool(np.abs(cnn.predict(x, verbose=0) - fcn.predict(x, verbose=0)).max() < 1e-5)
        True

    Reference:
        d'Ascoli et al., "Finding the Needle in the Haystack with Convolutions", 2019, section 3.
        The paper's code pads explicitly; folding is ours, and the LCN is suggested in section 5.
    """
    if fold_batch_norm:
        model = fold_batch_normalization(model)
    size = embedded_size(model, target, padding, layers)
    if max_bytes is None:
        available = available_bytes()
        max_bytes = None if available is None else int(available / _PEAK)
    if max_bytes is not None and size.num_bytes > max_bytes:
        largest = max(size.layers, key=size.layers.__getitem__)
        hint = (
            "Embed fewer layers with `layers=`"
            + (", keep locality with target='local'" if target == "dense" else "")
            + (", fold the padding with padding='folded'" if padding == "explicit" else "")
        )
        raise MemoryError(
            f"The embedded layers would hold {sum(size.layers.values()):,} parameters in "
            f"{readable(size.num_bytes)}; at most {readable(max_bytes)} may be taken. The largest "
            f"is '{largest}' with {size.layers[largest]:,} parameters. {hint}, or use a smaller "
            "input."
        )
    return rebuild(model, _Embedding(target, padding, layers))


def embedded_size(
    model: keras.Model,
    target: str = "dense",
    padding: str = "folded",
    layers: Sequence[str] | None = None,
) -> EmbeddedSize:
    """How large `embed` would make a model, without making it.

    Args:
        model: As in `embed`, and so are the other arguments.
        target: `"dense"` or `"local"`.
        padding: `"folded"` or `"explicit"`.
        layers: Names of the layers to embed.

    Returns:
        An `EmbeddedSize`.

    Raises:
        ValueError: As `embed`.
        NotImplementedError: As `embed`.
    """
    walk = _Measurement(target, padding, layers)
    copy = rebuild(model, walk)
    unknown = set(layers or ()) - walk.seen
    if unknown:
        raise ValueError(
            "`layers` must name convolutions, locally connected or average pooling layers of the "
            f"model. Received: layers={list(layers or ())}, of which unknown: {sorted(unknown)}"
        )
    return EmbeddedSize(
        num_parameters=copy.count_params() - walk.replaced + sum(walk.sizes.values()),
        num_bytes=walk.num_bytes,
        layers=walk.sizes,
    )


class _Measurement(Walk):
    """Adds up sizes; the layers stay convolutions."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.sizes: dict[str, int] = {}
        self.num_bytes = 0
        self.replaced = 0
        self._counted: set[tuple] = set()

    def convolve(self, layer: keras.layers.Layer, inputs: Any) -> Any:
        """Count what the layer becomes, once for each geometry."""
        if id(layer) not in {key[0] for key in self._counted}:
            self.replaced += layer.count_params()
        _, stages = self.stages(layer, inputs)
        for stage in stages:
            if (id(layer), stage.name, stage.geometry) not in self._counted:
                self._counted.add((id(layer), stage.name, stage.geometry))
                size = self._size(stage)
                self.sizes[stage.name] = self.sizes.get(stage.name, 0) + size
                self.num_bytes += size * _item_size(layer)
        return self.copies.call(layer, inputs)

    def _size(self, stage: Stage) -> int:
        geometry = stage.geometry
        units = geometry.matrix_shape[1]
        if self.target == "dense":
            kernel = math.prod(geometry.matrix_shape)
        else:
            kernel = math.prod(geometry.local_kernel_shape)
        return kernel + (stage.bias is not None) * units


class _Embedding(Walk):
    """Makes the layers."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._chains: dict[tuple, list[keras.layers.Layer]] = {}
        self._num_chains: dict[int, int] = {}

    def convolve(self, layer: keras.layers.Layer, inputs: Any) -> Any:
        """Call the layers that stand for this one on inputs of this geometry."""
        source, stages = self.stages(layer, inputs)
        key = (id(layer), *(stage.geometry for stage in stages))
        if key not in self._chains:
            self._chains[key] = self._chain(layer, stages)
        for step in self._chains[key]:
            source = step(source)
        return source

    def _chain(self, layer: keras.layers.Layer, stages: list[Stage]) -> list[keras.layers.Layer]:
        number = self._num_chains[id(layer)] = self._num_chains.get(id(layer), 0) + 1
        suffix = f"_{number}" if number > 1 else ""
        steps: list[keras.layers.Layer] = []
        for stage in stages:
            name = stage.name + suffix
            make = self._dense if self.target == "dense" else self._local
            steps += make(layer, stage, name)
        activation = getattr(layer, "activation", None)
        if activation is not None and activation is not keras.activations.linear:
            name = f"{layer.name}{suffix}_activation"
            steps.append(keras.layers.Activation(activation, name=name, dtype=layer.dtype_policy))
        # Where the convolution had it: on what the layer puts out.
        steps[-1].activity_regularizer = getattr(layer, "activity_regularizer", None)
        return steps

    def _dense(
        self, layer: keras.layers.Layer, stage: Stage, name: str
    ) -> list[keras.layers.Layer]:
        geometry = stage.geometry
        dtype = layer.dtype_policy
        steps: list[keras.layers.Layer] = []
        if stage.rim is not None:
            pairs = stage.rim if geometry.rank > 1 else stage.rim[0]
            steps.append(
                rules.layer_class(rules.ZERO_PADDING, geometry.rank)(
                    pairs, data_format=geometry.data_format, name=f"{name}_padding", dtype=dtype
                )
            )
        # Plain C order whatever the data format, as the geometry numbers its matrix.
        flatten = keras.layers.Flatten("channels_last", name=f"{name}_flatten", dtype=dtype)
        dense = EmbeddedDense(geometry.matrix_shape[1], geometry, **_settings(layer, stage, name))
        build_with(
            dense,
            (None, geometry.matrix_shape[0]),
            lambda: dense_value(stage.kernel(), geometry, stage.is_local),
            None if stage.bias is None else kernels.flatten_bias(stage.bias(), geometry),
        )
        reshape = keras.layers.Reshape(geometry.output_shape, name=f"{name}_reshape", dtype=dtype)
        return [*steps, flatten, dense, reshape]

    def _local(
        self, layer: keras.layers.Layer, stage: Stage, name: str
    ) -> list[keras.layers.Layer]:
        geometry = stage.geometry
        local = rules.layer_class(rules.LOCAL, geometry.rank)(
            geometry.filters,
            geometry.kernel_size,
            strides=geometry.strides,
            padding=geometry.padding,
            data_format=geometry.data_format,
            dilation_rate=geometry.dilation_rate,
            groups=geometry.groups,
            **_settings(layer, stage, name),
        )

        def kernel() -> np.ndarray:
            value = stage.kernel()
            return value if stage.is_local else kernels.local_from_conv(value, geometry)

        bias = None if stage.bias is None else stage.bias()
        build_with(local, (None, *geometry.input_shape), kernel, bias)
        return [local]


def _settings(layer: keras.layers.Layer, stage: Stage, name: str) -> dict[str, Any]:
    """Arguments of the new layer that come from the old one."""
    settings = {
        "name": name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "use_bias": stage.bias is not None,
    }
    for ours, theirs in (("kernel", stage.prefix), ("bias", "bias")):
        for what in ("initializer", "regularizer"):
            value = getattr(layer, f"{theirs}_{what}", None)
            if value is not None:
                settings[f"{ours}_{what}"] = value
    return settings


def _item_size(layer: keras.layers.Layer) -> int:
    """Bytes of one entry of a layer's variables."""
    name = keras.backend.standardize_dtype(layer.variable_dtype)
    return 2 if name == "bfloat16" else np.dtype(name).itemsize
