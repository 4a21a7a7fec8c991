"""The fixed permutation of all pixels as a layer of the compiled step."""

import keras
from keras import ops

from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.data.image_dataset import pixel_permutation


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class PermutePixels(keras.layers.Layer):
    """Shuffles the positions of the pixels, in the same way in every image, also at inference.

    Does to a batch what `data.permute_pixels` with the same seed does to an array. After the
    augmentation, it permutes pictures that were moved, flipped and cut as the unpermuted ones were,
    so that a network that ignores places has the same problem as before.

    Args:
        seed: Non-negative integer that fixes the permutation, together with the image size.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)` of known size.

    Output shape:
        The same.

    Example:
        >>> import numpy as np
        >>> from tfconvbias.data import PermutePixels, permute_pixels
        >>> x = np.arange(12, dtype="float32").reshape(1, 2, 2, 3)
        >>> bool(np.all(ops.convert_to_numpy(PermutePixels(5)(x)) == permute_pixels(x, 5)))
        True
    """

    def __init__(self, seed: NonNegativeInt, **kwargs):
        super().__init__(**kwargs)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"`seed` must be a non-negative integer. Received: seed={seed!r}")
        self.seed = seed

    def build(self, input_shape):
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                f"{type(self).__name__} works on images (batch, height, width, channels) of known "
                f"size. Received: input_shape={tuple(input_shape)}"
            )
        height, width = input_shape[1:3]
        self._order = pixel_permutation(height, width, self.seed).astype("int32")

    def call(self, inputs):
        height, width, channels = inputs.shape[1:]
        flat = ops.reshape(inputs, (-1, height * width, channels))
        permuted = ops.take(flat, ops.convert_to_tensor(self._order), axis=1)
        return ops.reshape(permuted, (-1, height, width, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
