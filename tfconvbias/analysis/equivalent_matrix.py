"""A variable as entries of the dense matrix that it stands for."""

import dataclasses
import math

import keras
import numpy as np

from tfconvbias.graph import ConvGeometry, facts_of
from tfconvbias.graph.windows import layer_geometries


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

    The kernel of a dense, convolutional or locally connected layer of any kind stands for that
    matrix, and each of a separable convolution's two kernels for one of its own; every other
    variable stands for itself.

    Raises:
        ValueError: If the input shape of such a layer is not known.
    """
    array = keras.ops.convert_to_numpy(variable)
    facts = facts_of(layer)
    names = [] if facts is None else [kernel.attribute for kernel in facts.kernels]
    found = [index for index, name in enumerate(names) if getattr(layer, name) is variable]
    if facts is None or not found:
        return _pick(array, array.size, np.array(1))
    _, geometry = layer_geometries(layer, _input_shape(layer))[found[0]]
    uses = _uses_by_position(geometry) if facts.kind == "local" else geometry.tap_counts()
    if facts.kind == "dense":
        # A dense layer on inputs with several axes is a 1×…×1 convolution.
        uses = uses[0]
    else:
        uses = uses[..., None, None]
    return _pick(array, math.prod(geometry.matrix_shape), uses)


def _uses_by_position(geometry: ConvGeometry) -> np.ndarray:
    """Whether each tap of each output position meets an input, as the number 0 or 1."""
    shape = (*geometry.output_spatial_shape, *geometry.kernel_size)
    return (geometry.support().patches >= 0).reshape(shape).astype(np.int64)


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


def _input_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    try:
        shape = tuple(layer.input.shape)
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"Layer {layer.name!r} must have one input, of a functional or Sequential model, so "
            "that the matrix it stands for is known."
        ) from error
    if None in shape[1:]:
        raise ValueError(
            f"Layer {layer.name!r} must have an input of known size. "
            f"Received: input shape {shape[1:]}"
        )
    return shape
