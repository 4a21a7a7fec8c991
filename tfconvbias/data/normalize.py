"""`Normalize`: pixel values to zero mean and unit variance."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked

PUBLISHED_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
}
"""Mean and standard deviation of the channels, on the scale 0…1, as they are usually published.

The usual deviation for CIFAR-10 is the mean of the deviations of single images; the deviation over
all pixels is (0.2470, 0.2435, 0.2616).
"""


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class Normalize(keras.layers.Layer):
    """Scales pixel values from 0…255 to 0…1 and standardises each channel.

    `output = (input / 255 - mean) / std`, channel by channel, in float32 whatever the layer's
    dtype policy; only the result is cast to the policy's compute dtype.

    Args:
        mean: Mean of each channel on the scale 0…1, a sequence of numbers.
        std: Standard deviation of each channel on the same scale, positive.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(..., channels)`, uint8 or float, values 0…255.

    Output shape:
        The shape of the input, in the policy's compute dtype. The layer has no weights.

    Raises:
        ValueError: If `mean` and `std` are empty, differ in length, are not finite or `std` is not
            positive, or if the input has another number of channels.

    Example:
        >>> import numpy as np
        >>> from tfconvbias.data import Normalize
        >>> layer = Normalize(mean=(0.5,), std=(0.25,))
        >>> print(layer(np.array([[0], [255]], "uint8")).shape)
        (2, 1)
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs):
        # Without autocast, as casting a float input to float16 would come before the arithmetic.
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(
                "`mean` and `std` must hold one number for each channel. "
                f"Received: mean={mean}, std={std}"
            )
        if not (np.isfinite((*self.mean, *self.std)).all() and min(self.std) > 0):
            raise ValueError(
                "`mean` and `std` must be finite and `std` positive. "
                f"Received: mean={mean}, std={std}"
            )

    @classmethod
    def from_data(cls, x: np.ndarray, **kwargs) -> "Normalize":
        """Makes the layer that normalises given images.

        Args:
            x: uint8 images `(..., channels)`, most often a training split. Mean and deviation are
                taken over all pixels, exactly (from histograms).
            **kwargs: Arguments of the constructor.

        Raises:
            ValueError: If `x` is not uint8 or empty, or a channel is constant.
        """
        mean, std = channel_statistics(x)
        return cls(mean, std, **kwargs)

    def build(self, input_shape):
        if input_shape[-1] != len(self.mean):
            raise ValueError(
                f"The input must have {len(self.mean)} channels, as `mean` and `std` have. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.built = True

    def call(self, inputs):
        mean, std = np.array(self.mean), np.array(self.std)
        scale, offset = 1 / (255 * std), -mean / std
        outputs = ops.cast(inputs, "float32")
        shape = ops.shape(inputs)
        if len(shape) > 2 and isinstance(shape[-2], int):
            # TensorFlow's arithmetic is three times as fast on rows of pixels as on the few
            # channels of each.
            outputs = ops.reshape(outputs, (-1, shape[-2] * len(mean)))
            scale, offset = np.tile(scale, shape[-2]), np.tile(offset, shape[-2])
        outputs = outputs * ops.convert_to_tensor(scale, "float32")
        outputs = outputs + ops.convert_to_tensor(offset, "float32")
        return ops.cast(ops.reshape(outputs, shape), self.compute_dtype)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mean": list(self.mean), "std": list(self.std)}


@checked
def channel_statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of uint8 images, on the scale 0…1."""
    if x.dtype != np.uint8 or x.size == 0:
        raise ValueError(
            f"`x` must be a non-empty uint8 array. Received: dtype={x.dtype}, shape={x.shape}"
        )
    return statistics_from_histograms(histograms(x))


def histograms(x: np.ndarray) -> np.ndarray:
    """Returns how often each value occurs in each channel of uint8 images, `(channels, 256)`."""
    counts = np.zeros((x.shape[-1], 256), np.int64)
    for channel in range(x.shape[-1]):
        # In parts, as bincount copies its input to int64.
        flat = x[..., channel].reshape(-1)
        for start in range(0, len(flat), 2**20):
            counts[channel] += np.bincount(flat[start : start + 2**20], minlength=256)
    return counts


def statistics_from_histograms(
    counts: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of channels, on the scale 0…1.

    Args:
        counts: From `histograms`.

    Raises:
        ValueError: If a channel is constant.
    """
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel, histogram in enumerate(counts):
        num = histogram.sum()
        mean = np.dot(histogram, values) / num
        variance = np.dot(histogram, (values - mean) ** 2) / num
        if variance == 0:
            raise ValueError(
                f"Channel {channel} of `x` is constant ({histogram.argmax()}) and cannot be "
                "normalised."
            )
        means.append(float(mean))
        deviations.append(float(variance**0.5))
    return tuple(means), tuple(deviations)
