"""Sparse layers as dense ones, for converters and programs that know no others."""

from typing import Any

import keras

from tfconvbias.arguments import checked
from tfconvbias.graph import Call, Rebuilder, read_graph
from tfconvbias.layers import BlockDense, SparseDense
from tfconvbias.surgery.kernel_layers import to_numpy


@checked
def densify(model: keras.Model) -> keras.Model:
    """Returns a model of Keras' own layers in place of `SparseDense` and `BlockDense`.

    It computes the same, and holds all zeros again: what `sparsify` makes smaller grows back to
    what `compact` left. Loading it does not need this package.

    Args:
        model: A functional or sequential model; it is not modified.

    Returns:
        A functional, uncompiled `keras.Model`; its layers keep their names.

    Raises:
        ValueError: If the model's graph cannot be read.

    Example:
        >>> import numpy as np
        >>> layer = SparseDense.from_kernel(np.eye(3, dtype="float32"))
        >>> dense = densify(keras.Sequential([keras.Input((3,)), layer]))
        >>> type(dense.layers[-1]).__name__, tuple(dense.layers[-1].kernel.shape)
        ('Dense', (3, 3))
    """
    return _Densifying(read_graph(model)).model()


class _Densifying(Rebuilder):
    def __init__(self, graph):
        super().__init__(graph)
        self._dense: dict[int, keras.layers.Dense] = {}

    def make(self, number: int, call: Call) -> Any:
        old = call.operation
        if not isinstance(old, SparseDense | BlockDense):
            return super().make(number, call)
        if id(old) not in self._dense:
            dense = keras.layers.Dense(
                old.units,
                activation=old.activation,
                use_bias=old.use_bias,
                dtype=old.dtype_policy,
                name=self.name_for(call),
            )
            dense.build((None, old.input_spec.axes[-1]))
            biases = [to_numpy(old.bias)] if old.use_bias else []
            dense.set_weights([old.dense_kernel(), *biases])
            self._dense[id(old)] = dense
        return self._dense[id(old)](self.tensors[call.inputs[0]])
