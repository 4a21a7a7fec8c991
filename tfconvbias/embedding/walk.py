"""The decisions of `embed` at each node of a graph: which layers change, and what they connect."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.connectivity import explicit_padding
from tfconvbias.connectivity.shapes import as_tuple
from tfconvbias.embedding import kernels
from tfconvbias.embedding import layer_rules as rules
from tfconvbias.embedding.geometry import ConvGeometry, Pairs, conv_geometry
from tfconvbias.embedding.graph import Aliases, Copies, rebuild


@dataclasses.dataclass(frozen=True)
class Stage:
    """One connection that a layer becomes: what it connects, and with which weights.

    Attributes:
        name: Name of the new layer.
        geometry: What it connects.
        kernel: Gives the value of the old layer's kernel.
        bias: Gives the value of the bias as `(*output, filters)`; `None` without one.
        is_local: Whether the kernel has one copy for each position already.
        prefix: What the old layer calls this kernel in its arguments.
        rim: Zeros to put around the inputs first; `None` for none.
    """

    name: str
    geometry: ConvGeometry
    kernel: Callable[[], np.ndarray]
    bias: Callable[[], np.ndarray] | None = None
    is_local: bool = False
    prefix: str = "kernel"
    rim: Pairs | None = None


class Walk:
    """A transform for `rebuild`; subclasses say in `convolve` what becomes of a chosen layer.

    Args:
        target: As in `embed`, and so are the other arguments.
        padding: `"folded"` or `"explicit"`.
        layers: Names of the layers to embed, or `None`.
    """

    def __init__(self, target: str, padding: str, layers: Sequence[str] | None):
        for name, value, allowed in (
            ("target", target, ("dense", "local")),
            ("padding", padding, ("folded", "explicit")),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={value}")
        if isinstance(layers, str):
            raise ValueError(f"`layers` must be a sequence of names. Received: layers={layers!r}")
        self.target = target
        self.padding = padding
        self.layers = None if layers is None else frozenset(layers)
        self.seen: set[str] = set()
        self.copies = Copies()
        self._padded = Aliases()
        self._nested: dict[int, keras.Model] = {}

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            if id(layer) not in self._nested:
                self._nested[id(layer)] = rebuild(layer, self)
            return self._nested[id(layer)](*args, **kwargs)
        if isinstance(layer, keras.layers.Layer):
            if self._is_chosen(layer):
                self._check(layer)
                self.seen.add(layer.name)
                return self.convolve(layer, args[0] if args else kwargs["inputs"])
            if self.layers is None and not rules.stays(layer):
                raise NotImplementedError(
                    f"How to embed layer '{layer.name}' of class {type(layer).__name__} is not "
                    "known. To keep it as it is, name the layers to embed in `layers`."
                )
        elif self.layers is None and type(layer).__name__ in rules.CONV_OPERATIONS:
            raise NotImplementedError(
                f"How to embed operation '{layer.name}' of class {type(layer).__name__} is not "
                "known, as its kernel is no layer's: use a layer. To keep it as it is, name the "
                "layers to embed in `layers`."
            )
        outputs = self.copies.call(layer, *args, **kwargs)
        if type(layer) in rules.ZERO_PADDING:
            self._remember_padding(layer, args[0], outputs)
        return outputs

    def convolve(self, layer: keras.layers.Layer, inputs: Any) -> Any:
        """The outputs of what a chosen layer becomes."""
        raise NotImplementedError

    def stages(self, layer: keras.layers.Layer, inputs: Any) -> tuple[Any, list[Stage]]:
        """The tensor that a chosen layer is to read, and the connections that it becomes."""
        source, padded = self._padding_in_front(layer, inputs)
        margin = None
        # Zeros in front of an average count in it, unlike the pooling's own padding.
        is_pooling = type(layer) in rules.AVERAGE_POOLING
        if self.target == "local" or self.padding == "explicit" or is_pooling:
            source, padded, margin = inputs, None, padded
        shape = tuple(source.shape)
        if type(layer) in rules.SEPARABLE:
            stages = _separable(layer, shape, padded)
        elif is_pooling:
            stages = [_average(layer, shape)]
        else:
            stages = [_single(layer, shape, padded)]
        if self.target == "dense" and self.padding == "explicit":
            stages = [
                _explicit(stage, margin if number == 0 else None)
                for number, stage in enumerate(stages)
            ]
        return source, stages

    def _is_chosen(self, layer: keras.layers.Layer) -> bool:
        kind = type(layer)
        if kind not in rules.EMBEDDABLE or (kind in rules.LOCAL and self.target == "local"):
            return False
        if self.layers is None:
            return kind not in rules.AVERAGE_POOLING
        return layer.name in self.layers

    def _check(self, layer: keras.layers.Layer) -> None:
        if self.target == "local" and type(layer) in rules.TRANSPOSED:
            raise ValueError(
                f"Layer '{layer.name}' is a transposed convolution, which has no locally connected "
                "layer of its form. Use target='dense', or name the other layers in `layers`."
            )
        for part in ("kernel", "depthwise", "pointwise", "bias"):
            constraint = getattr(layer, f"{part}_constraint", None)
            if constraint is not None:
                raise ValueError(
                    "A constraint on a convolution's weights has no counterpart on the larger "
                    f"kernel. Received: layer '{layer.name}' with {part}_constraint={constraint}"
                )

    def _remember_padding(self, layer: keras.layers.Layer, inputs: Any, outputs: Any) -> None:
        """Note where zeros come from, through several padding layers in a row."""
        source, pairs = inputs, rules.padding_pairs(layer)
        before = self._padded.get(inputs)
        if before is not None and before[1][1] == layer.data_format:
            source = before[0]
            pairs = _add(before[1][0], pairs)
        self._padded.set(outputs, source, (pairs, layer.data_format))

    def _padding_in_front(self, layer: keras.layers.Layer, inputs: Any) -> tuple[Any, Pairs | None]:
        """The tensor in front of the ZeroPadding layers, and what they add; the inputs without."""
        found = self._padded.get(inputs)
        if found is None or type(layer) in rules.TRANSPOSED:
            return inputs, None
        source, (pairs, data_format) = found
        return (source, pairs) if data_format == layer.data_format else (inputs, None)


def _single(layer: keras.layers.Layer, shape: tuple, padded: Pairs | None) -> Stage:
    is_local = type(layer) in rules.LOCAL
    kernel_shape = tuple(layer.kernel.shape)[rules.rank_of(layer) if is_local else 0 :]
    kind, prefix = "conv", "kernel"
    if type(layer) in rules.DEPTHWISE:
        kind = prefix = "depthwise"
    elif type(layer) in rules.TRANSPOSED:
        kind = "transposed"
    geometry = rules.layer_geometry(layer, shape, kernel_shape, kind, padded)
    return Stage(
        layer.name,
        geometry,
        lambda: ops.convert_to_numpy(layer.kernel),
        _bias(layer, geometry, is_local),
        is_local,
        prefix,
    )


def _separable(layer: keras.layers.Layer, shape: tuple, padded: Pairs | None) -> list[Stage]:
    depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
    first = rules.layer_geometry(layer, shape, tuple(depthwise.shape), "depthwise", padded)
    second = conv_geometry(
        first.output_shape, tuple(pointwise.shape), data_format=layer.data_format
    )
    return [
        Stage(
            f"{layer.name}_depthwise",
            first,
            lambda: ops.convert_to_numpy(depthwise),
            prefix="depthwise",
        ),
        Stage(
            f"{layer.name}_pointwise",
            second,
            lambda: ops.convert_to_numpy(pointwise),
            _bias(layer, second, False),
            prefix="pointwise",
        ),
    ]


def _average(layer: keras.layers.Layer, shape: tuple) -> Stage:
    channels = shape[-1] if layer.data_format == "channels_last" else shape[1]
    window = as_tuple(layer.pool_size, rules.rank_of(layer), "pool_size")
    geometry = rules.layer_geometry(layer, shape, (*window, channels, 1), "depthwise")
    pads = explicit_padding(
        geometry.spatial_shape, window, geometry.strides, geometry.padding, geometry.dilation_rate
    )
    if keras.config.backend() == "torch" and any(before != after for before, after in pads):
        raise ValueError(
            f"Average pooling layer '{layer.name}' pads its inputs {pads}: with an odd total Keras "
            "repeats the border on PyTorch instead of leaving it out of the mean. Embed it on "
            "another backend, or put a ZeroPadding layer in front."
        )
    dtype = keras.backend.standardize_dtype(layer.variable_dtype)
    return Stage(layer.name, geometry, lambda: rules.average_kernel(geometry, dtype), is_local=True)


def _bias(
    layer: keras.layers.Layer, geometry: ConvGeometry, is_local: bool
) -> Callable[[], np.ndarray] | None:
    if not layer.use_bias:
        return None
    if is_local:
        return lambda: ops.convert_to_numpy(layer.bias)
    return lambda: kernels.bias_to_positions(ops.convert_to_numpy(layer.bias), geometry)


def _explicit(stage: Stage, margin: Pairs | None) -> Stage:
    """Turn a convolution's own padding into a rim of its input volume."""
    geometry = stage.geometry
    if geometry.kind == "transposed":
        return stage
    own = explicit_padding(
        geometry.spatial_shape,
        geometry.kernel_size,
        geometry.strides,
        geometry.padding,
        geometry.dilation_rate,
    )
    return dataclasses.replace(
        stage,
        geometry=dataclasses.replace(
            geometry,
            spatial_shape=tuple(
                n + b + a for n, (b, a) in zip(geometry.spatial_shape, own, strict=True)
            ),
            padding="valid",
            margin=own if margin is None else _add(margin, own),
        ),
        rim=own if any(map(any, own)) else None,
    )


def _add(inner: Pairs, outer: Pairs) -> Pairs:
    return tuple(
        (b + before, a + after) for (b, a), (before, after) in zip(inner, outer, strict=True)
    )
