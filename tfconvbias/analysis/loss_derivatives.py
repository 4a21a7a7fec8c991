"""Gradients and Hessian-vector products of one batch's loss, one function a backend.

`keras.ops` has no gradient, so this private module is the one place of the package where a backend
is called by name. Each function returns the same three callables, which take the weights as they
stand at the time of the call:

- `value(batch)`: the scalar loss,
- `gradient(batch)`: its gradient, one tensor a variable,
- `product(batch, tangents)`: the Hessian applied to `tangents`, one tensor a variable.

`batch` is a tuple `(x, y, sample_weight, data_scale, penalty_scale)` of tensors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras


class Derivatives(NamedTuple):
    """The compiled functions of one batch's loss."""

    value: Callable[[Any], Any]
    gradient: Callable[[Any], list]
    product: Callable[[Any, list], list]


def build(model, variables, batch_loss, training, jit_compile) -> Derivatives:
    """Derivatives of `batch_loss(outputs, penalties, batch)` on the running backend."""
    backends = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    backend = keras.config.backend()
    if backend not in backends:
        raise NotImplementedError(
            f"Curvature needs one of the backends {sorted(backends)}. Received: backend={backend!r}"
        )
    return backends[backend](model, variables, batch_loss, training, jit_compile)


def _tensorflow(model, variables, batch_loss, training, jit_compile) -> Derivatives:
    """Forward over reverse: the accumulator follows the tangents through the tape's gradient."""
    import tensorflow as tf

    watched = [variable.value for variable in variables]
    zeros = tf.UnconnectedGradients.ZERO

    def loss(batch):
        outputs = model(batch[0], training=training)
        return batch_loss(outputs, model.losses, batch)

    def reverse(batch):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            value = loss(batch)
        gradients = tape.gradient(value, watched, unconnected_gradients=zeros)
        # The rows that an embedding touched come as slices: make them dense.
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    def product(batch, tangents):
        with tf.autodiff.ForwardAccumulator(watched, tangents) as accumulator:
            gradients = reverse(batch)
        return accumulator.jvp(gradients, unconnected_gradients=zeros)

    compiled = [
        tf.function(function, jit_compile=jit_compile) for function in (loss, reverse, product)
    ]
    return Derivatives(*compiled)


def _jax(model, variables, batch_loss, training, jit_compile) -> Derivatives:
    """Forward over reverse: the Jacobian-vector product of the gradient."""
    del jit_compile  # always compiled
    import jax

    position = {id(variable): i for i, variable in enumerate(model.trainable_variables)}
    chosen = [position[id(variable)] for variable in variables]

    def loss(weights, others, frozen, batch):
        trainable = list(others)
        for index, weight in zip(chosen, weights, strict=True):
            trainable[index] = weight
        outputs, _, penalties = model.stateless_call(
            trainable, frozen, batch[0], training=training, return_losses=True
        )
        return batch_loss(outputs, penalties, batch)

    def product(weights, others, frozen, batch, tangents):
        def gradient(weights):
            return jax.grad(loss)(weights, others, frozen, batch)

        return jax.jvp(gradient, (weights,), (tangents,))[1]

    def with_weights(function):
        compiled = jax.jit(function)

        def call(batch, *tangents):
            others = [variable.value for variable in model.trainable_variables]
            frozen = [variable.value for variable in model.non_trainable_variables]
            return compiled([others[i] for i in chosen], others, frozen, batch, *tangents)

        return call

    return Derivatives(with_weights(loss), with_weights(jax.grad(loss)), with_weights(product))


def _torch(model, variables, batch_loss, training, jit_compile) -> Derivatives:
    """Reverse over reverse, which is twice as fast here as forward over reverse."""
    del jit_compile  # eager
    import torch

    weights = [variable.value for variable in variables]

    def loss(batch):
        if training:
            # Dropout without a seed draws from PyTorch's global generator: pin it, then restore.
            with torch.random.fork_rng():
                torch.manual_seed(0)
                outputs = model(batch[0], training=True)
        else:
            outputs = model(batch[0], training=False)
        return batch_loss(outputs, model.losses, batch)

    def reverse(batch, create_graph):
        gradients = torch.autograd.grad(
            loss(batch), weights, create_graph=create_graph, allow_unused=True
        )
        return [
            torch.zeros_like(weight) if gradient is None else gradient
            for gradient, weight in zip(gradients, weights, strict=True)
        ]

    def value(batch):
        with torch.no_grad():
            return loss(batch)

    def gradient(batch):
        return reverse(batch, create_graph=False)

    def product(batch, tangents):
        gradients = reverse(batch, create_graph=True)
        # A gradient that depends on no weight has no graph: its part of the product is zero.
        pairs = [pair for pair in zip(gradients, tangents, strict=True) if pair[0].requires_grad]
        if not pairs:
            return [torch.zeros_like(weight) for weight in weights]
        outputs, directions = zip(*pairs, strict=True)
        products = torch.autograd.grad(outputs, weights, grad_outputs=directions, allow_unused=True)
        return [
            torch.zeros_like(weight) if part is None else part
            for part, weight in zip(products, weights, strict=True)
        ]

    return Derivatives(value, gradient, product)
