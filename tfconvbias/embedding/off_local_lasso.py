"""β-LASSO on what training has added to a convolution."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.embedding import kernels
from tfconvbias.embedding.deviation import embedded_layers
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.wide import EmbeddedConv
from tfconvbias.graph import ConvGeometry
from tfconvbias.optimizers import BetaLasso
from tfconvbias.optimizers.beta_lasso import hard_threshold_step, soft_threshold_step


@checked
def off_local_mask(layer: keras.layers.Layer) -> np.ndarray:
    """For each entry of an embedded layer's kernel, whether the convolution did not have it.

    Args:
        layer: Built `EmbeddedDense` or `EmbeddedConv`.

    Returns:
        Booleans of the kernel's shape.

    Example:
        >>> from tfconvbias.embedding import embed
        >>> cnn = keras.Sequential([keras.Input((3, 1)), keras.layers.Conv1D(1, 2, name="c")])
        >>> off_local_mask(embed(cnn).get_layer("c")).astype(int).tolist()
        [[0, 1], [0, 0], [1, 0]]
    """
    mask = np.ones(tuple(layer.kernel.shape), bool)
    if isinstance(layer, EmbeddedConv):
        mask[layer.inner] = False
    else:
        kernels.set_local_entries(mask, layer.geometry, False)
    return mask


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class OffLocalBetaLasso(BetaLasso):
    r"""β-LASSO that penalizes the off-local entries of embedded kernels and nothing else.

    With $m$ one off the convolution's support and zero on it, one step is

    $$\theta' = \theta - \eta\,(g + \lambda\, m \operatorname{sign}\theta), \qquad
    \theta \leftarrow 0 \text{ where } |\theta'| < \beta \lambda\, m$$

    (`threshold="soft"`: shrunk by $\beta \lambda\, m$). Everything else takes a step of plain
    gradient descent. With a penalty high enough the model stays a locally connected network.

    Args:
        learning_rate: η.
        l1: λ.
        beta: β.
        layers: Path of each penalized kernel → configuration of its layer, as `penalized_layers`
            gives it.
        threshold: `"hard"` or `"soft"`.
        **kwargs: Other arguments of `BetaLasso`, except for those that choose variables, and
            `momentum`.

    Raises:
        ValueError: If `momentum` is given, or a path is not among the trained variables.

    Example:
        >>> from tfconvbias.embedding import embed
        >>> cnn = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3, name="c")])
        >>> fcn = embed(cnn)
        >>> optimizer = OffLocalBetaLasso(0.1, 1e-4, 50, penalized_layers(fcn))
        >>> fcn.compile(optimizer, "mse")

    Reference:
        The penalty and threshold are those of Neyshabur 2020, Algorithm 1. To put them on the
        off-local weights of d'Ascoli et al. 2019 is ours.
    """

    def __init__(
        self,
        learning_rate: Any,
        l1: Any,
        beta: Any,
        layers: Mapping[str, dict],
        threshold: Literal["hard", "soft"] = "hard",
        name: str = "off_local_beta_lasso",
        **kwargs: Any,
    ):
        if kwargs.get("momentum"):
            raise ValueError(
                f"`momentum` is not possible here. Received: momentum={kwargs['momentum']}"
            )
        kwargs["penalized"] = "|".join(f"^{re.escape(path)}$" for path in layers)
        super().__init__(learning_rate, l1, beta, threshold=threshold, name=name, **kwargs)
        self.penalized_layers = dict(layers)
        # In a holder of its own, since Keras would track what it takes for state.
        self._masks: _Masks = _Masks()

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        for number, variable in enumerate(variables):
            config = self.penalized_layers.get(variable.path)
            if config is not None:
                self._masks.of[number] = _mask_of(config)

    def update_step(self, gradient, variable, learning_rate):
        mask = self._masks.of.get(self._get_variable_index(variable))
        sizes = self.step_sizes(variable, learning_rate)
        if mask is None or sizes is None:
            super().update_step(gradient, variable, learning_rate)
            return
        rate, pull, cutoff = sizes
        chosen = ops.cast(mask, variable.dtype)
        step = hard_threshold_step if self.threshold == "hard" else soft_threshold_step
        gradient = ops.cast(ops.convert_to_tensor(gradient), variable.dtype)
        weights = ops.convert_to_tensor(variable)
        self.assign(variable, step(weights, gradient, rate, pull * chosen, cutoff * chosen))

    def get_config(self):
        return {**super().get_config(), "layers": self.penalized_layers}


class _Masks:
    """The mask of each penalized variable by its position."""

    def __init__(self):
        self.of: dict[int, np.ndarray] = {}


@checked
def penalized_layers(model: keras.Model) -> dict[str, dict]:
    """Path of each embedded kernel of a model → its layer's geometry, for `OffLocalBetaLasso`.

    Raises:
        ValueError: If the model holds no embedded dense or wide layer.
    """
    found = {}
    for layer in embedded_layers(model):
        if isinstance(layer, EmbeddedDense | EmbeddedConv):
            size = layer.kernel_size if isinstance(layer, EmbeddedConv) else None
            found[layer.kernel.path] = {
                # As a saved file gives it back, with lists in place of tuples.
                "geometry": json.loads(json.dumps(layer.geometry.to_dict())),
                "kernel_size": None if size is None else list(size),
            }
    if not found:
        raise ValueError(
            f"The model holds no embedded dense or wide layer. Received: model={model!r}"
        )
    return found


def _mask_of(config: Mapping[str, Any]) -> np.ndarray:
    geometry = ConvGeometry(**config["geometry"])
    if config["kernel_size"] is None:
        mask = np.ones(geometry.matrix_shape, bool)
        kernels.set_local_entries(mask, geometry, False)
        return mask
    layer = EmbeddedConv(geometry, tuple(config["kernel_size"]), use_bias=False)
    layer.build((None, *geometry.input_shape))
    return off_local_mask(layer)
