"""A whole model with its convolutions as locally connected or dense layers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked
from tfconvbias.embedding import kernels
from tfconvbias.embedding.embedded_dense import (
    EmbeddedDense,
    build_with,
    dense_value,
    local_value,
    temporary_bytes,
)
from tfconvbias.embedding.plan import EmbeddingPlan, activation_call
from tfconvbias.embedding.stages import Stage, stage_size
from tfconvbias.embedding.wide import EmbeddedConv, widened_kernel
from tfconvbias.graph import Call, Rebuilder, TensorRef, read_graph
from tfconvbias.graph import fold_normalization as folded
from tfconvbias.graph.facts import applied, layer_class
from tfconvbias.memory import available_bytes, readable

_ALLOWANCE = 1.1
"""What the peak of an embedding may take beyond what is counted, as measured."""


@dataclasses.dataclass(frozen=True)
class EmbeddedSize:
    """What an embedded model would take.

    Attributes:
        num_parameters: Parameters of the whole model.
        num_bytes: Memory of the embedded layers' variables.
        peak_bytes: Memory that making them takes at its peak: them, and what the layer with the
            largest temporary arrays needs besides.
        layers: Embedded layer → its parameters.
    """

    num_parameters: int
    num_bytes: int
    peak_bytes: int
    layers: dict[str, int]


@checked
def embed(
    model: keras.Model,
    target: str = "dense",
    padding: str = "folded",
    layers: Sequence[str] | None = None,
    *,
    kernel_size: PositiveInt | Sequence[PositiveInt] | None = None,
    fold_normalization: bool = False,
    max_bytes: NonNegativeInt | None = None,
) -> keras.Model:
    r"""The same function with fewer constraints: a CNN as an LCN or an FCN, $\Phi$ of the paper.

    Each convolution becomes a layer between the same two volumes:

    - `target="dense"`: `Flatten → EmbeddedDense → Reshape`. The matrix of
      $d_\text{in} c_\text{in} \times d_\text{out} c_\text{out}$ entries ($d$ the number of
      positions) starts sparse (locality) and redundant (weight sharing), and training may fill it.
    - `target="local"`: a `LocallyConnected` layer: locality stays, sharing is free to break.
    - `target="wide"`: an `EmbeddedConv`, a convolution with a larger kernel of which all but the
      old taps start at zero: sharing stays, locality is free to break. With the model itself the
      three are the corners of a square, {shared, not} × {local, not}.

    All other layers stay as they are, since every volume keeps its shape: pooling, activations,
    dropout, merges, dense layers, and BatchNormalization per channel. Sequential and functional
    models with branches and shared layers are followed call by call, and nested models are
    dissolved. A convolution that is called on several input shapes becomes one layer for each. A
    separable convolution becomes two layers, `<name>_depthwise` and `<name>_pointwise`. An
    activation inside a convolution becomes an Activation layer after it, since softmax and its
    like look at one axis of the volume; one that is a layer itself, such as PReLU, is copied.
    Layers of your own are taken once `tfconvbias.graph.register` has said what they do.

    `TimeDistributed` around a convolution is embedded as a convolution with one axis more, whose
    kernel has length 1 there: a local target then has weights for each step, and a dense one may
    connect steps. Of `SpectralNormalization` the kernel is taken as it is at inference; the
    result is not normalized in training. Subclassed models are taken where Keras can follow their
    `call` on symbolic inputs.

    Regularizers come along and act on each entry of the larger kernel; constraints are refused.

    Args:
        model: Built Sequential, functional or subclassed model; it is left as it is.
        target: `"dense"`, `"local"` or `"wide"`. Layers that are locally connected already become
            dense with the first and stay with the others.
        padding: For `"dense"`, `"folded"`: inputs that are padding have no row, and ZeroPadding
            layers in front of a convolution go into it. `"explicit"`: the padded volume is the
            dense layer's input, as in the paper's code. A local target keeps padding as it is, a
            wide one always takes it in.
        layers: Names of the layers to embed; all others stay, whatever their class. Average pooling
            is embedded where it is named, but not as a wide layer. `None`: every convolution.
        kernel_size: Taps of a wide convolution along each axis, an int or one per axis. Where that
            is more than the taps that meet an input, $2n - 1$ for stride 1 and $n$ inputs, the
            layer has these, and where it is less than the layer's own, it keeps its own. `None`:
            all taps that meet an input, so that each output reads each input.
        fold_normalization: Whether to fold each BatchNormalization after a convolution into it
            first, with its moving statistics: the same function in inference.
        max_bytes: Refuse to make larger variables than this; `None`: refuse what takes more at its
            peak than is left of main memory, or of the accelerator's where the backend can tell.

    Returns:
        An uncompiled functional model with the same inputs and outputs.

    Raises:
        ValueError: If an argument is out of range, a name in `layers` is not one of the model's
            embeddable layers, a layer has a constraint or an input that is not fully defined, a
            transposed convolution with a stride above 1 is to become local or wide, or
            `kernel_size` is given without `target="wide"`.
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
    if fold_normalization:
        model = folded(model)
    plan = EmbeddingPlan(read_graph(model), target, padding, layers, kernel_size)
    size = _size_of(plan)
    peak = int(size.peak_bytes * _ALLOWANCE)
    limit = available_bytes() if max_bytes is None else max_bytes
    if limit is not None and (peak if max_bytes is None else size.num_bytes) > limit:
        largest = max(size.layers, key=size.layers.__getitem__)
        hint = (
            "Embed fewer layers with `layers=`"
            + (", keep locality with target='local'" if target == "dense" else "")
            + (", fold the padding with padding='folded'" if padding == "explicit" else "")
            + (", take a smaller `kernel_size`" if target == "wide" else "")
        )
        raise MemoryError(
            f"The embedded layers would hold {sum(size.layers.values()):,} parameters in "
            f"{readable(size.num_bytes)}, and {readable(peak)} while they are made; at most "
            f"{readable(limit)} may be taken. The largest is '{largest}' with "
            f"{size.layers[largest]:,} parameters. {hint}, or use a smaller input."
        )
    return _Embedding(plan).model()


@checked
def embedded_size(
    model: keras.Model,
    target: str = "dense",
    padding: str = "folded",
    layers: Sequence[str] | None = None,
    *,
    kernel_size: PositiveInt | Sequence[PositiveInt] | None = None,
) -> EmbeddedSize:
    """How large `embed` would make a model, without making it.

    Args:
        model: Built Sequential or functional model; it is only read.
        target: `"dense"`, `"local"` or `"wide"`.
        padding: `"folded"` or `"explicit"`.
        layers: Names of the layers to embed; `None` for every convolution.
        kernel_size: Of wide convolutions, as in `embed`.

    Returns:
        An `EmbeddedSize`.

    Raises:
        ValueError: If an argument is out of range, or a chosen layer cannot be embedded.
        NotImplementedError: For a layer that is not known.
    """
    return _size_of(EmbeddingPlan(read_graph(model), target, padding, layers, kernel_size))


def _size_of(plan: EmbeddingPlan) -> EmbeddedSize:
    calls = plan.graph.calls
    replaced = {id(calls[number].operation) for number in plan.stages}
    kept = {
        id(call.operation): call.operation.count_params()
        for call in calls
        if isinstance(call.operation, keras.layers.Layer) and id(call.operation) not in replaced
    }
    for number in plan.stages:
        held = activation_call(applied(calls[number].operation)[0])
        if held is not None:
            shape = plan.graph.shapes[TensorRef(number, 0)]
            kept[id(held.operation)] = _num_parameters(held.operation, shape)
    sizes: dict[str, int] = {}
    num_bytes = temporary = 0
    counted: set[tuple] = set()
    for number, (_, stages) in plan.stages.items():
        layer, name_of = applied(calls[number].operation)[0], calls[number].operation.name
        for stage in stages:
            # A layer that is called twice on one shape becomes one layer.
            key = (id(layer), stage.suffix, stage.geometry)
            if key not in counted:
                counted.add(key)
                size = stage_size(stage, plan.target, plan.kernel_size)
                name = name_of + stage.suffix
                sizes[name] = sizes.get(name, 0) + size
                num_bytes += size * _item_size(layer)
                if plan.target == "dense":
                    own = temporary_bytes(stage.geometry, stage.is_local, _item_size(layer))
                    temporary = max(temporary, own)
    num_parameters = sum(kept.values()) + sum(sizes.values())
    return EmbeddedSize(num_parameters, num_bytes, num_bytes + temporary, sizes)


def _num_parameters(activation: Any, shape: tuple[int | None, ...]) -> int:
    """Of a layer that another one holds, which Keras builds at the first call with numbers only."""
    if not activation.built:
        activation = type(activation).from_config(activation.get_config())
        activation.build(shape)
    return activation.count_params()


class _Embedding(Rebuilder):
    """Makes a planned model."""

    def __init__(self, plan: EmbeddingPlan):
        super().__init__(plan.graph)
        self._plan = plan
        self._chains: dict[tuple, list[keras.layers.Layer]] = {}
        self._base_names: dict[int, str] = {}

    def make(self, number: int, call: Call) -> Any:
        """The outputs of a call, of the layers that stand for it where it is planned."""
        planned = self._plan.stages.get(number)
        if planned is None:
            return super().make(number, call)
        tensor, stages = self.tensors[planned[0]], planned[1]
        key = (id(call.operation), *(stage.geometry for stage in stages))
        if key not in self._chains:
            self._chains[key] = self._chain(call, stages)
        for step in self._chains[key]:
            tensor = step(tensor)
        return tensor

    def _chain(self, call: Call, stages: list[Stage]) -> list[keras.layers.Layer]:
        layer, _ = applied(call.operation)
        if id(call.operation) not in self._base_names:
            base = self._base_names[id(call.operation)] = self.name_for(call)
            names = [self.new_name(base + s.suffix) if s.suffix else base for s in stages]
        else:
            base = self._base_names[id(call.operation)]
            names = [self.new_name(base + stage.suffix) for stage in stages]
        steps: list[keras.layers.Layer] = []
        for stage, name in zip(stages, names, strict=True):
            make = {"dense": self._dense, "local": self._local, "wide": self._wide}
            steps += make[self._plan.target](layer, stage, name)
        activation, held = getattr(layer, "activation", None), activation_call(layer)
        if held is not None:
            steps.append(self.layer(held))
        elif activation is not None and activation is not keras.activations.linear:
            name = self.new_name(f"{base}_activation")
            steps.append(keras.layers.Activation(activation, name=name, dtype=layer.dtype_policy))
        # Where the convolution had it: on what the layer puts out.
        steps[-1].activity_regularizer = getattr(layer, "activity_regularizer", None)
        return steps

    def _dense(
        self, layer: keras.layers.Layer, stage: Stage, name: str
    ) -> list[keras.layers.Layer]:
        geometry = stage.geometry
        dtype = layer.dtype_policy
        steps = self._rim(layer, stage, name)
        # Plain C order whatever the data format, as the geometry numbers its matrix.
        flatten = keras.layers.Flatten(
            "channels_last", name=self.new_name(f"{name}_flatten"), dtype=dtype
        )
        dense = EmbeddedDense(geometry.matrix_shape[1], geometry, **_settings(layer, stage, name))
        build_with(
            dense,
            (None, geometry.matrix_shape[0]),
            lambda: dense_value(stage.kernel(), geometry, stage.is_local),
            None if stage.bias is None else kernels.flatten_bias(stage.bias(), geometry),
        )
        reshape = keras.layers.Reshape(
            geometry.output_shape, name=self.new_name(f"{name}_reshape"), dtype=dtype
        )
        return [*steps, flatten, dense, reshape]

    def _local(
        self, layer: keras.layers.Layer, stage: Stage, name: str
    ) -> list[keras.layers.Layer]:
        geometry = stage.geometry
        local = layer_class("local", geometry.rank)(
            geometry.filters,
            geometry.kernel_size,
            strides=geometry.strides,
            padding=geometry.padding,
            data_format=geometry.data_format,
            dilation_rate=geometry.dilation_rate,
            groups=geometry.groups,
            **_settings(layer, stage, name),
        )

        def kernel() -> Any:
            value = stage.kernel()
            return value if stage.is_local else local_value(value, geometry)

        bias = None if stage.bias is None else stage.bias()
        build_with(local, (None, *geometry.input_shape), kernel, bias)
        return [*self._rim(layer, stage, name), local]

    def _rim(self, layer: keras.layers.Layer, stage: Stage, name: str) -> list[keras.layers.Layer]:
        """The layer that puts zeros around the inputs, where some are wanted."""
        if stage.rim is None:
            return []
        rank = stage.geometry.rank
        padding = layer_class("padding", rank)(
            stage.rim if rank > 1 else stage.rim[0],
            data_format=stage.geometry.data_format,
            name=self.new_name(f"{name}_padding"),
            dtype=layer.dtype_policy,
        )
        return [padding]

    def _wide(self, layer: keras.layers.Layer, stage: Stage, name: str) -> list[keras.layers.Layer]:
        geometry = stage.geometry
        wide = EmbeddedConv(geometry, self._plan.kernel_size, **_settings(layer, stage, name))
        # The same bias at each position.
        bias = None if stage.bias is None else stage.bias().reshape(-1, geometry.filters)[0]
        build_with(
            wide,
            (None, *geometry.input_shape),
            lambda: widened_kernel(stage.kernel(), wide),
            bias,
        )
        return [wide]


def _settings(layer: keras.layers.Layer, stage: Stage, name: str) -> dict[str, Any]:
    """Arguments of the new layer that come from the old one."""
    settings = {
        "name": name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "use_bias": stage.bias is not None,
    }
    for ours, theirs in (("kernel", stage.argument), ("bias", "bias")):
        for what in ("initializer", "regularizer"):
            value = getattr(layer, f"{theirs}_{what}", None)
            if value is not None:
                settings[f"{ours}_{what}"] = value
    return settings


def _item_size(layer: keras.layers.Layer) -> int:
    """Bytes of one entry of a layer's variables."""
    name = keras.backend.standardize_dtype(layer.variable_dtype)
    return 2 if name == "bfloat16" else np.dtype(name).itemsize
