"""The product of `SparseDense` as each backend computes it fastest, with its gradient."""

import functools

import keras
from keras import ops

from tfconvbias.layers import sparse_products

# Up to so many examples, TensorFlow takes longer to compress a matrix than to do without.
_FEW_EXAMPLES = 8


def sparse_call(inputs, values, rows, starts, training):
    """`kernel.T @ inputs` for tensors, differentiable in `inputs` and `values`.

    Args:
        inputs: Tensor `(inputs, batch)`.
        values: Tensor `(nonzeros,)`.
        rows: int32 tensor `(nonzeros,)`: the input that each weight reads.
        starts: int32 tensor `(units + 1,)`: where each unit's weights begin.
        training: Whether gradients will be asked for. On TensorFlow they cost much more without,
            and the product can be exported.

    Returns:
        Tensor `(units, batch)`.
    """
    dtype = keras.backend.standardize_dtype(values.dtype)
    if dtype not in ("float32", "float64"):
        # Sums over many weights would lose too much in half precision.
        inputs, values = ops.cast(inputs, "float32"), ops.cast(values, "float32")
        return ops.cast(sparse_call(inputs, values, rows, starts, training), dtype)
    if _runs_on_processor():
        if keras.config.backend() == "tensorflow":
            return _tensorflow_call(inputs, values, rows, starts, training)
        if keras.config.backend() == "jax":
            return _jax_call()(inputs, values, rows, starts)
        return _torch_call().apply(inputs, values, rows, starts)
    terms = ops.take(inputs, rows, axis=0) * ops.expand_dims(values, 1)
    units, num_units = _units(rows, starts), starts.shape[0] - 1
    if keras.config.backend() == "torch":
        # The backend's `segment_sum` adds in float32.
        return terms.new_zeros((num_units, terms.shape[1])).index_add(0, units, terms)
    return ops.segment_sum(terms, units, num_units)


def _units(rows, starts):
    """The unit of each weight."""
    return ops.searchsorted(starts[1:], ops.arange(rows.shape[0], dtype="int32"), side="right")


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


def _tensorflow_call(inputs, values, rows, starts, training):
    """TensorFlow multiplies compressed rows itself; its own gradient of the weights is dense."""
    import tensorflow as tf

    num_inputs, num_units = inputs.shape[0], starts.shape[0] - 1
    # The unit of a weight is the number of units that end at or before it; searching for it would
    # take longer than the product.
    ends = tf.math.unsorted_segment_sum(
        tf.ones(num_units - 1, tf.int64), starts[1:-1], rows.shape[0] + 1
    )
    units = tf.cumsum(ends)[:-1]
    indices = tf.stack([units, tf.cast(rows, tf.int64)], axis=1)

    def product(inputs, values):
        matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=indices, values=values, dense_shape=[num_units, num_inputs]
        )
        outputs = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=inputs)
        return tf.ensure_shape(outputs, (num_units, inputs.shape[1])), matrix

    @tf.custom_gradient
    def trained_product(inputs, values):
        outputs, matrix = product(inputs, values)

        def gradient(upstream):
            back = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=upstream, transpose_a=True)
            weights = tf.numpy_function(
                _weight_gradient, [inputs, upstream, rows, starts], values.dtype
            )
            return tf.ensure_shape(back, inputs.shape), tf.ensure_shape(weights, values.shape)

        return outputs, gradient

    # Not the variable itself, whose gradient TensorFlow would want by another way.
    values = tf.convert_to_tensor(values)
    if training:
        return trained_product(inputs, values)

    def gathered_product():
        terms = tf.gather(inputs, rows) * values[:, None]
        sums = tf.math.unsorted_segment_sum(terms, units, num_units)
        return tf.ensure_shape(sums, (num_units, inputs.shape[1]))

    few = tf.shape(inputs)[1] <= _FEW_EXAMPLES
    return tf.cond(few, gathered_product, lambda: product(inputs, values)[0])


def _weight_gradient(inputs, gradient, rows, starts):
    """A plain function, since TensorFlow wants to read the name of what it calls."""
    return sparse_products.weight_gradient(inputs, gradient, rows, starts)


@functools.cache
def _jax_call():
    import jax
    import numpy as np

    def on_host(function, shape, dtype, *arrays):
        def run(*arrays):
            return function(*(np.ascontiguousarray(array) for array in arrays))

        return jax.pure_callback(run, jax.ShapeDtypeStruct(shape, dtype), *arrays)

    @jax.custom_vjp
    def product(inputs, values, rows, starts):
        shape = (starts.shape[0] - 1, inputs.shape[1])
        arrays = (inputs, values, rows, starts)
        return on_host(sparse_products.kernel_product, shape, inputs.dtype, *arrays)

    def forward(inputs, values, rows, starts):
        return product(inputs, values, rows, starts), (inputs, values, rows, starts)

    def backward(saved, upstream):
        inputs, values, rows, starts = saved
        back = functools.partial(sparse_products.input_gradient, num_inputs=inputs.shape[0])
        weights = sparse_products.weight_gradient
        return (
            on_host(back, inputs.shape, inputs.dtype, upstream, values, rows, starts),
            on_host(weights, values.shape, values.dtype, inputs, upstream, rows, starts),
            None,
            None,
        )

    product.defvjp(forward, backward)
    return product


@functools.cache
def _torch_call():
    import torch

    def on_host(function, *tensors):
        arrays = (tensor.detach().contiguous().numpy() for tensor in tensors)
        return torch.from_numpy(function(*arrays))

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(context, inputs, values, rows, starts):
            context.save_for_backward(inputs, values, rows, starts)
            return on_host(sparse_products.kernel_product, inputs, values, rows, starts)

        @staticmethod
        def backward(context, upstream):
            inputs, values, rows, starts = context.saved_tensors
            back = functools.partial(sparse_products.input_gradient, num_inputs=inputs.shape[0])
            weights = sparse_products.weight_gradient
            return (
                on_host(back, upstream, values, rows, starts),
                on_host(weights, inputs, upstream, rows, starts),
                None,
                None,
            )

    return Product
