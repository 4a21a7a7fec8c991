"""A dense layer that remembers the convolution that it was."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.embedding import kernels
from tfconvbias.graph import ConvGeometry, LayerFacts, register


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


def _scattered(kernel: np.ndarray, geometry: ConvGeometry, is_local: bool) -> Any:
    support = geometry.support()
    if geometry.groups == 1 and geometry.kind == "conv" and support.data_format == "channels_last":
        position, tap = np.nonzero(support.patches >= 0)
        place, channels = support.patches[position, tap], geometry.in_channels
        rows = place[:, None] * channels + np.arange(channels)
        columns = np.broadcast_to(position[:, None], rows.shape)
        shape = (len(support.patches), support.patches.shape[1], channels, geometry.filters)
        if is_local:
            values = kernel.reshape(shape)[position, tap]
        else:
            values = kernel.reshape(shape[1:])[tap]
        values = values.reshape(-1, geometry.filters)
        volume: tuple[int, ...] = (
            geometry.matrix_shape[0],
            len(support.patches),
            geometry.filters,
        )
    else:
        rows, columns = support.inputs, support.outputs
        if geometry.kind == "transposed":
            rows, columns = columns, rows
        values = kernel.ravel()[support.local_entries if is_local else support.orbits]
        volume = geometry.matrix_shape
    # Indices are small: 32 bits halve the largest temporary.
    dtype = np.int32 if max(volume) < 2**31 else np.int64
    indices = np.stack([rows.ravel(), columns.ravel()], axis=-1, dtype=dtype)
    return ops.reshape(ops.scatter(indices, values, volume), geometry.matrix_shape)
