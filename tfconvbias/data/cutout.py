"""`Cutout`: a random square of every image set to zero."""

import keras
from keras import ops

from tfconvbias.arguments import NonNegativeInt, checked


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class Cutout(keras.layers.Layer):
    """Sets a square at a random place of each image to zero.

    The centre `(i, j)` is uniform over the pixels, independently for each image, and the square
    covers the rows from `i - length // 2` up to but excluding `i - length // 2 + length`, and the
    columns in the same way. At the edges of the image it is clipped. Meant for normalised images,
    where zero is the mean. Active in training only; otherwise the identity.

    Args:
        length: Side of the square in pixels; 0 makes the layer the identity.
        seed: Integer, or `None` for a seed drawn from Python's generator, which
            `keras.utils.set_random_seed` fixes.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, of any dtype.

    Output shape:
        The shape and dtype of the input.

    Raises:
        ValueError: If `length` is not a non-negative integer, or the input not 4D.

    Example:
        >>> import numpy as np
        >>> from tfconvbias.data import Cutout
        >>> images = np.ones((2, 32, 32, 3), "float32")
        >>> print(Cutout(length=16)(images, training=True).shape)
        (2, 32, 32, 3)

    Reference:
        DeVries and Taylor (2017), "Improved Regularization of Convolutional Neural Networks with
        Cutout", section 3.2; their code is defined for an even `length` only.
    """

    def __init__(self, length: int = 16, seed: NonNegativeInt | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(length, int) or length < 0:
            raise ValueError(
                f"`length` must be a non-negative integer. Received: length={length!r}"
            )
        self.length = length
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs, training=False):
        if not training or self.length == 0:
            return inputs
        batch, height, width, _ = ops.shape(inputs)
        rows = self._covered(batch, height)[:, :, None, None]
        columns = self._covered(batch, width)[:, None, :, None]
        return ops.where(ops.logical_and(rows, columns), ops.zeros_like(inputs), inputs)

    def _covered(self, batch, size):
        # Centres for one axis -> whether each of its positions is covered, (batch, size).
        centres = keras.random.randint((batch, 1), 0, size, seed=self.seed_generator)
        distance = ops.arange(size, dtype="int32") - centres + self.length // 2
        return ops.logical_and(distance >= 0, distance < self.length)

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "length": self.length, "seed": self.seed}
