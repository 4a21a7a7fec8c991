"""A Keras training step on TensorFlow in which some dense layers compute with their non-zeros."""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfconvbias.callbacks.certified_step import EmptyingStep, used_elsewhere
from tfconvbias.optimizers import StepSizes


class _Sums(NamedTuple):
    """One call of a layer: its inputs and its units' sums before the bias, both transposed."""

    layer: Any
    inputs: Any
    outputs: Any


class TensorFlowStep(EmptyingStep):
    """The step in a graph, which calls the products of NumPy arrays."""

    def __call__(self, data):
        model, optimizer = self.model, self.model.optimizer
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        calls: list[_Sums] = []
        with tf.GradientTape() as tape, self.computing(functools.partial(_call, tape, calls)):
            predicted = self.predict(x)
            loss = model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=True
            )
            scaled = optimizer.scale_loss(loss)
        self.track(loss, x)
        others = self.others()
        certified = [layer.kernel.value for layer in self.kernels]
        gradients, around, of_sums = tape.gradient(
            scaled, ([v.value for v in others], certified, [c.outputs for c in calls])
        )
        for layer, gradient in zip(self.kernels, around, strict=True):
            if gradient is not None:
                raise ValueError(used_elsewhere(layer))
        sizes = self.apply(gradients, others)
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

    def hold(self, variable, value: np.ndarray) -> None:
        tf.raw_ops.AssignVariableOp(
            resource=variable.value.handle, value=tf.constant(value), validate_shape=False
        )


def _call(tape, calls, layer, kernel, inputs, training=None):
    """`keras.layers.Dense.call` with the product taken over the non-zeros."""
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
