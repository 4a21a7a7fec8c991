"""Kernels that pass one input channel on unchanged (eq. 24)."""

from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import NonNegativeFloat, checked
from tfconvbias.surgery.kernel_rule import KernelRule
from tfconvbias.surgery.plan import make_plan


@checked
def identity_kernels(
    model: keras.Model, tolerance: NonNegativeFloat = 1e-3, opaque: tuple[Any, ...] = ()
) -> dict[str, int]:
    r"""Counts, per layer, the kernels that do nothing but hand one channel on.

    ```
    I_pqr = 1 where p, q are the spatial centre and r = r', else 0       (eq. 24)
    ```

    The draft asks whether a plain network, which has no shortcut around a layer, learns such
    kernels for layers that it does not need. A kernel counts if one weight at the tap that reads
    the output's own place is larger in magnitude than all others together by a factor of
    1/`tolerance` at least: a scale other than 1 is undone by what follows (a BatchNormalization,
    the next layer), so it is let through. A layer in which the live kernels are identities of
    different channels has disappeared.

    Args:
        model: A functional or sequential model.
        tolerance: Largest ratio of the ℓ2 norm of all other weights to the one weight.
        opaque: Names or classes of layers that are unknown, to be taken as they are.

    Returns:
        For each convolution with stride 1 (by name) the number of identity kernels.

    Example:
    >>> import keras
    >>> layer = keras.layers.Conv2D(3, 3, padding="same", use_bias=False, name="same")
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    >>> kernel = np.zeros((3, 3, 3, 3), "float32")
    >>> kernel[1, 1] = np.eye(3)
    >>> layer.set_weights([kernel])
    >>> identity_kernels(model)
    {'same': 3}
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"`tolerance` must be in [0, 1). Received: tolerance={tolerance}")
    return {
        rule.call.name: count
        for rule in make_plan(model, opaque=opaque).kernel_rules()
        if (count := _count(rule, tolerance)) is not None
    }


def _count(rule: KernelRule, tolerance: float) -> int | None:
    windows = rule.view.windows
    if not windows or not rule.view.croppable or rule.view.depthwise:
        return None
    if any(window.stride != 1 for window in windows):
        return None
    is_causal = rule.operation.padding == "causal"
    if not is_causal and any(w.size % 2 == 0 and w.dilation > 1 for w in windows):
        return 0  # no tap is on the output's own place
    sizes = tuple(window.size for window in windows)
    # A causal kernel reads the output's own place with its last tap.
    own = tuple(size - 1 if is_causal else (size - 1) // 2 for size in sizes)
    centre = np.ravel_multi_index(own, sizes)
    kernel = np.abs(rule.view.kernel.astype("float64"))
    largest = kernel[centre].max(axis=0)
    rest = np.maximum((kernel**2).sum(axis=(0, 1)) - largest**2, 0.0)
    return int(((largest > 0) & (np.sqrt(rest) <= tolerance * largest)).sum())
