"""From a model with zeroed channels to a model without them."""

import warnings
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph import Call, Rebuilder
from tfconvbias.graph import fold_normalization as folded
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.plan import Plan, make_plan, warn_of_last_kernels

_OWN_PREFIX = "tfconvbias>"


@checked
def compact(
    model: keras.Model,
    opaque: tuple[Any, ...] = (),
    fold_normalization: bool = False,
    approximate_borders: Any = None,
):
    """Returns a plain Keras model that computes the same function with fewer channels.

    Channels that are zero, or that nothing reads, are cut out of every layer: a channel of a
    residual stream when it is dead in all that write to it, a residual branch whose last
    convolution is dead, or that reads and emits zeros only, as a whole.

    Constants that dead channels emit (a BatchNormalization of zeros gives β − γμ/√(σ²+ε)) are
    carried exactly: they are added to the bias of the layers that read them, or become a
    `Rescaling` that shifts where they are a whole term of a sum. A convolution with zero padding
    keeps one constant channel, whose kernel stands for those of all its constant channels; layers
    that keep channels apart (depthwise and separable convolutions) keep each of them.

    Kernels are cut to the largest live size in their layer, with the padding made explicit. Models
    nested in the model are dissolved into it. The result has no custom code: penalties of this
    package are left out of its layers; it is not compiled (train on with a fresh optimizer).

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`; it is not modified.
        opaque: Names or classes of layers that the walk does not know, to be kept as they are with
            all channels that they read and write. `tfconvbias.graph.register` makes a class known.
        fold_normalization: Whether a BatchNormalization that follows a convolution or dense layer
            directly is multiplied into its kernel, as it stands at inference. That model is for
            inference: what it would learn next is no longer normalized.
        approximate_borders: Inputs of the model, such as a batch of images. If they are given, all
            constants are added to biases as if there were no padding, which saves the channels
            that are kept for the borders; a warning tells by how much the outputs for these
            inputs change.

    Returns:
        A functional `keras.Model`: its outputs differ from the model's by rounding only, unless
        borders are approximated.

    Raises:
        ValueError: If the model's graph cannot be read, or a layer is unknown; the message names
            the layer.

    Warns:
        UserWarning: If a layer has no live kernel left but no shortcut goes around it; if borders
            are approximated.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="first"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2)])
    >>> kernel, bias = model.get_layer("first").get_weights()
    >>> kernel[..., 1:3] = 0
    >>> model.get_layer("first").set_weights([kernel, bias])
    >>> compact(model).get_layer("first").filters
    2
    """
    if fold_normalization:
        model = folded(model, keep=opaque)
    plan = make_plan(model, opaque=opaque, ignore_borders=approximate_borders is not None)
    warn_of_last_kernels(plan)
    smaller = _Compacting(plan).model()
    if approximate_borders is not None:
        warnings.warn(
            "Constants were added to biases as if there were no padding. For the inputs given as "
            "`approximate_borders` the largest change of an output is "
            f"{_largest_change(model, smaller, approximate_borders):.1e} of the largest output.",
            stacklevel=2,
        )
    return smaller


def _largest_change(model, other, inputs) -> float:
    """The largest difference of two models' outputs, relative to the largest output."""
    changes = []
    results = (keras.tree.flatten(one(inputs, training=False)) for one in (model, other))
    for before, after in zip(*results, strict=True):
        left, right = (to_numpy(result).astype("float64") for result in (before, after))
        changes.append(np.abs(left - right).max() / max(np.abs(left).max(), 1e-30))
    return float(max(changes))


class _Compacting(Rebuilder):
    """Makes the calls of a plan again, on what is kept."""

    def __init__(self, plan: Plan):
        super().__init__(plan.graph)
        self._plan = plan

    def make(self, number: int, call: Call) -> Any:
        """The outputs of a call by its rule; nothing where no output depends on it."""
        if number not in self._plan.used and call.inputs:
            return ()
        return self._plan.rules[number].rebuild(self._plan.kept, self.tensors, self)

    def layer(self, call: Call, config=None, weights=None) -> Any:
        config = call.operation.get_config() if config is None else config
        return super().layer(call, without_penalties(config), weights)

    def name_for(self, call: Call) -> str:
        """Always with the names of the models around, which are gone."""
        return self.name(call.name)


def without_penalties(config: dict) -> dict:
    """A layer's configuration without this package's regularizers, which a plain model lacks."""
    return {
        key: None
        if isinstance(value, dict)
        and str(value.get("registered_name", "")).startswith(_OWN_PREFIX)
        and key.endswith("_regularizer")
        else value
        for key, value in config.items()
    }
