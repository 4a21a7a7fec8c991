r"""Two-layer ReLU networks that differ in locality and weight sharing alone."""

from typing import Literal

import keras
from keras import layers
from keras.initializers import RandomNormal

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked

Connectivity = Literal["dense", "local", "conv"]


@checked
def TwoLayerReLU(
    width: PositiveInt,
    *,
    connectivity: Connectivity,
    dimension: int,
    patch_size: PositiveInt | None = None,
    seed: NonNegativeInt | None = None,
    name: str | None = None,
) -> keras.Model:
    r"""A two-layer ReLU network on $x \in \mathbb R^d$, seen as J patches of size m, d = J m.

    $$\text{conv:}\quad f(x) = \sum_{k} v_k \frac1J \sum_{l}
    \mathrm{ReLU}(w_k^\top \pi_l x + b_k) + \beta_0$$

    - `"conv"` is local and shares its weights over patches.
    - `"local"` has its own $w_{k,l}, b_{k,l}$ at each patch and shares $v_k$; with all of them
      tied it equals `"conv"`.
    - `"dense"` is $\sum_k v_k \mathrm{ReLU}(w_k^\top x + b_k) + \beta_0$; one patch, m = d, makes
      all three the same.

    The hidden layer is called `"hidden"`, the last one `"output"`. The patches do not overlap, so
    that the convolution is one matrix product of shape `(n J, m)` with `(m, K)`.

    Args:
        width: K, the number of units (of filters for `"local"` and `"conv"`).
        connectivity: `"dense"`, `"local"` or `"conv"`.
        dimension: d.
        patch_size: m, a divisor of `dimension`. Not for `"dense"`.
        seed: Seed of the initial weights: w ~ N(0, 2/fan-in) (He), v ~ N(0, 1/K), b = β₀ = 0.
        name: Name of the model.

    Input shape: `(n, d)`. Output shape: `(n, 1)`. Parameters: `"dense"` (d + 2) K + 1,
    `"local"` (d + J + 1) K + 1, `"conv"` (m + 2) K + 1.

    Raises:
        ValueError: For an unknown connectivity, a width below 1 or a patch size that does not
            divide the dimension.

    Example:
    >>> TwoLayerReLU(128, connectivity="conv", dimension=40, patch_size=4).count_params()
    769

    Reference: arXiv 2603.04807, which writes the bias as a threshold, −b.
    """
    if connectivity not in ("dense", "local", "conv"):
        raise ValueError(
            "`connectivity` must be 'dense', 'local' or 'conv'. "
            f"Received: connectivity={connectivity!r}"
        )
    if width < 1:
        raise ValueError(f"`width` must be at least 1. Received: width={width}")
    if connectivity == "dense":
        if patch_size is not None:
            raise ValueError(f"A dense network has no patches. Received: patch_size={patch_size}")
    elif patch_size is None or patch_size < 1 or dimension % patch_size:
        raise ValueError(
            "`patch_size` must divide `dimension`. "
            f"Received: patch_size={patch_size}, dimension={dimension}"
        )
    fan_in = patch_size or dimension
    he = RandomNormal(stddev=(2.0 / fan_in) ** 0.5, seed=seed)
    outgoing = RandomNormal(stddev=width**-0.5, seed=None if seed is None else seed + 1)

    inputs = keras.Input((dimension,))
    if connectivity == "dense":
        hidden = layers.Dense(width, activation="relu", kernel_initializer=he, name="hidden")(
            inputs
        )
    else:
        num_patches = dimension // fan_in
        patches = layers.Reshape((num_patches, fan_in), name="patches")(inputs)
        if connectivity == "conv":
            layer = layers.Dense(width, activation="relu", kernel_initializer=he, name="hidden")
        else:
            layer = layers.EinsumDense(
                "nlm,lmk->nlk",
                output_shape=(num_patches, width),
                bias_axes="lk",
                activation="relu",
                kernel_initializer=he,
                name="hidden",
            )
        hidden = layers.GlobalAveragePooling1D(name="average")(layer(patches))
    outputs = layers.Dense(1, kernel_initializer=outgoing, name="output")(hidden)
    return keras.Model(inputs, outputs, name=name or f"two_layer_relu_{connectivity}")


@keras.saving.register_keras_serializable(package="tfconvbias")
class HalfMeanSquaredError(keras.losses.Loss):
    r"""$L = \frac{1}{2n} \sum_i (f(x_i) - y_i)^2$.

    The edge of stability, sharpness 2/η, is in the units of the loss that is minimised: training
    with η = 0.4 on this loss equals training with η = 0.2 on Keras' `"mse"`; their edges are 5 and
    10.
    """

    def call(self, y_true, y_pred):
        """Half the squared error of each sample."""
        return keras.losses.mean_squared_error(y_true, y_pred) / 2
