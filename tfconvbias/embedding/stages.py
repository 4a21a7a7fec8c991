"""One connection that a layer becomes: of a convolution, an average pooling, a wrapped layer."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.connectivity import explicit_padding, patch_indices
from tfconvbias.embedding import kernels
from tfconvbias.embedding.wide import widened
from tfconvbias.graph.facts import Kernel, kind_of
from tfconvbias.graph.geometry import ConvGeometry, Pairs
from tfconvbias.graph.windows import add_pairs


@dataclasses.dataclass(frozen=True)
class Stage:
    """One connection that a layer becomes: what it connects, and with which weights.

    Attributes:
        suffix: What the new layer is called after the name of the old.
        geometry: What it connects.
        kernel: Gives the value of the old layer's kernel.
        bias: Gives the value of the bias as `(*output, filters)`; `None` without one.
        is_local: Whether the kernel has one copy for each position already.
        argument: What the old layer calls this kernel in its arguments.
        rim: Zeros to put around the inputs first; `None` for none.
    """

    suffix: str
    geometry: ConvGeometry
    kernel: Callable[[], np.ndarray]
    bias: Callable[[], np.ndarray] | None = None
    is_local: bool = False
    argument: str = "kernel"
    rim: Pairs | None = None


def stage_of(
    layer: Any, kernel: Kernel, geometry: ConvGeometry, is_one_of_several: bool, is_last: bool
) -> Stage:
    """What one of a layer's kernels connects."""
    is_local = kind_of(layer) == "local"

    def bias() -> np.ndarray:
        value = ops.convert_to_numpy(layer.bias)
        return value if is_local else kernels.bias_to_positions(value, geometry)

    return Stage(
        f"_{kernel.argument}" if is_one_of_several else "",
        geometry,
        lambda: ops.convert_to_numpy(getattr(layer, kernel.attribute)),
        bias if layer.use_bias and is_last else None,
        is_local,
        kernel.argument,
    )


def with_leading_axis(stage: Stage, length: int) -> Stage:
    """A convolution at each step of an axis in front, as one over that axis with a kernel of 1."""
    geometry, value, bias = stage.geometry, stage.kernel, stage.bias
    padding = geometry.padding
    if padding == "causal":
        padding = ((0, 0), *_own_padding(geometry))
    lifted = dataclasses.replace(
        geometry,
        spatial_shape=(length, *geometry.spatial_shape),
        kernel_size=(1, *geometry.kernel_size),
        strides=(1, *geometry.strides),
        dilation_rate=(1, *geometry.dilation_rate),
        padding=padding,
        output_padding=None if geometry.output_padding is None else (0, *geometry.output_padding),
        margin=((0, 0), *geometry.margin),
    )
    num_outputs = geometry.rank

    def kernel() -> np.ndarray:
        old = value()
        if not stage.is_local:
            return old[None]
        one = old.reshape(*old.shape[:num_outputs], 1, *old.shape[num_outputs:])
        return np.ascontiguousarray(np.broadcast_to(one, (length, *one.shape)))

    def biases() -> np.ndarray:
        old = bias() if bias is not None else np.zeros(0)
        return np.ascontiguousarray(np.broadcast_to(old, (length, *old.shape)))

    return dataclasses.replace(
        stage, geometry=lifted, kernel=kernel, bias=None if bias is None else biases
    )


def as_convolution(stage: Stage) -> Stage:
    """A transposed convolution of stride 1 as the convolution that it is.

    Output $o$ reads input $o + b - t d$ by tap $t$ of $k$; with the taps in reverse order that is
    input $o + t' d - b'$ with $b' = (k - 1) d - b$ zeros before.
    """
    geometry, value = stage.geometry, stage.kernel
    padding = []
    for n, out, k, d, (before, _) in zip(
        geometry.spatial_shape,
        geometry.output_spatial_shape,
        geometry.kernel_size,
        geometry.dilation_rate,
        geometry.transposed_padding,
        strict=True,
    ):
        reach = d * (k - 1)
        padding.append((reach - before, out - n + before))
    convolution = dataclasses.replace(
        geometry, kind="conv", padding=tuple(padding), output_padding=None
    )
    axes = tuple(range(geometry.rank))

    def kernel() -> np.ndarray:
        return np.ascontiguousarray(np.swapaxes(np.flip(value(), axes), -1, -2))

    return dataclasses.replace(stage, geometry=convolution, kernel=kernel)


def average_stage(layer: Any, geometry: ConvGeometry) -> Stage:
    """Average pooling as a layer without weight sharing."""
    pads = _own_padding(geometry)
    if keras.config.backend() == "torch" and any(before != after for before, after in pads):
        raise ValueError(
            f"Average pooling layer '{layer.name}' pads its inputs {pads}: with an odd total Keras "
            "repeats the border on PyTorch instead of leaving it out of the mean. Embed it on "
            "another backend, or put a ZeroPadding layer in front."
        )
    dtype = keras.backend.standardize_dtype(layer.variable_dtype)
    return Stage("", geometry, lambda: _average_kernel(geometry, dtype), is_local=True)


def _average_kernel(geometry: ConvGeometry, dtype: Any) -> np.ndarray:
    """Average pooling as a locally connected kernel: one over the number of inputs under a window.

    With padding "same" a window at the border holds fewer inputs and so larger weights.
    """
    taps = patch_indices(
        geometry.spatial_shape, geometry.kernel_size, geometry.strides, geometry.padding
    )
    weights = 1.0 / np.maximum((taps >= 0).sum(axis=1), 1)
    per_position = weights.reshape((*geometry.output_spatial_shape, *(1,) * (geometry.rank + 2)))
    kernel = np.broadcast_to(per_position, geometry.local_kernel_shape)
    return np.ascontiguousarray(kernel, dtype=dtype)


def _own_padding(geometry: ConvGeometry) -> Pairs:
    return explicit_padding(
        geometry.spatial_shape,
        geometry.kernel_size,
        geometry.strides,
        geometry.padding,
        geometry.dilation_rate,
    )


def padded_shape(geometry: ConvGeometry) -> tuple[int, ...]:
    """The spatial lengths of a convolution's inputs with its own padding around them."""
    if geometry.kind == "transposed":
        return geometry.spatial_shape
    lengths = zip(geometry.spatial_shape, _own_padding(geometry), strict=True)
    return tuple(n + before + after for n, (before, after) in lengths)


def with_explicit_padding(stage: Stage, margin: Pairs | None) -> Stage:
    """Turn a convolution's own padding into a rim of its input volume."""
    geometry = stage.geometry
    if geometry.kind == "transposed":
        return stage
    own = _own_padding(geometry)
    return dataclasses.replace(
        stage,
        geometry=dataclasses.replace(
            geometry,
            spatial_shape=padded_shape(geometry),
            padding="valid",
            margin=own if margin is None else add_pairs(margin, own),
        ),
        rim=own if any(map(any, own)) else None,
    )


def stage_size(stage: Stage, target: str, kernel_size: int | Sequence[int] | None = None) -> int:
    """Number of parameters of the layer that a stage becomes."""
    geometry = stage.geometry
    if target == "wide":
        wide, _ = widened(geometry, kernel_size)
        return math.prod(wide.kernel_shape) + (stage.bias is not None) * geometry.filters
    shape = geometry.matrix_shape if target == "dense" else geometry.local_kernel_shape
    return math.prod(shape) + (stage.bias is not None) * geometry.matrix_shape[1]
