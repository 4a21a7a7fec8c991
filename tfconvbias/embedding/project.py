"""The way back: the convolutional or locally connected model nearest to an embedded one."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.embedding import kernels
from tfconvbias.embedding.embedded_dense import EmbeddedDense, build_with
from tfconvbias.embedding.plan import activation_call, margins
from tfconvbias.embedding.wide import EmbeddedConv, inner_kernel
from tfconvbias.graph import Call, ConvGeometry, LayerGraph, Rebuilder, read_graph
from tfconvbias.graph.facts import kind_of, layer_class
from tfconvbias.graph.geometry import Pairs
from tfconvbias.graph.windows import layer_geometries


@checked
def project(model: keras.Model, onto: str = "conv") -> keras.Model:
    r"""Project an embedded model orthogonally onto convolutional or local weights.

    The weights of a convolution, embedded, form a linear subspace of those of a dense layer. The
    nearest point of it takes the mean over the entries that share a weight and drops those off the
    support; the nearest locally connected layer only drops the latter. Of a wide convolution the
    added taps are dropped:

    $$w_{t,c,f} = \frac{1}{|\Omega_{t,c,f}|} \sum_{(i, o) \in \Omega_{t,c,f}} M_{i,o}$$

    Biases are averaged over positions. `project(embed(cnn))` computes what `cnn` computes, with the
    same weights; a tap that meets padding at every position comes back as 0 from a folded dense
    layer. A separable convolution comes back as a depthwise and a 1×1 one, average pooling that was
    embedded as a depthwise convolution, and padding that was folded as a ZeroPadding layer.

    Args:
        model: A model from `embed`, trained or not; it is left as it is.
        onto: `"conv"`, where locally connected layers become convolutions too, or `"local"`, where
            a wide convolution becomes a locally connected layer that still repeats one kernel.

    Returns:
        An uncompiled functional model; layers keep their names.

    Raises:
        ValueError: If `onto` is unknown, the model holds nothing to project, or a transposed
            convolution is to become local.

    Example:
        >>> from tfconvbias.embedding import embed
        >>> cnn = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3, name="c")])
        >>> back = project(embed(cnn))
        >>> kernels = [model.get_layer("c").get_weights()[0] for model in (cnn, back)]
        >>> bool(abs(kernels[1] - kernels[0]).max() < 1e-6)
        True
    """
    if onto not in ("conv", "local"):
        raise ValueError(f"`onto` must be 'conv' or 'local'. Received: onto={onto}")
    projection = _Projection(read_graph(model), onto)
    projected = projection.model()
    if not projection.num_projected:
        raise ValueError(
            f"The model holds no layer that can be projected onto {onto} layers. "
            f"Received: model={model!r}"
        )
    return projected


class _Projection(Rebuilder):
    """Makes the nearest model. Reshapes around embedded layers vanish with them."""

    def __init__(self, graph: LayerGraph, onto: str):
        super().__init__(graph)
        self._onto = onto
        self._volumes: dict[int, tuple[Any, Any]] = {}
        self._chains: dict[int, list[keras.layers.Layer]] = {}
        self._margins = margins(graph)

    @property
    def num_projected(self) -> int:
        """Number of layers that were projected."""
        return len(self._chains)

    def make(self, number: int, call: Call) -> Any:
        """The outputs of a call, of the nearest layer where it is projected."""
        layer = call.operation
        if isinstance(layer, EmbeddedDense):
            return self._dense(call)
        if isinstance(layer, EmbeddedConv) or (kind_of(layer) == "local" and self._onto == "conv"):
            return self._apply(call, self.tensors[call.inputs[0]])
        if type(layer) is keras.layers.Reshape:
            volume = self._volume(self.tensors[call.inputs[0]])
            if volume is not None and tuple(volume.shape[1:]) == tuple(layer.target_shape):
                return volume
        outputs = super().make(number, call)
        if type(layer) is keras.layers.Flatten and layer.data_format == "channels_last":
            self._remember(outputs, self.tensors[call.inputs[0]])
        return outputs

    def _volume(self, flat: Any) -> Any:
        """The volume that a tensor is flattened from, `None` if that is not known."""
        found = self._volumes.get(id(flat))
        return None if found is None else found[1]

    def _remember(self, flat: Any, volume: Any) -> None:
        # The flattened tensor is held too, so that its id is not given to another one.
        self._volumes[id(flat)] = (flat, volume)

    def _dense(self, call: Call) -> Any:
        layer = call.operation
        inputs = self.tensors[call.inputs[0]]
        volume = self._volume(inputs)
        shape = layer.geometry.input_shape
        if volume is None or tuple(volume.shape[1:]) != shape:
            name = self.new_name(f"{call.operation.name}_volume")
            volume = keras.layers.Reshape(shape, name=name, dtype=layer.dtype_policy)(inputs)
        volume = self._apply(call, volume)
        name = self.new_name(f"{call.operation.name}_flat")
        flat = keras.layers.Flatten("channels_last", name=name, dtype=layer.dtype_policy)(volume)
        self._remember(flat, volume)
        return flat

    def _apply(self, call: Call, volume: Any) -> Any:
        layer = call.operation
        if id(layer) not in self._chains:
            name = self.name_for(call)
            self._chains[id(layer)] = self._nearest(layer, name, tuple(volume.shape))
        for step in self._chains[id(layer)]:
            volume = step(volume)
        return volume

    def _nearest(
        self, layer: keras.layers.Layer, name: str, input_shape: tuple[int | None, ...]
    ) -> list[keras.layers.Layer]:
        """The layers that stand for the projected one, such as a padding and a convolution."""
        onto = self._onto
        kernel = ops.convert_to_numpy(layer.kernel)
        bias = None if layer.bias is None else ops.convert_to_numpy(layer.bias)
        if isinstance(layer, EmbeddedDense):
            geometry = layer.geometry
            if onto == "conv":
                kernel = kernels.conv_from_dense(kernel, geometry)
            else:
                if geometry.kind == "transposed":
                    raise ValueError(
                        f"Layer '{layer.name}' stands for a transposed convolution, which has no "
                        "locally connected layer of its form. Use onto='conv'."
                    )
                kernel = _local_kernel(kernel, geometry)
            bias = None if bias is None else kernels.unflatten_bias(bias, geometry)
        elif isinstance(layer, EmbeddedConv):
            geometry = layer.geometry
            kernel = inner_kernel(kernel, layer)
            if bias is not None:
                bias = kernels.bias_to_positions(bias, geometry)
            if onto == "local":
                kernel = kernels.local_from_conv(kernel, geometry)
        else:
            geometry = local_geometry(layer, self._margins[id(layer)])
            kernel = kernels.conv_from_local(kernel, geometry)
        if onto == "conv" and geometry.kind == "depthwise" and geometry.rank == 3:
            # Keras has no depthwise layer of three axes, but one in groups.
            kernel = kernel.reshape(*geometry.kernel_size, 1, geometry.filters)
        if onto == "conv" and bias is not None:
            axes = tuple(range(geometry.rank))
            bias = bias.mean(axis=axes, dtype=np.float64).astype(bias.dtype)
        steps: list[keras.layers.Layer] = []
        padding = geometry.padding
        if not isinstance(padding, str):
            pairs = padding if geometry.rank > 1 else padding[0]
            steps.append(
                layer_class("padding", geometry.rank)(
                    pairs,
                    data_format=geometry.data_format,
                    name=self.new_name(f"{name}_padding"),
                    dtype=layer.dtype_policy,
                )
            )
            padding = "valid"
        new = _new_layer(layer, name, geometry, padding, onto)
        shape = input_shape if not steps else steps[0].compute_output_shape(input_shape)
        if hasattr(new, "depthwise_initializer"):
            # The parent class of depthwise layers names its arguments otherwise.
            new.build(shape)
            new.set_weights([kernel] if bias is None else [kernel, bias])
        else:
            build_with(new, shape, lambda: kernel, bias)
        steps.append(new)
        activation = activation_call(layer)
        if activation is not None:
            steps.append(self.layer(activation))
        return steps


def local_geometry(layer: keras.layers.Layer, margin: Pairs = ()) -> ConvGeometry:
    """The geometry of a built locally connected layer.

    Args:
        layer: The layer.
        margin: The rim of its inputs that always holds zeros.
    """
    axes = layer.input_spec.axes
    shape = (None, *(axes[axis] for axis in range(1, len(axes) + 1)))
    return dataclasses.replace(layer_geometries(layer, shape)[0][1], margin=margin)


def _local_kernel(matrix: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The local entries; taps on padding take their orbit's mean, so that it stays the mean."""
    local = kernels.local_from_dense(matrix, geometry)
    on_padding = geometry.support().patches < 0
    values = local.reshape(*on_padding.shape, -1)
    shared = kernels.conv_from_dense(matrix, geometry).reshape(on_padding.shape[1], -1)
    return np.where(on_padding[:, :, None], shared, values).reshape(local.shape)


def _new_layer(
    layer: keras.layers.Layer, name: str, geometry: ConvGeometry, padding: str, onto: str
) -> keras.layers.Layer:
    settings = {
        "name": name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "use_bias": layer.use_bias,
        "strides": geometry.strides,
        "dilation_rate": geometry.dilation_rate,
        "padding": padding,
        "data_format": geometry.data_format,
        "bias_initializer": layer.bias_initializer,
        "bias_regularizer": layer.bias_regularizer,
        # That of a locally connected layer; an embedded one has none, as it stands apart there.
        "activation": None if activation_call(layer) else getattr(layer, "activation", None),
    }
    kernel_settings = {
        "initializer": layer.kernel_initializer,
        "regularizer": layer.kernel_regularizer,
    }
    if onto == "conv" and geometry.kind == "depthwise" and geometry.rank < 3:
        return layer_class("depthwise", geometry.rank)(
            geometry.kernel_size,
            depth_multiplier=geometry.filters // geometry.in_channels,
            **{f"depthwise_{name}": value for name, value in kernel_settings.items()},
            **settings,
        )
    settings |= {f"kernel_{name}": value for name, value in kernel_settings.items()}
    if onto == "conv" and geometry.kind == "transposed":
        return layer_class("transposed", geometry.rank)(
            geometry.filters,
            geometry.kernel_size,
            output_padding=geometry.output_padding,
            **settings,
        )
    return layer_class(onto, geometry.rank)(
        geometry.filters, geometry.kernel_size, groups=geometry.groups, **settings
    )
