"""A Keras training step on PyTorch in which some dense layers compute with their non-zeros."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from keras import ops

from tfconvbias.callbacks.certified_step import EmptyingStep, used_elsewhere
from tfconvbias.optimizers import StepSizes


@dataclass
class _Call:
    """One call of a layer: its inputs, and later the gradient of its units' sums, transposed."""

    layer: Any
    inputs: np.ndarray
    gradient: np.ndarray | None = None


class TorchStep(EmptyingStep):
    """The step as PyTorch carries it out, one operation after the other."""

    def __init__(self, model, kernels):
        super().__init__(model, kernels)
        self._is_checked = False

    def __call__(self, data):
        model, optimizer = self.model, self.model.optimizer
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        calls: list[_Call] = []
        if not self._is_checked:
            # An empty kernel would be met by an error that nobody understands.
            for layer, kernel in self.kernels.items():
                self.hold(layer.kernel, kernel.dense())
        model.zero_grad()
        with self.computing(lambda *arguments, **options: _call(calls, *arguments, **options)):
            predicted = self.predict(x)
            loss = model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=True
            )
            self.track(loss, x)
            optimizer.scale_loss(loss).backward()
        if not self._is_checked:
            self._check()
        others = self.others()
        with torch.no_grad():
            sizes = self.apply([variable.value.grad for variable in others], others)
        for layer, kernel in self.kernels.items():
            own = [c for c in calls if c.layer is layer and c.gradient is not None]
            if own:
                # A layer that is called twice has the sum of both calls' gradients.
                inputs = np.concatenate([call.inputs for call in own], axis=1)
                gradient = np.concatenate([call.gradient for call in own], axis=1)
                if optimizer.loss_scale_factor is not None:
                    gradient = gradient / np.asarray(optimizer.loss_scale_factor, gradient.dtype)
                kernel.update(inputs, gradient, StepSizes(*map(ops.convert_to_numpy, sizes[layer])))
        return model.compute_metrics(x, y, predicted, sample_weight=sample_weight)

    def _check(self) -> None:
        for layer in self.kernels:
            if layer.kernel.value.grad is not None:
                raise ValueError(used_elsewhere(layer))
            self.hold(layer.kernel, np.zeros(0, layer.kernel.dtype))
        self._is_checked = True

    def train_function(self) -> Callable:
        return lambda data: self(data[0])

    def hold(self, variable, value: np.ndarray) -> None:
        parameter = variable.value
        parameter.data = torch.from_numpy(value).to(parameter.device)


class _Product(torch.autograd.Function):
    """The units' sums over the non-zeros; remembers the gradient that arrives at them."""

    @staticmethod
    def forward(context, inputs, anchor, kernel, call):
        context.kernel, context.call, context.device = kernel, call, inputs.device
        return torch.from_numpy(kernel.product(call.inputs)).to(inputs.device)

    @staticmethod
    def backward(context, upstream):
        gradient = context.call.gradient = _array(upstream)
        back = None
        if context.needs_input_grad[0]:
            back = torch.from_numpy(context.kernel.input_gradient(gradient)).to(context.device)
        return back, None, None, None


def _call(calls, layer, kernel, inputs, training=None):
    """`keras.layers.Dense.call` with the product taken over the non-zeros."""
    num_inputs, units = kernel.shape
    transposed = inputs.reshape(-1, num_inputs).T
    calls.append(_Call(layer, _array(transposed)))
    # Without it nothing would ask for the gradient of a first layer's sums.
    anchor = torch.zeros((), device=inputs.device, requires_grad=True)
    sums = _Product.apply(transposed, anchor, kernel, calls[-1])
    # In the layout of the dense layer, in whose order dropout draws its numbers.
    outputs = sums.T.contiguous().reshape(*inputs.shape[:-1], units)
    if layer.bias is not None:
        outputs = ops.add(outputs, layer.bias)
    return layer.activation(outputs)


def _array(tensor) -> np.ndarray:
    return np.ascontiguousarray(ops.convert_to_numpy(tensor))
