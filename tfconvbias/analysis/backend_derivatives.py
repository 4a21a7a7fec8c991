"""Gradients and curvature products of one batch's loss, one function a backend.

`keras.ops` has no gradient, so this private module is the one place of the package where a backend
is called by name. Each function returns the same callables, which take the weights as they
stand at the time of the call:

- `value(batch)`: the scalar loss,
- `gradient(batch)`: its gradient, one tensor a variable,
- `hessian(batch, tangents)`, `ggn(batch, tangents)`, `fisher(batch, tangents)`: a curvature matrix
  applied to `tangents`, one tensor a variable,
- `hessian_at(batch)`: `hessian` of this batch at the present weights as a function of `tangents`,
  which holds the graph of the gradient; `None` where a compiled step leaves nothing to hold.

The loss is `losses(outputs, batch) + penalty(penalties, batch)`. Gauss–Newton products take the
outputs' tangents forward, multiply them by the Hessian of `losses` by the outputs, and pull the
result back; Fisher's do the same with the targets that the outputs themselves expect.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras


class Derivatives(NamedTuple):
    """The compiled functions of one batch's loss."""

    value: Callable[[Any], Any]
    gradient: Callable[[Any], list]
    hessian: Callable[[Any, list], list]
    ggn: Callable[[Any, list], list]
    fisher: Callable[[Any, list], list]
    hessian_at: Callable[[Any], Callable[[list], list]] | None = None


def build(model, variables, losses, penalty, training, jit_compile) -> Derivatives:
    """Derivatives of `losses(outputs, batch) + penalty(penalties, batch)` on this backend."""
    backends = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    backend = keras.config.backend()
    if backend not in backends:
        raise NotImplementedError(
            f"Curvature needs one of the backends {sorted(backends)}. Received: backend={backend!r}"
        )
    return backends[backend](model, variables, losses, penalty, training, jit_compile)


def _refuse_masks(outputs) -> None:
    """Gauss–Newton products cut the outputs from the model, and a mask would be lost there."""
    if any(getattr(output, "_keras_mask", None) is not None for output in outputs):
        raise NotImplementedError(
            'Outputs with a mask have no Gauss–Newton product yet: take curvature="hessian".'
        )


def _tensorflow(model, variables, losses, penalty, training, jit_compile) -> Derivatives:
    """Forward over reverse: the accumulator follows the tangents through the tape's gradient."""
    import tensorflow as tf

    watched = [variable.value for variable in variables]
    zeros = tf.UnconnectedGradients.ZERO

    def value(batch):
        outputs = model(batch.x, training=training)
        return losses(outputs, batch) + penalty(model.losses, batch)

    def dense(gradients):
        # The rows that an embedding touched come as slices.
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    def gradient(batch):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            loss = value(batch)
        return dense(tape.gradient(loss, watched, unconnected_gradients=zeros))

    def hessian(batch, tangents):
        with tf.autodiff.ForwardAccumulator(watched, tangents) as accumulator:
            gradients = gradient(batch)
        return accumulator.jvp(gradients, unconnected_gradients=zeros)

    def gauss_newton(batch, tangents, expected):
        with tf.autodiff.ForwardAccumulator(watched, tangents) as forward:
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(watched)
                outputs = model(batch.x, training=training)
                penalties = penalty(model.losses, batch)
            by_weights = tape.gradient(penalties, watched, unconnected_gradients=zeros)
            by_weights = dense(by_weights)
        flat = tf.nest.flatten(outputs)
        _refuse_masks(flat)
        moved = forward.jvp(flat, unconnected_gradients=zeros)
        points = [tf.stop_gradient(output) for output in flat]
        with tf.autodiff.ForwardAccumulator(points, moved) as curved:
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(points)
                loss = losses(tf.nest.pack_sequence_as(outputs, points), batch, expected)
            by_outputs = inner.gradient(loss, points, unconnected_gradients=zeros)
        pulled = tape.gradient(
            flat,
            watched,
            output_gradients=curved.jvp(by_outputs, unconnected_gradients=zeros),
            unconnected_gradients=zeros,
        )
        own = forward.jvp(by_weights, unconnected_gradients=zeros)
        return [a + b for a, b in zip(dense(pulled), own, strict=True)]

    functions = (
        value,
        gradient,
        hessian,
        lambda batch, tangents: gauss_newton(batch, tangents, False),
        lambda batch, tangents: gauss_newton(batch, tangents, True),
    )
    return Derivatives(*(tf.function(f, jit_compile=jit_compile) for f in functions))


def _jax(model, variables, losses, penalty, training, jit_compile) -> Derivatives:
    """Forward over reverse: the Jacobian-vector product of the gradient."""
    del jit_compile  # always compiled
    import jax

    position = {id(variable): i for i, variable in enumerate(model.trainable_variables)}
    chosen = [position[id(variable)] for variable in variables]

    def call(weights, others, frozen, batch):
        """Outputs and the sum of the penalties."""
        trainable = list(others)
        for index, weight in zip(chosen, weights, strict=True):
            trainable[index] = weight
        outputs, _, penalties = model.stateless_call(
            trainable, frozen, batch.x, training=training, return_losses=True
        )
        return outputs, penalty(penalties, batch)

    def value(weights, others, frozen, batch):
        outputs, penalties = call(weights, others, frozen, batch)
        return losses(outputs, batch) + penalties

    def hessian(weights, others, frozen, batch, tangents):
        def gradient(weights):
            return jax.grad(value)(weights, others, frozen, batch)

        return jax.jvp(gradient, (weights,), (tangents,))[1]

    def gauss_newton(weights, others, frozen, batch, tangents, expected):
        def outputs(weights):
            found = call(weights, others, frozen, batch)[0]
            _refuse_masks(keras.tree.flatten(found))
            return found

        def penalties(weights):
            return call(weights, others, frozen, batch)[1]

        def loss(outputs):
            return losses(outputs, batch, expected)

        points, moved = jax.jvp(outputs, (weights,), (tangents,))
        curved = jax.jvp(jax.grad(loss), (points,), (moved,))[1]
        (pulled,) = jax.vjp(outputs, weights)[1](curved)
        own = jax.jvp(jax.grad(penalties), (weights,), (tangents,))[1]
        return [a + b for a, b in zip(pulled, own, strict=True)]

    def with_weights(function):
        compiled = jax.jit(function)

        def call(batch, *tangents):
            others = [variable.value for variable in model.trainable_variables]
            frozen = [variable.value for variable in model.non_trainable_variables]
            return compiled([others[i] for i in chosen], others, frozen, batch, *tangents)

        return call

    functions = (
        value,
        jax.grad(value),
        hessian,
        partial(gauss_newton, expected=False),
        partial(gauss_newton, expected=True),
    )
    return Derivatives(*map(with_weights, functions))


def _torch(model, variables, losses, penalty, training, jit_compile) -> Derivatives:
    """Reverse over reverse, which is twice as fast here as forward over reverse."""
    del jit_compile  # eager
    import torch

    weights = [variable.value for variable in variables]

    def outputs_of(batch):
        if not training:
            return model(batch.x, training=False)
        # Dropout without a seed draws from PyTorch's global generator: pin it, then restore.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return model(batch.x, training=True)

    def loss(batch):
        outputs = outputs_of(batch)
        return losses(outputs, batch) + penalty(model.losses, batch)

    def differentiate(results, points, factors=None, **options):
        """Gradients of what depends on `points`; zeros for what does not."""
        factors = [None] * len(results) if factors is None else factors
        pairs = [pair for pair in zip(results, factors, strict=True) if pair[0].requires_grad]
        if not pairs:
            return [torch.zeros_like(point) for point in points]
        roots, grad_outputs = zip(*pairs, strict=True)
        found = torch.autograd.grad(
            roots, points, grad_outputs=grad_outputs, allow_unused=True, **options
        )
        return [
            torch.zeros_like(point) if gradient is None else gradient
            for gradient, point in zip(found, points, strict=True)
        ]

    def value(batch):
        with torch.no_grad():
            return loss(batch)

    def gradient(batch):
        return differentiate([loss(batch)], weights)

    def hessian(batch, tangents):
        gradients = differentiate([loss(batch)], weights, create_graph=True)
        return differentiate(gradients, weights, tangents)

    def hessian_at(batch):
        gradients = differentiate([loss(batch)], weights, create_graph=True)
        return lambda tangents: differentiate(gradients, weights, tangents, retain_graph=True)

    def gauss_newton(batch, tangents, expected):
        outputs = outputs_of(batch)
        flat = keras.tree.flatten(outputs)
        _refuse_masks(flat)
        penalties = differentiate(
            [penalty(model.losses, batch)], weights, create_graph=True, retain_graph=True
        )
        own = differentiate(penalties, weights, tangents, retain_graph=True)
        # The pull-back is linear in what is pulled, so that its own pull-back moves forward.
        pulled = [torch.zeros_like(output, requires_grad=True) for output in flat]
        back = differentiate(flat, weights, pulled, create_graph=True)
        moved = differentiate(back, pulled, tangents, retain_graph=True)
        points = [output.detach().requires_grad_() for output in flat]
        inner = losses(keras.tree.pack_sequence_as(outputs, points), batch, expected)
        by_outputs = differentiate([inner], points, create_graph=True)
        curved = differentiate(by_outputs, points, moved)
        found = differentiate(flat, weights, curved)
        return [a + b for a, b in zip(found, own, strict=True)]

    return Derivatives(
        value,
        gradient,
        hessian,
        partial(gauss_newton, expected=False),
        partial(gauss_newton, expected=True),
        hessian_at,
    )
