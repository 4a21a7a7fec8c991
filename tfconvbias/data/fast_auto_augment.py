"""Learned augmentation policies as layers of the compiled step."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.data.augmentation_policy import Policy, read_policy
from tfconvbias.data.image_operations import apply_operations
from tfconvbias.data.operation_tables import OperationTables, operation_tables

DRAWS_PER_STEP = 4
"""Random numbers of a step: whether it is kept, its sign, and the place of Cutout (2)."""


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class FastAutoAugment(keras.layers.Layer):
    """Applies to each image one sub-policy of a policy, drawn at random; active in training only.

    A sub-policy is a short list of steps `[operation, probability, level]`. For each image one
    sub-policy is drawn uniformly. Its steps run in order, each with its own probability. The level
    in [0, 1] sets the magnitude `v = level·(high − low) + low`, and where the operation is
    mirrored the sign of v is flipped with probability 1/2:

    | operation | low … high | what it does |
    |---|---|---|
    | ShearX, ShearY | ±(−0.3 … 0.3) | x + v y, or y + v x |
    | TranslateX, TranslateY | ±(−0.45 … 0.45) | shift by v times width or height |
    | Rotate | ±(−30 … 30) | degrees around the middle |
    | AutoContrast, Equalize, Invert | unused | each channel by itself |
    | Solarize | 0 … 256 | invert the values v and above |
    | Posterize | 4 … 8 | keep the first int(v) bits |
    | Contrast, Color, Brightness, Sharpness | 0.1 … 1.9 | Pillow's enhancement factor |
    | Cutout | 0 … 0.2 | square of side v times width around a random place, (125, 123, 114) |

    Moved images are sampled at the nearest pixel; what lies outside the image is black.

    Every operation equals Pillow's, bit for bit, where the backend rounds `a + b·c` twice as
    Pillow does. Compilers that fuse it (XLA on CPU) may put a value of Contrast, Color or
    Sharpness one level off where the exact one is within 2⁻¹⁶ of a whole number.

    The published pipeline is: policy, random crop, random flip, normalisation, Cutout of zeros.
    This layer is the policy, so it comes first, on raw images.

    Args:
        policy: List of sub-policies, or the path of a JSON file with such a list. The layer's
            configuration holds the list, so a saved model does not need the file.
        seed: Seed of the draws; `None` for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, 3)`, values 0…255 of any dtype; fractions are cut off.

    Output shape:
        The same shape and dtype. All values are exact in float16 and bfloat16 as well.

    Raises:
        ValueError: If the policy cannot be read, an operation is unknown, a level or a probability
            lies outside [0, 1], a sub-policy is empty, or the images are not channels-last RGB.

    Example:
        >>> augment = FastAutoAugment([[["Invert", 1.0, 0.5]]])
        >>> int(ops.max(augment(np.full((1, 4, 4, 3), 255, "uint8"), training=True)))
        0

    Reference:
        Lim et al., "Fast AutoAugment", 2019; Cubuk et al., "AutoAugment", 2019, for the
        operations. The magnitudes are those of the published policies' search.
    """

    def __init__(
        self,
        policy: str | os.PathLike | Sequence,
        seed: NonNegativeInt | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.policy: Policy = read_policy(policy)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.num_steps = max(len(part) for part in self.policy)

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] != 3 or None in input_shape[1:3]:
            raise ValueError(
                f"{type(self).__name__} works on images (batch, height, width, 3) of known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        # A last row, beyond the sub-policies, does nothing: for steps that are not kept.
        self._tables = [
            operation_tables(
                [part[step][::2] if step < len(part) else None for part in self.policy] + [None],
                *input_shape[1:3],
            )
            for step in range(self.num_steps)
        ]
        self._probabilities: Any = np.zeros((len(self.policy), self.num_steps), "float32")
        for number, part in enumerate(self.policy):
            self._probabilities[number, : len(part)] = [probability for _, probability, _ in part]

    def call(self, inputs, training=None):
        if not training:
            return inputs
        num_parts = len(self.policy)
        draw = keras.random.uniform(
            (ops.shape(inputs)[0],), dtype="float32", seed=self.seed_generator
        )
        part = ops.minimum(ops.cast(draw * num_parts, "int32"), num_parts - 1)
        draws = keras.random.uniform(
            (ops.shape(inputs)[0], DRAWS_PER_STEP * self.num_steps),
            dtype="float32",
            seed=self.seed_generator,
        )
        return self.apply_sub_policies(inputs, part, draws)

    def apply_sub_policies(self, images: Any, part: Any, draws: Any) -> Any:
        """Applies given sub-policies with given random numbers.

        Args:
            images: `(batch, height, width, 3)`, values 0…255; the layer must be built.
            part: `(batch,)` int32, the index of each image's sub-policy.
            draws: `(batch, 4 · num_steps)` float32, uniform in [0, 1): four numbers per step, which
                say whether the step is kept, its sign, and the place of Cutout.

        Returns:
            Images of the same shape and dtype.
        """
        pixels, draws = ops.cast(images, "int32"), ops.convert_to_tensor(draws)
        probabilities = ops.take(ops.convert_to_tensor(self._probabilities), part, axis=0)
        for step, tables in enumerate(self._step_tables()):
            draw = draws[:, DRAWS_PER_STEP * step : DRAWS_PER_STEP * (step + 1)]
            is_kept = draw[:, 0] < probabilities[:, step]
            is_flipped = ops.cast(draw[:, 1] < 0.5, "int32")
            rows = 2 * ops.where(is_kept, part, len(self.policy)) + is_flipped
            pixels = apply_operations(pixels, tables, rows, draw[:, 2:])
        return ops.cast(pixels, images.dtype)

    def _step_tables(self) -> list[OperationTables]:
        """The tables of each step."""
        return self._tables

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        policy = [[list(step) for step in part] for part in self.policy]
        return {**super().get_config(), "policy": policy, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        # A saved model holds its policy. One that names a file would read it on this machine.
        if isinstance(config.get("policy"), str | os.PathLike):
            raise ValueError(
                f"The configuration of {cls.__name__} must hold a policy, not the name of a file. "
                f"Received: policy={config['policy']!r}"
            )
        return super().from_config(config)


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class ImageOperation(FastAutoAugment):
    """Applies one operation of `FastAutoAugment` to each image, with a given probability.

    It equals a `FastAutoAugment` whose policy is one sub-policy of one step.

    Args:
        operation: Name of the operation, such as `"Rotate"`.
        level: Number in [0, 1] that sets the magnitude; mirrored operations draw its sign for each
            image.
        probability: Probability in [0, 1] with which an image is changed.
        seed: Seed of the draws; `None` for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, 3)`, values 0…255 of any dtype.

    Output shape:
        The same shape and dtype.

    Raises:
        ValueError: If the operation is unknown, the level or the probability lies outside [0, 1],
            or the images are not channels-last RGB.

    Example:
        >>> solarize = ImageOperation("Solarize", level=0.5)
        >>> images = np.array([100, 128, 200], "uint8").reshape(1, 1, 1, 3)
        >>> ops.convert_to_numpy(solarize(images, training=True)).ravel().tolist()
        [100, 127, 55]
    """

    def __init__(
        self,
        operation: str,
        level: float,
        probability: float = 1.0,
        seed: NonNegativeInt | None = None,
        **kwargs: Any,
    ):
        super().__init__([[[operation, probability, level]]], seed=seed, **kwargs)

    def get_config(self):
        config = super().get_config()
        (((operation, probability, level),),) = config.pop("policy")
        return {**config, "operation": operation, "level": level, "probability": probability}
