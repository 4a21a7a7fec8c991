"""What a certified training step is on every backend: some kernels of a model are held apart."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.callbacks.certified_kernel import CertifiedKernel


class CertifiedStep(ABC):
    """`keras.Model.train_step` with the kernels of some dense layers held by `CertifiedKernel`s.

    The model, its optimizer and all other variables stay what they are.

    Args:
        model: A compiled `keras.Model` whose optimizer is a built `BetaLasso`.
        kernels: Maps each layer to its kernel.
    """

    def __init__(self, model, kernels: dict[Any, CertifiedKernel]):
        self.model = model
        self.kernels = kernels

    @abstractmethod
    def __call__(self, *arguments):
        """What the backend's `train_step` does with the same arguments."""

    @abstractmethod
    def take_out(self) -> None:
        """Move the kernels from the layers' variables to the certified kernels."""

    @abstractmethod
    def put_back(self) -> None:
        """Write the kernels, as trained so far, to the layers' variables."""

    @abstractmethod
    def recover(self) -> None:
        """Give the model's other variables their values after an error in a step."""

    def train_function(self) -> Callable:
        """What `model.make_train_function` makes of the step, without Keras' compiler."""
        model = self.model
        compiled, jit_compile = model.train_function, model.jit_compile
        model.train_step, model.jit_compile = self, False
        try:
            model.make_train_function(force=True)
            return model.train_function
        finally:
            del model.train_step
            model.train_function, model.jit_compile = compiled, jit_compile

    @contextmanager
    def computing(self, call: Callable):
        """Inside, each layer is called as `call(layer, kernel, inputs, training=None)`."""
        for layer, kernel in self.kernels.items():
            layer.call = functools.partial(call, layer, kernel)
        try:
            yield
        finally:
            for layer in self.kernels:
                del layer.call

    def track(self, loss, x) -> None:
        """Counts the loss of a batch in the model's metrics."""
        num_examples = ops.shape(keras.tree.flatten(x)[0])[0]
        for metric in self.model.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=num_examples)

    def others(self) -> list[keras.Variable]:
        """The variables that the optimizer itself trains."""
        certified = [layer.kernel for layer in self.kernels]
        return [v for v in self.model.trainable_variables if not any(v is k for k in certified)]

    def apply(self, gradients: list, others: list[keras.Variable]) -> dict[Any, Any]:
        """Trains the others; returns what `BetaLasso.step_sizes` says for each of the layers."""
        optimizer = self.model.optimizer
        # Before `apply`, which moves on to the next iteration of the schedules.
        sizes = {layer: optimizer.step_sizes(layer.kernel) for layer in self.kernels}
        if others:
            optimizer.apply(gradients, others)
        else:
            optimizer.iterations.assign_add(1)
        return sizes


class EmptyingStep(CertifiedStep):
    """A step that empties the kernels' variables, which cost no memory while they are taken out.

    Args:
        model: As for `CertifiedStep`.
        kernels: As for `CertifiedStep`.
    """

    def __init__(self, model, kernels):
        super().__init__(model, kernels)
        self.is_out = False

    @abstractmethod
    def hold(self, variable, value: np.ndarray) -> None:
        """Give a variable a value of any shape, which frees the memory of what it held."""

    def take_out(self) -> None:
        if not self.is_out:
            self.is_out = True
            for layer, kernel in self.kernels.items():
                kernel.load(ops.convert_to_numpy(layer.kernel))
                self.hold(layer.kernel, np.zeros(0, layer.kernel.dtype))
                # A checkpoint in the middle of an epoch holds the kernel as it is.
                layer.save_own_variables = functools.partial(self._save, layer)

    def put_back(self) -> None:
        if self.is_out:
            self.is_out = False
            for layer, kernel in self.kernels.items():
                self.hold(layer.kernel, kernel.dense())
                del layer.save_own_variables

    def recover(self) -> None:
        """Nothing to do: the variables hold their values."""

    def _save(self, layer, store) -> None:
        self.hold(layer.kernel, self.kernels[layer].dense())
        type(layer).save_own_variables(layer, store)
        self.hold(layer.kernel, np.zeros(0, layer.kernel.dtype))

    def predict(self, x):
        """The model's outputs in training."""
        takes_training = "training" in inspect.signature(self.model.call).parameters
        return self.model(x, training=True) if takes_training else self.model(x)


def used_elsewhere(layer) -> str:
    """The message of an error: the kernel is read by something else than its layer."""
    return (
        f"The kernel of layer {layer.name!r} enters the loss other than through the layer's own "
        "product, so that its zeros have gradients that the certificate does not know. Leave the "
        "layer out by `layers`."
    )


def make_step(model, kernels: dict[Any, CertifiedKernel]) -> CertifiedStep:
    """The step of the current backend.

    Args:
        model: A compiled `keras.Model` whose optimizer is a built `BetaLasso`.
        kernels: Maps each layer to its kernel.
    """
    step: type[CertifiedStep]
    if keras.config.backend() == "torch":
        from tfconvbias.callbacks.certified_torch import TorchStep as step
    elif keras.config.backend() == "jax":
        from tfconvbias.callbacks.certified_jax import JaxStep as step
    else:
        from tfconvbias.callbacks.certified_tensorflow import TensorFlowStep as step
    return step(model, kernels)
