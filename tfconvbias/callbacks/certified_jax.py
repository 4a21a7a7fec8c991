"""A Keras training step on JAX in which some dense layers compute with their non-zeros."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np

from tfconvbias.callbacks.certified_kernel import CertifiedKernel
from tfconvbias.callbacks.certified_step import CertifiedStep, used_elsewhere
from tfconvbias.optimizers import StepSizes


class _Call(NamedTuple):
    """One call of a layer: its inputs and its units' sums before the bias, both transposed."""

    layer: Any
    inputs: Any
    sums: Any


class _StoredKernel:
    """A certified kernel after a step, in its place in the model's state.

    Whoever asks for the array, as Keras does to give the variables their values, gets it.
    """

    def __init__(self, kernel: CertifiedKernel):
        self._kernel = kernel
        self._array: jax.Array | None = None

    def __jax_array__(self) -> jax.Array:
        if self._array is None:
            self._array = jnp.asarray(self._kernel.dense())
        return self._array

    def is_kept_by(self, value) -> bool:
        """Whether a value in the state still is this kernel."""
        return value is self or (self._array is not None and value is self._array)


class JaxStep(CertifiedStep):
    """The step as a function of the model's state, compiled but for the certified kernels.

    Keras hands the state from step to step. A certified kernel's place in it holds a
    `_StoredKernel`, so that the dense kernel exists only when something asks for it. A kernel that
    comes in as an array, at the beginning or since a callback changed it, is loaded.

    The compiled part calls the products of NumPy arrays. It returns, for each call of a layer, the
    inputs and the gradient of the units' sums, with which the kernels are updated outside. During a
    compiled call the kernels do not change, and the number of the step is an argument of every
    product: so each product is a function of its arguments, as JAX wants it.
    """

    def __init__(self, model, kernels):
        super().__init__(model, kernels)
        compiled = model.jit_compile and not model.run_eagerly
        self._compute = jax.jit(self._compute_others) if compiled else self._compute_others
        self._stored: dict[Any, _StoredKernel] = {}
        self._number = 0
        self._latest: tuple | None = None

    def __call__(self, state, data):
        trainable, *rest = state
        places = self._places()
        for (layer, kernel), place in zip(self.kernels.items(), places, strict=True):
            if layer not in self._stored or not self._stored[layer].is_kept_by(trainable[place]):
                kernel.load(np.asarray(jnp.asarray(trainable[place])))
        others = [value for place, value in enumerate(trainable) if place not in places]
        self._number = (self._number + 1) % 2**31
        logs, others, rest, sizes, pairs = self._compute(others, rest, np.int32(self._number), data)
        # Nothing may fail between these updates and the new state.
        for index, (layer, kernel) in enumerate(self.kernels.items()):
            # A layer that is called twice has the sum of both calls' gradients.
            inputs, gradient = (np.concatenate(part, axis=1) for part in pairs[index])
            kernel.update(inputs, gradient, StepSizes(*map(np.asarray, sizes[index])))
            self._stored[layer] = _StoredKernel(kernel)
        kernels = [self._stored[layer] for layer in self.kernels]
        self._latest = (self._together(kernels, others), *rest)
        return logs, self._latest

    def train_function(self) -> Callable:
        function = super().train_function()

        def run(state, iterator):
            self._latest = state
            return function(state, iterator)

        return run

    def take_out(self) -> None:
        """Nothing to do: the first step takes the kernels out of the state."""

    def put_back(self) -> None:
        """Nothing to do: Keras gives the variables the state's values."""
        self._latest = None

    def recover(self) -> None:
        """Give the variables their values after an error; Keras has emptied them."""
        if self._latest is not None:
            model = self.model
            # Otherwise Keras would do it later, with the values of an earlier step.
            model.jax_state_sync()
            variables = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
            for own, values in zip(variables, self._latest, strict=True):
                for variable, value in zip(own, values, strict=True):
                    variable.assign(value)

    def _places(self) -> list[int]:
        """Where the certified kernels stand among the model's trainable variables."""
        variables = self.model.trainable_variables
        return [
            next(place for place, v in enumerate(variables) if v is layer.kernel)
            for layer in self.kernels
        ]

    def _together(self, kernels, others) -> list:
        """The values of the model's trainable variables in their order."""
        values = list(others)
        for place, kernel in sorted(zip(self._places(), kernels, strict=True), key=lambda p: p[0]):
            values.insert(place, kernel)
        return values

    def _compute_others(self, others, rest, number, data):
        """A step of all that is not certified.

        Returns:
            The logs; the other trainable variables; the rest of the state; and for each certified
            layer its `StepSizes` and its calls' inputs and gradients of the units' sums.
        """
        model, optimizer = self.model, self.model.optimizer
        non_trainable, of_optimizer, of_metrics = rest
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

        def loss_of(kernels, others, probes, calls):
            values = self._together(kernels, others)
            with self.computing(functools.partial(_call, number, probes, calls)):
                loss, updates = model.compute_loss_and_updates(
                    values,
                    non_trainable,
                    of_metrics,
                    x,
                    y,
                    sample_weight,
                    training=True,
                    optimizer_variables=of_optimizer,
                )
            return loss, (updates, [call.inputs for call in calls])

        calls = self._find_calls(lambda kernels, calls: loss_of(kernels, others, None, calls))
        probes = [jnp.zeros(call.sums.shape, call.sums.dtype) for call in calls]
        # Nothing reads them, so that the compiler leaves them out.
        unread = [jnp.zeros(kernel.shape, kernel.dtype) for kernel in self.kernels.values()]
        differentiate = jax.grad(
            lambda others, probes: loss_of(unread, others, iter(probes), []),
            argnums=(0, 1),
            has_aux=True,
        )
        (gradients, of_sums), (updates, inputs) = differentiate(others, probes)
        loss, predicted, non_trainable, of_metrics = updates
        variables = self.others()
        state = [
            *zip(optimizer.variables, of_optimizer, strict=True),
            *zip(variables, others, strict=True),
        ]
        with keras.StatelessScope(state_mapping=state) as scope:
            sizes = list(self.apply(gradients, variables).values())
        others = [scope.get_current_value(variable) for variable in variables]
        of_optimizer = [scope.get_current_value(variable) for variable in optimizer.variables]
        state = list(zip(model.metrics_variables, of_metrics, strict=True))
        with keras.StatelessScope(state_mapping=state) as scope:
            self.track(loss, x)
            logs = model.compute_metrics(x, y, predicted, sample_weight)
        of_metrics = [scope.get_current_value(variable) for variable in model.metrics_variables]
        if optimizer.loss_scale_factor is not None:
            of_sums = [gradient / optimizer.loss_scale_factor for gradient in of_sums]
        pairs = [
            _pairs(layer, kernel, calls, inputs, of_sums) for layer, kernel in self.kernels.items()
        ]
        return logs, others, (non_trainable, of_optimizer, of_metrics), sizes, pairs

    def _find_calls(self, loss_of) -> list[_Call]:
        """The calls of the layers in a step; refuses kernels that anything else reads."""
        calls: list[_Call] = []
        kernels = self.kernels.values()
        shapes = [jax.ShapeDtypeStruct(kernel.shape, kernel.dtype) for kernel in kernels]
        jaxpr = jax.make_jaxpr(lambda kernels: loss_of(kernels, calls))(shapes).jaxpr
        read = [variable for equation in jaxpr.eqns for variable in equation.invars]
        for layer, variable in zip(self.kernels, jaxpr.invars, strict=True):
            if any(variable is other for other in [*read, *jaxpr.outvars]):
                raise ValueError(used_elsewhere(layer))
        return calls


def _pairs(layer, kernel, calls, inputs, of_sums):
    """Inputs and gradients of the sums of one layer's calls, two lists."""
    own = [index for index, call in enumerate(calls) if call.layer is layer]
    if own:
        return [inputs[index] for index in own], [of_sums[index] for index in own]
    # β-LASSO still pulls the weights of a layer that was not called.
    num_inputs, units = kernel.shape
    dtype = kernel.dtype
    return [jnp.zeros((num_inputs, 1), dtype)], [jnp.zeros((units, 1), dtype)]


def _call(number, probes, calls, layer, kernel, inputs, training=None):
    """`keras.layers.Dense.call` with the product taken over the non-zeros."""
    num_inputs, units = kernel.shape
    transposed = jnp.reshape(inputs, (-1, num_inputs)).T
    shape = units, transposed.shape[1]
    probe = jnp.zeros(shape, transposed.dtype) if probes is None else next(probes)
    sums = _product(kernel)(transposed, number, probe)
    calls.append(_Call(layer, transposed, sums))
    outputs = jnp.reshape(sums.T, (*inputs.shape[:-1], units))
    if layer.bias is not None:
        outputs = keras.ops.add(outputs, layer.bias)
    return layer.activation(outputs)


def _product(kernel: CertifiedKernel) -> Callable:
    """A differentiable function: the units' sums of the inputs.

    It does not read its third argument, whose gradient is that of the sums.
    """

    def on_host(function, num_rows, array, number):
        def run(array, number):
            return function(np.ascontiguousarray(array))

        shape = jax.ShapeDtypeStruct((num_rows, array.shape[1]), array.dtype)
        return jax.pure_callback(run, shape, array, number)

    @jax.custom_vjp
    def product(inputs, number, probe):
        return on_host(kernel.product, kernel.shape[1], inputs, number)

    def forward(inputs, number, probe):
        return product(inputs, number, probe), number

    def backward(number, gradient):
        back = on_host(kernel.input_gradient, kernel.shape[0], gradient, number)
        return back, None, gradient

    product.defvjp(forward, backward)
    return product
