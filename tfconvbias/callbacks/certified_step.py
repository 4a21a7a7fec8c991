"""A Keras training step on TensorFlow in which some dense layers compute with their non-zeros."""

import functools
import inspect
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfconvbias.callbacks.certified_kernel import CertifiedKernel
from tfconvbias.optimizers import StepSizes


class _Sums(NamedTuple):
    """One call of a layer: its inputs and its units' sums before the bias, both transposed."""

    layer: Any
    inputs: Any
    outputs: Any


class CertifiedStep:
    """`keras.Model.train_step` with the kernels of some dense layers held by `CertifiedKernel`s.

    The model, its optimizer and all other variables stay what they are. While the kernels are
    taken out, the variables of the dense kernels hold nothing and cost no memory.

    Args:
        model: A compiled `keras.Model` whose optimizer is a built `BetaLasso`.
        kernels: Maps each layer to its kernel.
    """

    def __init__(self, model, kernels: dict[Any, CertifiedKernel]):
        self.model = model
        self.kernels = kernels
        self.is_out = False

    def take_out(self) -> None:
        """Move the kernels from the layers' variables to the certified kernels."""
        if not self.is_out:
            self.is_out = True
            for layer, kernel in self.kernels.items():
                kernel.load(ops.convert_to_numpy(layer.kernel))
                _assign(layer.kernel, np.zeros(0, layer.kernel.dtype))
                # A checkpoint in the middle of an epoch holds the kernel as it is.
                layer.save_own_variables = functools.partial(self._save, layer)

    def put_back(self) -> None:
        """Write the kernels, as trained so far, to the layers' variables."""
        if self.is_out:
            self.is_out = False
            for layer, kernel in self.kernels.items():
                _assign(layer.kernel, kernel.dense())
                del layer.save_own_variables

    def _save(self, layer, store) -> None:
        _assign(layer.kernel, self.kernels[layer].dense())
        type(layer).save_own_variables(layer, store)
        _assign(layer.kernel, np.zeros(0, layer.kernel.dtype))

    def __call__(self, data):
        """One step on a batch; returns the model's metrics."""
        import tensorflow as tf

        model, optimizer = self.model, self.model.optimizer
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        takes_training = "training" in inspect.signature(model.call).parameters
        with tf.GradientTape() as tape, self._computing(tape) as calls:
            predicted = model(x, training=True) if takes_training else model(x)
            loss = model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=True
            )
            scaled = optimizer.scale_loss(loss)
        num_examples = ops.shape(keras.tree.flatten(x)[0])[0]
        for metric in model.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=num_examples)

        certified = [layer.kernel for layer in self.kernels]
        others = [v for v in model.trainable_variables if not any(v is k for k in certified)]
        gradients, around, of_sums = tape.gradient(
            scaled,
            ([v.value for v in others], [k.value for k in certified], [c.outputs for c in calls]),
        )
        for layer, gradient in zip(self.kernels, around, strict=True):
            if gradient is not None:
                raise ValueError(
                    f"The kernel of layer {layer.name!r} enters the loss other than through the "
                    "layer's own product, so that its zeros have gradients that the certificate "
                    "does not know. Leave the layer out by `layers`."
                )
        # Before `apply`, which moves on to the next iteration of the schedules.
        sizes = {layer: optimizer.step_sizes(layer.kernel) for layer in self.kernels}
        if others:
            optimizer.apply(gradients, others)
        else:
            optimizer.iterations.assign_add(1)
        for layer, kernel in self.kernels.items():
            pairs = [
                (call.inputs, gradient)
                for call, gradient in zip(calls, of_sums, strict=True)
                if call.layer is layer and gradient is not None
            ]
            if pairs:
                # A layer that is called twice has the sum of both calls' gradients.
                inputs, gradient = (tf.concat(part, 1) for part in zip(*pairs, strict=True))
                if optimizer.loss_scale_factor is not None:
                    gradient /= optimizer.loss_scale_factor
                update = functools.partial(_update, kernel)
                tf.numpy_function(update, [inputs, gradient, *sizes[layer]], tf.int32)
        return model.compute_metrics(x, y, predicted, sample_weight=sample_weight)

    @contextmanager
    def _computing(self, tape):
        """Inside, the layers compute with their certified kernels; yields the list of calls."""
        calls: list[_Sums] = []
        for layer, kernel in self.kernels.items():
            layer.call = functools.partial(_call, layer, kernel, tape, calls)
        try:
            yield calls
        finally:
            for layer in self.kernels:
                del layer.call


def train_function(step: CertifiedStep):
    """What `model.make_train_function` makes of the step, without XLA."""
    model = step.model
    compiled, jit_compile = model.train_function, model.jit_compile
    model.train_step, model.jit_compile = step, False
    try:
        model.make_train_function(force=True)
        return model.train_function
    finally:
        del model.train_step
        model.train_function, model.jit_compile = compiled, jit_compile


def _call(layer, kernel, tape, calls, inputs, training=None):
    """`keras.layers.Dense.call` with the product taken over the non-zeros."""
    import tensorflow as tf

    num_inputs, units = kernel.shape
    transposed = tf.transpose(tf.reshape(inputs, (-1, num_inputs)))

    @tf.custom_gradient
    def product(transposed):
        dtype = transposed.dtype
        sums = tf.ensure_shape(
            tf.numpy_function(kernel.product, [transposed], dtype), (units, None)
        )

        def gradient(upstream):
            back = tf.numpy_function(kernel.input_gradient, [upstream], dtype)
            return tf.ensure_shape(back, (num_inputs, None))

        return sums, gradient

    sums = product(transposed)
    tape.watch(sums)
    calls.append(_Sums(layer, transposed, sums))
    outputs = tf.reshape(tf.transpose(sums), tf.concat([tf.shape(inputs)[:-1], [units]], 0))
    outputs = tf.ensure_shape(outputs, (*inputs.shape[:-1], units))
    if layer.bias is not None:
        outputs = ops.add(outputs, layer.bias)
    return layer.activation(outputs)


def _update(kernel, inputs, gradient, rate, pull, cutoff):
    """`CertifiedKernel.update` as a function with a result, as TensorFlow wants it."""
    kernel.update(inputs, gradient, StepSizes(rate, pull, cutoff))
    return np.int32(0)


def _assign(variable, value) -> None:
    """Give a variable a value of any shape, which frees the memory of what it held."""
    import tensorflow as tf

    tf.raw_ops.AssignVariableOp(
        resource=variable.value.handle, value=tf.constant(value), validate_shape=False
    )
