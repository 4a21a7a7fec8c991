"""The product of `SparseDense` as each backend computes it fastest, with its gradient."""

import functools

import keras
import numpy as np
from keras import ops

from tfconvbias.layers import sparse_products

# Up to so many examples, TensorFlow takes longer to compress a matrix than to do without, and JAX
# longer to hand numbers to NumPy than to multiply them.
_FEW_EXAMPLES = {"tensorflow": 16, "jax": 8}


def sparse_call(inputs, values, indices, num_units, training):
    """`kernel.T @ inputs` for tensors, differentiable in `inputs` and `values`.

    Args:
        inputs: Tensor `(inputs, batch)`.
        values: Tensor `(nonzeros,)`.
        indices: int32 tensor `(nonzeros, 2)`: the unit and the input of each weight, in order of
            the units.
        num_units: Number of units.
        training: Whether gradients will be asked for. On TensorFlow they cost much more without,
            and the product can be exported.

    Returns:
        Tensor `(units, batch)`.
    """
    dtype = keras.backend.standardize_dtype(values.dtype)
    if dtype not in ("float32", "float64"):
        # Sums over many weights would lose too much in half precision.
        inputs, values = ops.cast(inputs, "float32"), ops.cast(values, "float32")
        return ops.cast(sparse_call(inputs, values, indices, num_units, training), dtype)
    backend = keras.config.backend()
    if not _runs_on_processor() or (backend == "jax" and inputs.shape[1] <= _FEW_EXAMPLES["jax"]):
        return _gathered_call(inputs, values, indices, num_units)
    if backend == "tensorflow":
        return _tensorflow_call(inputs, values, indices, num_units, training)
    if backend == "jax":
        return _jax_call(num_units)(inputs, values, indices)
    return _torch_call().apply(inputs, values, indices, num_units)


def _gathered_call(inputs, values, indices, num_units):
    """The product of every weight, summed: memory in proportion to weights times examples."""
    terms = ops.take(inputs, indices[:, 1], axis=0) * ops.expand_dims(values, 1)
    if keras.config.backend() == "torch":
        # The backend's `segment_sum` adds in float32.
        sums = terms.new_zeros((num_units, terms.shape[1]))
        return sums.index_add(0, indices[:, 0], terms)
    return ops.segment_sum(terms, indices[:, 0], num_units)


def compressed(indices, num_units):
    """The input of each weight and where each unit's weights begin, as the products take them.

    Args:
        indices: NumPy array `(nonzeros, 2)`: the unit and the input of each weight.
        num_units: Number of units.

    Returns:
        Arrays `(nonzeros,)` and `(num_units + 1,)`.
    """
    units, rows = np.ascontiguousarray(indices.T)
    # Searching for numbers of another dtype would convert the units first.
    wanted = np.arange(num_units + 1, dtype=units.dtype)
    return rows, np.searchsorted(units, wanted).astype("int32")


@functools.cache
def _runs_on_processor() -> bool:
    """Whether the default device is the processor, whose memory NumPy can read."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    if keras.config.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    import torch

    return not torch.cuda.is_available()


def _tensorflow_call(inputs, values, indices, num_units, training):
    """TensorFlow multiplies compressed rows itself; its own gradient of the weights is dense."""
    import tensorflow as tf

    num_inputs = inputs.shape[0]

    def compressed_product(inputs, values):
        matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=tf.cast(indices, tf.int64), values=values, dense_shape=[num_units, num_inputs]
        )
        outputs = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=inputs)
        return tf.ensure_shape(outputs, (num_units, inputs.shape[1])), matrix

    def listed_product():
        return tf.raw_ops.SparseTensorDenseMatMul(
            a_indices=indices, a_values=values, a_shape=[num_units, num_inputs], b=inputs
        )

    @tf.custom_gradient
    def trained_product(inputs, values):
        outputs, matrix = compressed_product(inputs, values)

        def gradient(upstream):
            back = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=upstream, transpose_a=True)
            weights = tf.numpy_function(
                _weight_gradient, [inputs, upstream, indices, num_units], values.dtype
            )
            return tf.ensure_shape(back, inputs.shape), tf.ensure_shape(weights, values.shape)

        return outputs, gradient

    # Not the variable itself, whose gradient TensorFlow would want by another way.
    values = tf.convert_to_tensor(values)
    if training:
        return trained_product(inputs, values)
    most = _FEW_EXAMPLES["tensorflow"]
    if inputs.shape[1] is not None:
        few = inputs.shape[1] <= most
        return listed_product() if few else compressed_product(inputs, values)[0]
    few = tf.shape(inputs)[1] <= most
    return tf.cond(few, listed_product, lambda: compressed_product(inputs, values)[0])


def _weight_gradient(inputs, gradient, indices, num_units):
    """A plain function, since TensorFlow wants to read the name of what it calls."""
    return sparse_products.weight_gradient(inputs, gradient, *compressed(indices, num_units))


@functools.cache
def _jax_call(num_units):
    import jax

    def on_host(function, shape, dtype, indices, *arrays):
        def run(indices, *arrays):
            contiguous = (np.ascontiguousarray(array) for array in arrays)
            return function(*contiguous, *compressed(np.asarray(indices), num_units))

        return jax.pure_callback(run, jax.ShapeDtypeStruct(shape, dtype), indices, *arrays)

    @jax.custom_vjp
    def product(inputs, values, indices):
        shape = (num_units, inputs.shape[1])
        function = sparse_products.kernel_product
        return on_host(function, shape, inputs.dtype, indices, inputs, values)

    def forward(inputs, values, indices):
        return product(inputs, values, indices), (inputs, values, indices)

    def backward(saved, upstream):
        inputs, values, indices = saved
        back = functools.partial(sparse_products.input_gradient, num_inputs=inputs.shape[0])
        weights = sparse_products.weight_gradient
        return (
            on_host(back, inputs.shape, inputs.dtype, indices, upstream, values),
            on_host(weights, values.shape, values.dtype, indices, inputs, upstream),
            None,
        )

    product.defvjp(forward, backward)
    return product


@functools.cache
def _torch_call():
    import torch

    def on_host(function, indices, num_units, *tensors):
        arrays = (tensor.detach().contiguous().numpy() for tensor in tensors)
        return torch.from_numpy(function(*arrays, *compressed(indices.numpy(), num_units)))

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(context, inputs, values, indices, num_units):
            context.save_for_backward(inputs, values, indices)
            context.num_units = num_units
            return on_host(sparse_products.kernel_product, indices, num_units, inputs, values)

        @staticmethod
        def backward(context, upstream):
            inputs, values, indices = context.saved_tensors
            support = indices, context.num_units
            back = functools.partial(sparse_products.input_gradient, num_inputs=inputs.shape[0])
            weights = sparse_products.weight_gradient
            return (
                on_host(back, *support, upstream, values),
                on_host(weights, *support, inputs, upstream),
                None,
                None,
            )

    return Product
