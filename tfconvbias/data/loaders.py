"""`Loaders`: a data set that comes in batches, from loaders of the user's own."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import checked


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class Loaders:
    """A classification data set in `tf.data`, `keras.utils.PyDataset` or torch `DataLoader`.

    A loader gives batches `(images, labels)` of images `(batch, height, width, channels)` and of
    integer labels `(batch,)`, and gives them anew each time it is iterated. What it does to the
    images, and in which order they come, is its own business: the seed of a run does not reach it.

    A run that is resumed goes on after the last epoch of which there is a checkpoint, with a loader
    that starts afresh: one that shuffles gives other batches than without the interruption. Where
    that matters, `train` can be a function from the number of the epoch, counted from 0, to the
    loader of that epoch, seeded with it.

    Args:
        name: Short name, for reports and to compare runs by.
        train: Loader of the training batches, or a function from the epoch to a loader. All epochs
            must have equally many batches.
        validation: Loader of the validation batches, in a fixed order; `None` for none.
        test: Loader of the test batches; `None` for none.
        image_shape: `(height, width, channels)` of every image.
        class_names: One name for each class, in label order.
        statistics: Mean and deviation of each channel on the scale 0…1. The images are then uint8,
            and the network normalizes and augments them in its compiled step. Without, they are
            floats that reach the network as they are.
        steps_per_epoch: Batches in an epoch, where the loader has no length or an infinite one.
        version: What tells these data from others of the same name, such as a date or a digest. It
            is compared when a run is resumed; the images themselves are not.

    Raises:
        ValueError: If a loader can be iterated only once, has no length while `steps_per_epoch` is
            `None`, or is infinite where it is measured.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> images, labels = np.zeros((8, 4, 4, 3), "uint8"), np.arange(8) % 2
        >>> batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
        >>> loaders = Loaders("toys", batches, batches, None, (4, 4, 3), ("cat", "dog"))
        >>> loaders.num_batches(4), loaders.num_classes
        (2, 2)
    """

    name: str
    train: Any
    validation: Any
    test: Any
    image_shape: tuple[int, int, int]
    class_names: Sequence[str]
    statistics: tuple[Sequence[float], Sequence[float]] | None = None
    steps_per_epoch: int | None = None
    version: str = ""

    def __post_init__(self):
        if self.steps_per_epoch is None and self._length is None:
            raise ValueError(
                "`steps_per_epoch` must be given for training batches without a length, and for "
                "infinite ones. Received: steps_per_epoch=None"
            )
        for split in ("train", "validation", "test"):
            loader = self.split(split)
            if loader is None:
                continue
            if not hasattr(loader, "__getitem__") and (
                not hasattr(loader, "__iter__") or iter(loader) is loader
            ):
                raise ValueError(
                    f"`{split}` must be a tf.data.Dataset, a keras.utils.PyDataset or a torch "
                    f"DataLoader, which can be iterated again. Received: {type(loader).__name__}"
                )
            if split != "train" and getattr(loader, "cardinality", int)() == -1:
                raise ValueError(f"`{split}` must end. Received: an infinite tf.data.Dataset")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def is_by_epoch(self) -> bool:
        """Whether `train` is a function from the epoch to its loader."""
        return callable(self.train) and not hasattr(self.train, "__iter__")

    @property
    def digest(self) -> str:
        """Equal for equal names, shapes, statistics, lengths and versions; no image is read."""
        known = (self.image_shape, tuple(self.class_names), self.statistics, self.version)
        text = repr((*known, self.steps_per_epoch or self._length))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def split(self, name: str) -> Any:
        """Returns the loader of the split `"train"` (of epoch 0), `"validation"` or `"test"`."""
        if name == "train" and self.is_by_epoch:
            return self.train(0)
        return getattr(self, name)

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return self.split(split) is not None

    def num_batches(self, batch_size: int) -> int:
        """Training batches in an epoch.

        Args:
            batch_size: What the batches are taken to hold.

        Raises:
            ValueError: If they are known to hold another number of images.
        """
        found = _batch_size(self.split("train"))
        if found is not None and found != batch_size:
            raise ValueError(
                f"The training batches of {self.name} hold {found} images, but batch_size is "
                f"{batch_size}. Give the configuration the batch size of the loader."
            )
        return self.steps_per_epoch or self._length or 0

    def num_train(self, batch_size: int) -> int:
        """Images in an epoch; the last batch counts as a full one."""
        return batch_size * self.num_batches(batch_size)

    def example(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first batch of a split.

        Raises:
            ValueError: If its shapes or dtypes are not what they should be.
        """
        loader = self.split(split)
        batch = loader[0] if isinstance(loader, keras.utils.PyDataset) else next(iter(loader))
        if len(batch) != 2:
            raise ValueError(
                f"The loaders of {self.name} must give pairs (images, labels). "
                f"Received: {len(batch)} parts"
            )
        images, labels = map(keras.ops.convert_to_numpy, batch)
        if images.shape[1:] != tuple(self.image_shape):
            raise ValueError(
                f"The images of {self.name} must have the shape {tuple(self.image_shape)} (height, "
                f"width, channels; channels come last). Received: {images.shape[1:]}"
            )
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"The labels of {self.name} must be integers of shape ({len(images)},). "
                f"Received: dtype={labels.dtype}, shape={labels.shape}"
            )
        kind = "uint8 images" if self.statistics is not None else "floats"
        if (images.dtype == np.uint8) != (self.statistics is not None):
            given = "given" if self.statistics is not None else "None"
            raise ValueError(
                f"The images of {self.name} must be {kind}, since `statistics` is {given}. "
                f"Received: dtype={images.dtype}"
            )
        return images, labels

    def stream(self, first_epoch: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields the batches of all epochs from the first on, where `train` is a function.

        Raises:
            ValueError: If an epoch has not as many batches as the first one.
        """
        expected = self.steps_per_epoch or self._length
        for epoch in itertools.count(first_epoch):
            found = 0
            for batch in _batches(self.train(epoch)):
                found += 1
                yield tuple(map(keras.ops.convert_to_numpy, batch))
                if found == self.steps_per_epoch:
                    break
            if found != expected:
                raise ValueError(
                    f"Epoch {epoch} of {self.name} has {found} training batches, but the first one "
                    f"has {expected}."
                )

    @property
    def _length(self) -> int | None:
        return _length(self.split("train"))


def _batches(loader: Any) -> Iterator:
    if isinstance(loader, keras.utils.PyDataset):
        return (loader[index] for index in range(_length(loader) or 0))
    return iter(loader)


def _length(loader: Any) -> int | None:
    """Batches of a loader; `None` if that is unknown, or if they never end."""
    if hasattr(loader, "cardinality"):
        found = int(loader.cardinality())
        return found if found >= 0 else None
    if hasattr(loader, "num_batches"):
        return loader.num_batches
    try:
        return len(loader)
    except TypeError:
        return None


def _batch_size(loader: Any) -> int | None:
    """Images in a batch, where that is known without iterating."""
    if hasattr(loader, "element_spec"):
        return loader.element_spec[0].shape[0]
    if isinstance(loader, keras.utils.PyDataset):
        return len(loader[0][0])
    return getattr(loader, "batch_size", None)
