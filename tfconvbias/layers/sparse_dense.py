"""A dense layer that stores and multiplies its non-zero weights only."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.layers.sparse_call import compressed, sparse_call
from tfconvbias.layers.sparse_products import units_of


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class SparseDense(keras.layers.Layer):
    """A dense layer that stores and multiplies its non-zero weights only.

    It equals `keras.layers.Dense` with a kernel that is zero at all other places. Which weights it
    has is fixed; their values are trained like any other variable. With `n` inputs,

    ```
    output_j = activation(Σ_k kernel_k · input_(i_k) + bias_j),   (j, i_k) the indices of unit j
    ```

    `SparseDense.from_kernel` makes one from a trained dense kernel. A new layer reads equally many
    inputs with each unit, drawn at random, and initializes them as a dense layer would that had no
    others.

    A processor multiplies dense matrices faster per weight, so that the layer pays below about 10 %
    of non-zeros; on a GPU the product runs over gathered inputs and needs memory in proportion to
    non-zeros times batch. Numba, if installed (`pip install tfconvbias[sparse]`), makes training
    several times faster, and inference on JAX and PyTorch too. TensorFlow runs it without XLA.

    Args:
        units: Number of outputs.
        num_nonzeros: Number of weights of the kernel.
        activation: Activation function, as in `keras.layers.Dense`. Defaults to none.
        use_bias: Whether to add a bias.
        kernel_initializer: Of the weights, called with the shape `(inputs of a unit, units)`.
        bias_initializer: Of the bias.
        kernel_regularizer: Of the weights.
        bias_regularizer: Of the bias.
        kernel_constraint: Of the weights.
        bias_constraint: Of the bias.
        seed: Seed of the drawing of a new layer's inputs.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., n)`.

    Output shape:
        `(batch, ..., units)`.

    Weights:
        `kernel` `(num_nonzeros,)`, unit after unit; `bias` `(units,)`; not trained and int32,
        `indices` `(num_nonzeros, 2)`, the unit and the input of each weight. A file holds in their
        place the inputs, and where each unit's weights begin, so that a weight takes 8 bytes in
        float32.

    Raises:
        ValueError: If `units` or `num_nonzeros` is below 1, or the inputs are too few for that many
            weights.

    Example:
        >>> import numpy as np
        >>> layer = SparseDense.from_kernel(np.array([[0.0, 2.0], [3.0, 0.0]], "float32"))
        >>> tuple(layer.kernel.shape)
        (2,)
        >>> [float(value) for value in layer(np.array([[1.0, 10.0]], "float32"))[0]]
        [30.0, 2.0]
    """

    def __init__(
        self,
        units: int,
        num_nonzeros: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: NonNegativeInt | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("units", units), ("num_nonzeros", num_nonzeros)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value}")
        self.units = units
        self.num_nonzeros = num_nonzeros
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.seed = seed
        # TensorFlow's product of compressed rows is not for XLA.
        self.supports_jit = keras.config.backend() != "tensorflow"
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    @classmethod
    def from_kernel(cls, kernel, bias=None, **kwargs: Any) -> "SparseDense":
        """A built layer with the non-zeros of a dense kernel.

        Args:
            kernel: Array `(inputs, units)`. If it is all zero, one zero weight is stored.
            bias: Array `(units,)`, or None for a layer without bias.
            **kwargs: Further arguments of the layer.
        """
        kernel = np.asarray(kernel)
        units, rows = np.nonzero(kernel.T)
        if not rows.size:
            units, rows = np.zeros((2, 1), "int64")
        kwargs.setdefault("dtype", kernel.dtype.name)
        layer = cls(kernel.shape[1], rows.size, use_bias=bias is not None, **kwargs)
        layer.build((None, kernel.shape[0]))
        biases = [] if bias is None else [bias]
        layer.set_weights([kernel[rows, units], *biases, np.stack([units, rows], axis=1)])
        return layer

    def build(self, input_shape):
        num_inputs = input_shape[-1]
        if num_inputs is None or self.num_nonzeros > num_inputs * self.units:
            raise ValueError(
                "The last axis of the inputs must be known and long enough for the layer's "
                f"weights. Received: input_shape={tuple(input_shape)}, units={self.units}, "
                f"num_nonzeros={self.num_nonzeros}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: num_inputs})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_nonzeros,),
            initializer=self._initial_values,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        # TensorFlow multiplies by a list of places, which takes longer to make than to use.
        self.indices = self.add_weight(
            name="indices",
            shape=(self.num_nonzeros, 2),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            autocast=False,
        )
        self.indices.assign(self._drawn_support(num_inputs))

    def call(self, inputs, training=None):
        num_inputs = inputs.shape[-1]
        transposed = ops.transpose(ops.reshape(inputs, (-1, num_inputs)))
        sums = sparse_call(
            transposed,
            ops.convert_to_tensor(self.kernel),
            ops.convert_to_tensor(self.indices),
            self.units,
            training,
        )
        outputs = ops.transpose(sums)
        outputs = ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.units))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    def dense_kernel(self) -> np.ndarray:
        """The kernel as an array `(inputs, units)`, zeros included."""
        kernel = np.zeros((self.input_spec.axes[-1], self.units), self.kernel.dtype)
        units, rows = ops.convert_to_numpy(self.indices).T
        kernel[rows, units] = ops.convert_to_numpy(self.kernel)
        return kernel

    def save_own_variables(self, store):
        support = compressed(ops.convert_to_numpy(self.indices), self.units)
        for number, saved in enumerate([*self._values(), *support]):
            store[str(number)] = saved

    def load_own_variables(self, store):
        *values, rows, starts = (store[str(number)][...] for number in range(len(store.keys())))
        for variable, value in zip(self._values(), values, strict=True):
            variable.assign(value)
        self.indices.assign(np.stack([units_of(starts), rows], axis=1))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_nonzeros": self.num_nonzeros,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "seed": self.seed,
        }

    def _values(self):
        return [self.kernel] if self.bias is None else [self.kernel, self.bias]

    def _drawn_support(self, num_inputs):
        """Equally many inputs for each unit, without repetition."""
        rng = np.random.default_rng(self.seed)
        counts = np.diff(np.linspace(0, self.num_nonzeros, self.units + 1).astype("int64"))
        drawn = [np.sort(rng.choice(num_inputs, count, replace=False)) for count in counts]
        units = np.repeat(np.arange(self.units), counts)
        return np.stack([units, np.concatenate(drawn)], axis=1).astype("int32")

    def _initial_values(self, shape, dtype=None):
        width = -(-self.num_nonzeros // self.units)
        values = self.kernel_initializer((width, self.units), dtype=dtype)
        return ops.reshape(ops.transpose(values), (-1,))[: self.num_nonzeros]
