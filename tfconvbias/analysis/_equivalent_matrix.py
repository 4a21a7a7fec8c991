"""A variable as entries of the dense matrix that it stands for."""

import dataclasses
import math

import keras
import numpy as np

from tfconvbias.connectivity import conv_output_shape, patch_indices, tap_counts

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)


@dataclasses.dataclass(frozen=True)
class Entries:
    """The non-zero entries of a variable, and the matrix that they fill.

    Attributes:
        num_parameters: size of the variable.
        num_weights: size of the matrix.
        num_nonzeros: entries of the matrix that are not zero.
        num_values: entries of the variable that are not zero and have a place in the matrix.
        array: the variable.
        has_place: whether an entry has a place in the matrix; broadcasts to the array.
    """

    num_parameters: int
    num_weights: int
    num_nonzeros: int
    num_values: int
    array: np.ndarray
    has_place: np.ndarray

    def distinct_values(self) -> np.ndarray:
        """The values of the matrix's non-zero entries, each once, sorted."""
        return np.unique(self.array[(self.array != 0) & self.has_place])


def entries(layer: keras.layers.Layer, variable: keras.Variable) -> Entries:
    """Find the places of a layer's variable in the matrix between its whole input and output.

    The kernel of a dense, convolutional, depthwise or locally connected layer stands for that
    matrix; every other variable stands for itself.

    Raises:
        ValueError: If the input shape of such a layer is not known.
    """
    array = keras.ops.convert_to_numpy(variable)
    if variable is getattr(layer, "kernel", None):
        if isinstance(layer, _CONVOLUTIONS):
            return _convolution(layer, array)
        if _is_local(layer, array):
            return _local(layer, array)
        if isinstance(layer, keras.layers.Dense):
            # On inputs with more than one axis a dense layer is a 1×…×1 convolution.
            positions = math.prod(_input_shape(layer)[:-1])
            return _pick(array, positions**2 * array.size, np.array(positions))
    return _pick(array, array.size, np.array(1))


def _is_local(layer: keras.layers.Layer, kernel: np.ndarray) -> bool:
    # Told by its shape, (*output, *kernel_size, channels, filters), as everywhere in this folder.
    window = getattr(layer, "kernel_size", None)
    return window is not None and kernel.ndim == 2 * len(window) + 2


def _convolution(layer: keras.layers.Layer, kernel: np.ndarray) -> Entries:
    spatial, channels = _split(layer)
    window = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    filters = kernel.shape[-1]
    if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D):
        filters *= channels
    outputs = math.prod(conv_output_shape(spatial, *window)) * filters
    uses = tap_counts(spatial, *window)
    return _pick(kernel, math.prod(spatial) * channels * outputs, uses[..., None, None])


def _local(layer: keras.layers.Layer, kernel: np.ndarray) -> Entries:
    spatial, channels = _split(layer)
    window = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    inside = patch_indices(spatial, *window) >= 0
    outputs = inside.shape[0] * layer.filters
    uses = inside.reshape(*kernel.shape[:-2], 1, 1).astype(np.int64)
    return _pick(kernel, math.prod(spatial) * channels * outputs, uses)


def _pick(array: np.ndarray, num_weights: int, uses: np.ndarray) -> Entries:
    """Count, with `uses` the number of places of an entry: a scalar or `(…, 1, 1)`."""
    if uses.ndim:
        num_by_tap = np.count_nonzero(array, axis=(-2, -1))
        by_tap = uses[..., 0, 0]
        num_nonzeros = int((num_by_tap * by_tap).sum())
        num_values = int(num_by_tap[by_tap > 0].sum())
    else:
        num_values = int(np.count_nonzero(array))
        num_nonzeros = num_values * int(uses)
    return Entries(
        num_parameters=array.size,
        num_weights=num_weights,
        num_nonzeros=num_nonzeros,
        num_values=num_values,
        array=array,
        has_place=uses > 0,
    )


def _split(layer: keras.layers.Layer) -> tuple[tuple[int, ...], int]:
    """Spatial lengths and channels of the layer's input."""
    shape = _input_shape(layer)
    if layer.data_format == "channels_last":
        return shape[:-1], shape[-1]
    return shape[1:], shape[0]


def _input_shape(layer: keras.layers.Layer) -> tuple[int, ...]:
    try:
        shape = tuple(layer.input.shape[1:])
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"Layer {layer.name!r} must have one input, of a functional or Sequential model, so "
            "that the matrix it stands for is known."
        ) from error
    if None in shape:
        raise ValueError(
            f"Layer {layer.name!r} must have an input of known size. Received: input shape {shape}"
        )
    return shape
