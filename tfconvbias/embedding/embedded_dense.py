"""A dense layer that remembers the convolution that it was."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.embedding import kernels
from tfconvbias.graph import ConvGeometry, LayerFacts, register

_INDEX_SIZE = 8
"""Bytes of the two numbers that say where an entry of the matrix stands."""


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class EmbeddedDense(keras.layers.Dense):
    """`keras.layers.Dense` between two flattened volumes, with the geometry of a convolution.

    It computes what Dense computes. The geometry says which entries of its kernel are local and
    which share a weight, so that a saved model can be measured, masked and projected back.

    Args:
        units: Number of outputs: the size of the geometry's output volume.
        geometry: `ConvGeometry`, or its dictionary.
        **kwargs: The other arguments of `keras.layers.Dense`.

    Raises:
        ValueError: If `units` is not the size of the output volume, or the layer is built on
            inputs that are not the flattened input volume.

    Example:
        >>> from tfconvbias.graph import conv_geometry
        >>> layer = EmbeddedDense(12, conv_geometry((4, 4, 1), (2, 3, 1, 2), strides=(1, 2)))
        Traceback (most recent call last):
        ...
        ValueError: `units` must be the size 6 of the geometry's output volume. Received: units=12
    """

    def __init__(self, units: int, geometry: ConvGeometry | dict, **kwargs: Any):
        super().__init__(units, **kwargs)
        if isinstance(geometry, dict):
            geometry = ConvGeometry(**geometry)
        self.geometry = geometry
        if units != geometry.matrix_shape[1]:
            raise ValueError(
                f"`units` must be the size {geometry.matrix_shape[1]} of the geometry's output "
                f"volume. Received: units={units}"
            )

    def build(self, input_shape):
        if input_shape[-1] != self.geometry.matrix_shape[0]:
            raise ValueError(
                f"The inputs must be the flattened volume {self.geometry.input_shape}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        super().build(input_shape)

    def get_config(self):
        return {**super().get_config(), "geometry": self.geometry.to_dict()}


# Its geometry names all of its inputs and outputs, so that none can be cut away.
register(EmbeddedDense, LayerFacts("dense", is_resizable=False))


def build_with(
    layer: keras.layers.Layer,
    input_shape: tuple[int | None, ...],
    kernel: Callable[[], Any],
    bias: np.ndarray | None,
) -> None:
    """Build a layer around given values, so that its kernel is held once and not twice.

    The values enter through the initializers, which are put back afterwards.

    Args:
        layer: Unbuilt layer with `kernel_initializer` and `bias_initializer`.
        input_shape: Shape of the inputs, with the batch.
        kernel: Makes the kernel's value; called once.
        bias: The bias' value.
    """
    kept = layer.kernel_initializer, layer.bias_initializer
    layer.kernel_initializer = lambda shape, dtype=None: ops.convert_to_tensor(kernel(), dtype)
    layer.bias_initializer = lambda shape, dtype=None: ops.convert_to_tensor(bias, dtype)
    try:
        layer.build(input_shape)
    finally:
        layer.kernel_initializer, layer.bias_initializer = kept


def dense_value(kernel: np.ndarray, geometry: ConvGeometry, is_local: bool) -> Any:
    """The dense kernel of a convolution or of a locally connected layer, to build a variable on.

    TensorFlow copies NumPy arrays on their way into a variable, twice at the peak, so the matrix is
    scattered into a tensor there. JAX adopts the aligned array; PyTorch copies it once.
    """
    if keras.config.backend() == "tensorflow":
        return _scattered(kernel, geometry, is_local)
    if is_local:
        return kernels.dense_from_local(kernel, geometry)
    return kernels.dense_from_conv(kernel, geometry)


def local_value(kernel: np.ndarray, geometry: ConvGeometry) -> Any:
    """The locally connected kernel of a convolution, repeated by the backend: it is held once."""
    num_positions = math.prod(geometry.output_spatial_shape)
    repeated = ops.tile(ops.reshape(ops.convert_to_tensor(kernel), (1, -1)), (num_positions, 1))
    return ops.reshape(repeated, geometry.local_kernel_shape)


def temporary_bytes(geometry: ConvGeometry, is_local: bool, item_size: int) -> int:
    """What `dense_value` holds at its peak besides its result.

    Args:
        geometry: Of the convolution.
        is_local: Whether the kernel has one copy for each position.
        item_size: Bytes of one entry.
    """
    per_tap = geometry.in_channels // geometry.groups * geometry.filters
    num_entries = int(geometry.tap_counts().sum()) * per_tap
    kernel = num_entries * item_size if is_local else 0
    backend = keras.config.backend()
    if backend != "tensorflow":
        return kernel + (math.prod(geometry.matrix_shape) * item_size if backend == "torch" else 0)
    width = geometry.filters if _scatters_rows(geometry) else 1
    # TensorFlow copies the values.
    return kernel + num_entries * (2 * item_size + _INDEX_SIZE // width)


def _scatters_rows(geometry: ConvGeometry) -> bool:
    """Whether an index stands for all filters of one connection."""
    is_plain = geometry.groups == 1 and geometry.kind == "conv"
    return is_plain and geometry.data_format == "channels_last"


def _scattered(kernel: np.ndarray, geometry: ConvGeometry, is_local: bool) -> Any:
    support = geometry.support()
    # Indices are small: 32 bits halve the largest temporary.
    dtype = np.int32 if max(geometry.matrix_shape) < 2**31 else np.int64
    volume: tuple[int, ...] = geometry.matrix_shape
    if _scatters_rows(geometry):
        position, tap = np.nonzero(support.patches >= 0)
        channels = geometry.in_channels
        pairs = np.empty((len(position), channels, 2), dtype)
        pairs[..., 0] = support.patches[position, tap][:, None] * channels + np.arange(channels)
        pairs[..., 1] = position[:, None]
        shape = (len(support.patches), support.patches.shape[1], channels, geometry.filters)
        if is_local:
            entries = kernel.reshape(shape)[position, tap]
        else:
            entries = kernel.reshape(shape[1:])[tap]
        entries = entries.reshape(-1, geometry.filters)
        volume = (geometry.matrix_shape[0], len(support.patches), geometry.filters)
    else:
        pairs, entries = np.empty((support.size, 2), dtype), np.empty(support.size, kernel.dtype)
        first, second = (1, 0) if geometry.kind == "transposed" else (0, 1)
        flat, start = kernel.ravel(), 0
        # In blocks, as the index sets of all entries would be larger than the matrix.
        for block in support.blocks(1 << 20):
            part = slice(start, start + block.size)
            pairs[part, first], pairs[part, second] = block.inputs, block.outputs
            entries[part] = flat[block.local_entries if is_local else block.orbits]
            start += block.size
    # Each array is given up for its tensor, before the result is made.
    indices = ops.convert_to_tensor(pairs.reshape(-1, 2))
    del pairs
    values = ops.convert_to_tensor(entries)
    del entries
    return ops.reshape(ops.scatter(indices, values, volume), geometry.matrix_shape)
