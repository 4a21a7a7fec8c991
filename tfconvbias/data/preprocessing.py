"""From uint8 images to network input: augmentation policies and the layer that holds the stack."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np

from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.data.augmentation_policy import PUBLISHED_POLICIES
from tfconvbias.data.cutout import Cutout
from tfconvbias.data.fast_auto_augment import FastAutoAugment
from tfconvbias.data.image_dataset import ImageDataset
from tfconvbias.data.normalize import PUBLISHED_STATISTICS, Normalize
from tfconvbias.data.pad_crop import PadCrop
from tfconvbias.data.permuted_pixels import PermutePixels


class AugmentationLayers(NamedTuple):
    """Augmentation layers before and after the normalisation."""

    before: tuple[keras.layers.Layer, ...]
    after: tuple[keras.layers.Layer, ...]


class _Options(NamedTuple):
    dataset: str
    padding: int
    cutout_length: int
    num_operations: int
    factor: float


def _rand_augment(options: _Options, seed: int | None) -> keras.layers.Layer:
    # float32 whatever the global policy: pixel values come before the normalisation.
    return keras.layers.RandAugment(
        value_range=(0, 255),
        num_ops=options.num_operations,
        factor=options.factor,
        seed=seed,
        data_format="channels_last",
        dtype="float32",
    )


def _fast_auto_augment(options: _Options, seed: int | None) -> keras.layers.Layer:
    return FastAutoAugment(PUBLISHED_POLICIES[_policy_of(options.dataset)], seed=seed)


def _policy_of(dataset: str) -> str:
    return "svhn" if dataset == "svhn" else "cifar10"


# A stage's seed depends on its place here: a new one comes last.
_STAGES = ("randaugment", "crop", "flip", "cutout", "fast_autoaugment")
# Crop and flip are one layer between them.
_POLICIES: dict[str, Callable[[_Options, int | None], keras.layers.Layer]] = {
    "randaugment": _rand_augment,
    "fast_autoaugment": _fast_auto_augment,
}

AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "flip": ("flip",),
    "crop": ("crop",),
    "flip_crop": ("crop", "flip"),
    "flip_crop_cutout": ("crop", "flip", "cutout"),
    "randaugment": ("randaugment", "crop", "flip"),
    "randaugment_cutout": ("randaugment", "crop", "flip", "cutout"),
    "fast_autoaugment": ("fast_autoaugment", "crop", "flip", "cutout"),
}
"""The named augmentations and their stages, in order."""

CUTOUT_LENGTHS = {"cifar10": 16, "svhn": 20}
"""Side of Cutout's square that was published with each policy."""


@checked
def augmentation(
    policy: str | keras.layers.Layer = "flip_crop",
    *,
    dataset: str = "cifar10",
    padding: int = 4,
    cutout_length: int | None = None,
    num_operations: NonNegativeInt = 2,
    factor: float = 0.5,
    seed: NonNegativeInt | None = None,
) -> AugmentationLayers:
    """Makes the layers of an augmentation: policy, crop, flip and, after normalisation, cutout.

    They are active in training only and draw independently for each image. Keras' `RandAugment` is
    the exception: it draws the operations once for each batch and equalises the batch as a whole.
    XLA cannot compile it, nor a model that contains it; on two cores a step on 512 images of
    32×32×3 takes about 0.2 s longer with TensorFlow, and seconds longer with JAX.

    Args:
        policy: A key of `AUGMENTATIONS`: `"none"`, `"flip"`, `"crop"`, `"flip_crop"`,
            `"flip_crop_cutout"`, `"randaugment"`, `"randaugment_cutout"`, `"fast_autoaugment"`; the
            last three crop and flip as well, and the last is the published pipeline: policy,
            crop, flip, normalisation, cutout, on SVHN's digits too. Or a Keras layer from images to
            images with values 0…255, after which come crop, flip and cutout; the path of a `.json`
            file stands for `FastAutoAugment` of the policy in it.
        dataset: What is augmented: `"svhn"` has the policy found on SVHN, everything else the one
            found on CIFAR-10.
        padding: Pixels of zeros that `PadCrop` adds on each side.
        cutout_length: Side of `Cutout`'s square, in pixels; by default 20 for SVHN and 16
            otherwise, as published. On images smaller than 32×32 take less.
        num_operations: Number of operations of `RandAugment`.
        factor: Strength of `RandAugment`, 0…1.
        seed: Non-negative integer from which each layer gets a seed of its own, or `None`.

    Returns:
        An `AugmentationLayers`, the layers before and after the normalisation. Crop and flip are
        one layer.

    Raises:
        ValueError: If `policy` is an unknown name, or its file holds no policy.
        TypeError: If `policy` is neither a name nor a layer.

    Example:
        >>> from tfconvbias.data import augmentation
        >>> [type(layer).__name__ for layer in augmentation("flip_crop_cutout").before]
        ['PadCrop']
    """
    first: tuple[keras.layers.Layer, ...] = ()
    if isinstance(policy, str) and policy.endswith(".json"):
        policy = FastAutoAugment(policy, seed=seed)
    if isinstance(policy, keras.layers.Layer):
        first, stages = (policy,), AUGMENTATIONS["flip_crop_cutout"]
    elif not isinstance(policy, str):
        raise TypeError(f"`policy` must be a name or a Keras layer. Received: policy={policy!r}")
    elif policy in AUGMENTATIONS:
        stages = AUGMENTATIONS[policy]
    else:
        raise ValueError(
            f"`policy` must be one of {', '.join(AUGMENTATIONS)}, a .json file, or a Keras layer. "
            f"Received: policy={policy!r}"
        )
    if cutout_length is None:
        cutout_length = CUTOUT_LENGTHS[_policy_of(dataset)]
    options = _Options(dataset, padding, cutout_length, num_operations, factor)
    seeds: dict[str, int | None] = dict.fromkeys(_STAGES)
    if seed is not None:
        # 31 bits, as a Keras seed must fit in an int32.
        words = np.random.SeedSequence(seed).generate_state(len(_STAGES)) >> 1
        seeds = {name: int(word) for name, word in zip(_STAGES, words, strict=True)}
    before = [make(options, seeds[name]) for name, make in _POLICIES.items() if name in stages]
    if "crop" in stages or "flip" in stages:
        sides = options.padding if "crop" in stages else 0
        before.append(PadCrop(sides, "flip" in stages, seeds["crop"], seeds["flip"]))
    after = [Cutout(options.cutout_length, seed=seeds["cutout"])] if "cutout" in stages else []
    return AugmentationLayers((*first, *before), tuple(after))


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class Preprocessing(keras.layers.Layer):
    """Runs a sequence of layers on images: augmentation in training, normalisation always.

    Unlike a `keras.Sequential` it hands its input to the first layer as it is, uint8 or float,
    whatever the dtype policy.

    Args:
        layers: Keras layers, run in order; those that take `training` are given it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, uint8 or float, values 0…255.

    Output shape:
        That of the last layer.

    Raises:
        ValueError: If `layers` is empty.

    Example:
        >>> import numpy as np
        >>> from tfconvbias.data import Normalize, PadCrop, Preprocessing
        >>> layer = Preprocessing([PadCrop(4), Normalize((0.5,), (0.25,))])
        >>> print(layer(np.zeros((2, 32, 32, 1), "uint8"), training=True).shape)
        (2, 32, 32, 1)
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not layers:
            raise ValueError(f"`layers` must hold at least one layer. Received: layers={layers}")
        self.layers = list(layers)

    def build(self, input_shape):
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs, training=False):
        outputs = inputs
        for layer in self.layers:
            # Keras hands the surrounding call's `training` on to the layers that take it.
            outputs = layer(outputs)
        return outputs

    def compute_output_shape(self, input_shape):
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config):
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config.pop("layers")]
        return cls(layers, **config)


@checked
def preprocessing(
    statistics: str | ImageDataset | Normalize | tuple[Sequence[float], Sequence[float]],
    augment: str | keras.layers.Layer = "none",
    *,
    seed: NonNegativeInt | None = None,
    permute_pixels: int | None = None,
    name: str = "preprocessing",
    **options,
) -> Preprocessing:
    """Makes the layer that stands in front of a network: uint8 images in, normalised images out.

    The order is policy → crop → flip → normalise → cutout → permutation of the pixels. At inference
    only the normalisation and the permutation are active. The output has the compute dtype of the
    global dtype policy.

    Args:
        statistics: Mean and deviation of the channels: a key of `PUBLISHED_STATISTICS`; an
            `ImageDataset`, whose training images are measured; a pair `(mean, std)` on the scale
            0…1; or a `Normalize` layer.
        augment: Augmentation policy: a key of `AUGMENTATIONS`, a Keras layer from images to images,
            or the path of a `.json` file with a policy for `FastAutoAugment`.
        seed: Non-negative integer from which each layer gets a seed of its own, or `None`.
        permute_pixels: Seed of a fixed permutation of all pixels; `None` leaves them in place.
        name: The layer's name.
        **options: Further arguments of `augmentation`.

    Returns:
        A `Preprocessing` layer.

    Raises:
        ValueError: If `statistics` or `augment` is an unknown name.

    Example:
        >>> import keras
        >>> from tfconvbias.data import load, preprocessing
        >>> data = load("motifs10")
        >>> inputs = keras.Input(data.image_shape, dtype="uint8")
        >>> x = preprocessing(data, augment="flip_crop", seed=0)(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))

    Reference:
        Neyshabur (2020), appendix A.2, and the order of Fast AutoAugment's published pipeline.
    """
    if isinstance(statistics, str):
        if statistics not in PUBLISHED_STATISTICS:
            raise ValueError(
                f"`statistics` must be one of {', '.join(PUBLISHED_STATISTICS)}, an ImageDataset, "
                f"a pair (mean, std) or a Normalize layer. Received: statistics={statistics!r}"
            )
        normalize = Normalize(*PUBLISHED_STATISTICS[statistics])
    elif isinstance(statistics, ImageDataset):
        normalize = Normalize(*statistics.channel_statistics)
        options = {"dataset": statistics.name, **options}
    elif isinstance(statistics, Normalize):
        normalize = statistics
    else:
        mean, std = statistics
        normalize = Normalize(mean, std)
    before, after = augmentation(augment, seed=seed, **options)
    last = () if permute_pixels is None else (PermutePixels(permute_pixels),)
    return Preprocessing([*before, normalize, *after, *last], name=name)
