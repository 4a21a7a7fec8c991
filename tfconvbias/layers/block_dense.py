"""A dense layer whose units share their inputs in groups: one small product for each group."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.layers.sparse_dense import SparseDense


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class BlockDense(keras.layers.Layer):
    """A dense layer whose units share their inputs in groups: one small dense product for each.

    It equals `keras.layers.Dense` with a kernel that is zero outside its blocks. The units of a
    block read the same few inputs, such as those of a window of an image; the inputs are gathered
    and all blocks multiplied at once. With one block it is a dense layer that skips the inputs
    which nobody reads, with a block for every place a locally connected one.

    ```
    output_(b,u) = activation(Σ_k kernel_bku · input_(rows_bk) + bias)
    ```

    Weights outside the blocks may be added by a sparse product (`num_rest`).
    `BlockDense.from_kernel` makes a layer from a dense kernel and the units of each block. It is
    made of operations that every converter knows, as long as nothing is left to the sparse product.

    Args:
        units: Number of outputs.
        num_blocks: Number of blocks.
        block_inputs: Number of inputs that a block reads.
        block_units: Number of units that a block has room for.
        num_rest: Number of weights outside the blocks. Defaults to 0.
        activation: Activation function, as in `keras.layers.Dense`. Defaults to none.
        use_bias: Whether to add a bias.
        kernel_initializer: Of the blocks, called with their shape.
        bias_initializer: Of the bias.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., n)`.

    Output shape:
        `(batch, ..., units)`.

    Weights:
        `kernel` `(num_blocks, block_inputs, block_units)`; `bias` `(units,)`; not trained and
        int32, `rows` `(num_blocks, block_inputs)`, the inputs of each block, and `places`
        `(units,)`, where each unit stands among those of all blocks. A new layer reads inputs in
        turn. The weights of the `num_rest` others are those of a `SparseDense`.

    Raises:
        ValueError: If a number is below 1 (`num_rest` below 0), or the blocks have no room for the
            units.

    Example:
        >>> kernel = np.array([[1.0, 0, 0], [0, 2, 3], [0, 4, 5]], "float32")
        >>> layer = BlockDense.from_kernel(kernel, [[0], [1, 2]])
        >>> tuple(layer.kernel.shape)
        (2, 2, 2)
        >>> [float(value) for value in layer(np.array([[1.0, 10, 100]], "float32"))[0]]
        [1.0, 420.0, 530.0]
    """

    def __init__(
        self,
        units: int,
        num_blocks: int,
        block_inputs: int,
        block_units: int,
        num_rest: int = 0,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value, least in (
            ("units", units, 1),
            ("num_blocks", num_blocks, 1),
            ("block_inputs", block_inputs, 1),
            ("block_units", block_units, 1),
            ("num_rest", num_rest, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"`{name}` must be an integer of at least {least}. Received: {name}={value}"
                )
        if num_blocks * block_units < units:
            raise ValueError(
                "The blocks must have room for all units. Received: "
                f"units={units}, num_blocks={num_blocks}, block_units={block_units}"
            )
        self.units = units
        self.num_blocks = num_blocks
        self.block_inputs = block_inputs
        self.block_units = block_units
        self.num_rest = num_rest
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.rest = None
        if num_rest:
            self.rest = SparseDense(
                units, num_rest, use_bias=False, name="rest", dtype=self.dtype_policy
            )
            self.supports_jit = self.rest.supports_jit
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    @classmethod
    def from_kernel(
        cls, kernel, blocks: Sequence[Any], bias=None, rows: Sequence[Any] | None = None, **kwargs
    ) -> "BlockDense":
        """A built layer with the weights of a dense kernel.

        Args:
            kernel: Array `(inputs, units)`.
            blocks: The units of each block; every unit is in one of them.
            bias: Array `(units,)`, or None for a layer without bias.
            rows: The inputs of each block. By default all that its units have weights of; other
                weights of theirs, with `rows`, go to the sparse product.
            **kwargs: Further arguments of the layer.
        """
        kernel = np.asarray(kernel)
        blocks = [np.asarray(units, int) for units in blocks]
        if sorted(np.concatenate(blocks).tolist()) != list(range(kernel.shape[1])):
            raise ValueError("Every unit must be in exactly one of the `blocks`.")
        if rows is None:
            rows = [np.flatnonzero((kernel[:, units] != 0).any(axis=1)) for units in blocks]
        width = max(1, *(len(inputs) for inputs in rows))
        room = max(len(units) for units in blocks)
        # Where a block reads fewer inputs, its first one stands again, without weights.
        gathered = np.zeros((len(blocks), width), "int32")
        values = np.zeros((len(blocks), width, room), kernel.dtype)
        places = np.zeros(kernel.shape[1], "int32")
        rest = kernel.copy()
        for number, (units, inputs) in enumerate(zip(blocks, rows, strict=True)):
            gathered[number] = inputs[0] if len(inputs) else 0
            gathered[number, : len(inputs)] = inputs
            values[number, : len(inputs), : len(units)] = kernel[np.ix_(inputs, units)]
            rest[np.ix_(inputs, units)] = 0
            places[units] = number * room + np.arange(len(units))
        kwargs.setdefault("dtype", kernel.dtype.name)
        num_rest = int(np.count_nonzero(rest))
        layer = cls(
            kernel.shape[1], len(blocks), width, room, num_rest, use_bias=bias is not None, **kwargs
        )
        layer.build((None, kernel.shape[0]))
        biases = [] if bias is None else [bias]
        for variable, value in zip(layer._own(), [values, *biases, gathered, places], strict=True):
            variable.assign(value)
        if layer.rest is not None:
            layer.rest.set_weights(SparseDense.from_kernel(rest).get_weights())
        return layer

    def build(self, input_shape):
        num_inputs = input_shape[-1]
        if num_inputs is None:
            raise ValueError(
                "The last axis of the inputs must be known. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: num_inputs})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_blocks, self.block_inputs, self.block_units),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_initializer
            )
        first = np.arange(self.num_blocks * self.block_inputs) % num_inputs
        for name, indices in (
            ("rows", first.reshape(self.num_blocks, self.block_inputs)),
            ("places", np.arange(self.units)),
        ):
            weight = self.add_weight(
                name=name,
                shape=indices.shape,
                initializer="zeros",
                dtype="int32",
                trainable=False,
                autocast=False,
            )
            weight.assign(indices)
            setattr(self, name, weight)
        if self.rest is not None:
            self.rest.build(input_shape)

    def call(self, inputs, training=None):
        flat = ops.reshape(inputs, (-1, inputs.shape[-1]))
        # One matrix for each block: inputs of the block × examples.
        gathered = ops.take(ops.transpose(flat), ops.convert_to_tensor(self.rows), axis=0)
        sums = ops.einsum("nio,nib->nob", self.kernel, gathered)
        sums = ops.reshape(sums, (self.num_blocks * self.block_units, -1))
        outputs = ops.transpose(ops.take(sums, ops.convert_to_tensor(self.places), axis=0))
        if self.rest is not None:
            outputs = ops.add(outputs, self.rest(flat, training=training))
        outputs = ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.units))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    def dense_kernel(self) -> np.ndarray:
        """The kernel as an array `(inputs, units)`, zeros included."""
        num_inputs = self.input_spec.axes[-1]
        values = ops.convert_to_numpy(self.kernel)
        blocks, slots = np.divmod(ops.convert_to_numpy(self.places), self.block_units)
        rows = ops.convert_to_numpy(self.rows)[blocks]
        kernel = np.zeros((num_inputs, self.units), values.dtype)
        # Added, since an input may stand in a block more than once.
        np.add.at(kernel, (rows.T, np.arange(self.units)), values[blocks, :, slots].T)
        return kernel if self.rest is None else kernel + self.rest.dense_kernel()

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_blocks": self.num_blocks,
            "block_inputs": self.block_inputs,
            "block_units": self.block_units,
            "num_rest": self.num_rest,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def _own(self):
        biases = [] if self.bias is None else [self.bias]
        return [self.kernel, *biases, self.rows, self.places]
