"""What the local and the off-local weights do on their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.embedding import kernels
from tfconvbias.embedding.deviation import embedded_layers
from tfconvbias.embedding.embedded_dense import EmbeddedDense
from tfconvbias.embedding.wide import EmbeddedConv

PARTS = ("local", "off_local")


@contextmanager
@checked
def masked(model: keras.Model, keep: str) -> Iterator[keras.Model]:
    """Set one part of the embedded kernels to zero within a `with` block.

    Biases, the head and all other weights stay. The kernels are kept aside in main memory and put
    back at the end, whatever happens in the block.

    Args:
        model: A model from `embed`, trained or not; it is changed in place.
        keep: `"local"` masks the off-local entries, `"off_local"` the local ones.

    Yields:
        The model.

    Raises:
        ValueError: If `keep` is unknown or the model holds no embedded layer.

    Example:
        >>> from tfconvbias.embedding import embed
        >>> cnn = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3)])
        >>> with masked(embed(cnn), keep="off_local") as silent:
        ...     float(np.abs(silent.predict(np.ones((1, 6, 6, 1)), verbose=0)).max())
        0.0
    """
    if keep not in PARTS:
        raise ValueError(f"`keep` must be one of {PARTS}. Received: keep={keep}")
    kept: list[tuple[keras.Variable, np.ndarray]] = []
    try:
        for layer in embedded_layers(model):
            kernel = ops.convert_to_numpy(layer.kernel)
            kept.append((layer.kernel, kernel))
            kept[-1][0].assign(_part(layer, kernel, keep))
        if not kept:
            raise ValueError(f"The model holds no embedded layer. Received: model={model!r}")
        yield model
    finally:
        for variable, value in kept:
            variable.assign(value)


@checked
def evaluate_parts(
    model: keras.Model, x: Any, y: Any, batch_size: PositiveInt = 500
) -> dict[str, dict[str, float]]:
    """Evaluate a model whole, with its local weights alone and with its off-local weights alone.

    Args:
        model: A compiled model from `embed`.
        x: Inputs.
        y: Targets.
        batch_size: Samples per batch.

    Returns:
        `"full"`, `"local"` and `"off_local"` → what `model.evaluate` returns as a dictionary.

    Raises:
        ValueError: If the model holds no embedded layer.

    Reference:
        d'Ascoli et al., 2019, Figures 7 and 11.
    """
    options = {"batch_size": batch_size, "verbose": 0, "return_dict": True}
    results = {"full": model.evaluate(x, y, **options)}
    for keep in PARTS:
        with masked(model, keep):
            results[keep] = model.evaluate(x, y, **options)
    return results


def _part(layer: keras.layers.Layer, kernel: np.ndarray, keep: str) -> np.ndarray:
    if isinstance(layer, EmbeddedConv):
        off_local = kernel.copy()
        off_local[layer.inner] = 0.0
        return off_local if keep == "off_local" else kernel - off_local
    if not isinstance(layer, EmbeddedDense):
        return kernel if keep == "local" else np.zeros_like(kernel)
    off_local = kernel.copy()
    kernels.set_local_entries(off_local, layer.geometry, 0.0)
    return off_local if keep == "off_local" else kernel - off_local
