"""How a two-layer ReLU network uses its units during training."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis import (
    LossDerivatives,
    active_share,
    path_norm_bound,
    weighted_path_norm,
)
from tfconvbias.arguments import NonNegativeFloat, PositiveInt, checked
from tfconvbias.callbacks.measurement import Measurement
from tfconvbias.data import EVALUATION_BATCH_SIZE


@checked
class ActiveUnits(Measurement):
    """Log `active_share`: the share of a layer's units that at least one input activates.

    Where the layer acts on patches, a patch counts as an input.

    Args:
        x: Inputs of the model; they pass through it in one batch.
        layer: Name of a Dense or EinsumDense layer with ReLU, whose input is `(n, d)`, or
            `(n, J, m)` for J patches of size m.
        every: Epochs between two measurements.
    """

    names = ("active_share",)

    def __init__(self, x: Any, layer: str = "hidden", *, every: PositiveInt = 1):
        super().__init__(every)
        self.x, self.layer = x, layer

    def measure(self, logs: dict) -> dict[str, float]:
        """The share of active units of the present model."""
        return {"active_share": active_share(*_hidden_layer(self.model, self.layer, self.x))}


@checked
class PathNorm(Measurement):
    r"""Log the data-weighted `path_norm` of a two-layer ReLU network and its `path_norm_bound`.

    The bound follows from the sharpness: put `Sharpness` before this callback, with the same
    `every`. `analysis.weighted_path_norm` and `analysis.path_norm_bound` give the equations.

    Args:
        x: Training inputs; they pass through the model in one batch.
        y: Training targets.
        hidden: Name of the hidden layer.
        output: Name of the output layer.
        every: Epochs between two measurements.
        sharpness_scale: Factor from the logged sharpness to that of half the mean squared error:
            1 when that is the compiled loss, ½ for Keras' `"mse"`.

    Raises:
        ValueError: When measuring, if the logs hold no `sharpness`.
    """

    names = ("path_norm", "path_norm_bound")

    def __init__(
        self,
        x: Any,
        y: Any,
        hidden: str = "hidden",
        output: str = "output",
        *,
        every: PositiveInt = 1,
        sharpness_scale: float = 1.0,
    ):
        super().__init__(every)
        self.x, self.y = x, y
        self.hidden, self.output = hidden, output
        self.sharpness_scale = sharpness_scale

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Build the loss of this fit's model."""
        self._error = _squared_error(self.model, self.x, self.y, len(self.x))

    def measure(self, logs: dict) -> dict[str, float]:
        """Path norm and bound of the present model."""
        if "sharpness" not in logs:
            raise ValueError(
                "PathNorm needs the `sharpness` of a Sharpness callback before it. "
                f"Received: logs of {sorted(logs)}"
            )
        inputs, kernel, bias = _hidden_layer(self.model, self.hidden, self.x)
        outgoing = ops.convert_to_numpy(self.model.get_layer(self.output).kernel)
        bound = path_norm_bound(
            self.sharpness_scale * logs["sharpness"],
            self._error.value() / 2,
            float(np.linalg.norm(inputs, axis=-1).max()),
        )
        norm = weighted_path_norm(inputs, kernel, bias, outgoing)
        return {"path_norm": norm, "path_norm_bound": bound}


@checked
class GeneralizationGap(Measurement):
    r"""Log `train_error`, `excess_risk` and `gap` of a regression with known noise.

    $$\mathrm{gap} = |\,\mathrm{excess} + \sigma^2 - \mathrm{train}\,|$$

    Both errors are mean squared errors of the present model. The excess risk is measured against
    clean test targets, so that excess + σ² is the expected error on noisy ones.

    Args:
        x_train: Training inputs.
        y_train: Training targets, with noise.
        x_test: Test inputs.
        y_test: Test targets, without noise.
        noise: Standard deviation σ of the training noise.
        every: Epochs between two measurements.
        batch_size: Samples per batch of the evaluation.
    """

    names = ("train_error", "excess_risk", "gap")

    def __init__(
        self,
        x_train: Any,
        y_train: Any,
        x_test: Any,
        y_test: Any,
        noise: NonNegativeFloat,
        *,
        every: PositiveInt = 1,
        batch_size: PositiveInt = EVALUATION_BATCH_SIZE,
    ):
        super().__init__(every)
        self.train, self.test = (x_train, y_train), (x_test, y_test)
        self.noise, self.batch_size = noise, batch_size

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Build the two losses of this fit's model."""
        self._errors = [
            _squared_error(self.model, x, y, self.batch_size) for x, y in (self.train, self.test)
        ]

    def measure(self, logs: dict) -> dict[str, float]:
        """Errors and gap of the present model."""
        train, excess = (error.value() for error in self._errors)
        gap = abs(excess + self.noise**2 - train)
        return {"train_error": train, "excess_risk": excess, "gap": gap}


def _squared_error(model, x, y, batch_size):
    return LossDerivatives(model, x, y, "mse", batch_size=batch_size, include_penalties=False)


def _hidden_layer(model, name, x):
    """Inputs, kernel and bias of a layer, as arrays."""
    layer = model.get_layer(name)
    inputs = keras.Model(model.inputs, layer.input)(ops.convert_to_tensor(x), training=False)
    return tuple(ops.convert_to_numpy(a) for a in (inputs, layer.kernel, layer.bias))
