"""`ImageDataset`, the one form in which data sets reach training, and the permutation of pixels."""

import dataclasses
import functools
import hashlib
from typing import Any, overload

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked
from tfconvbias.data.normalize import channel_statistics
from tfconvbias.data.random_order import random_order, stratified_choice, stratified_counts

SPLITS = ("train", "validation", "test")

EVALUATION_BATCH_SIZE = 500
"""Images per batch wherever a model is evaluated, not trained. Results do not depend on it."""


@checked
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """A classification data set of images in memory, in three splits.

    Images are uint8 arrays `(n, height, width, channels)`, so that normalisation and augmentation
    can run as layers inside the compiled step of any backend; labels are integers
    `(n,)` from 0 to `num_classes - 1`. The validation split may be empty.

    Args:
        name: Short name, such as `"cifar10"`.
        x_train: Training images, uint8 `(n, height, width, channels)`.
        y_train: Training labels, integers `(n,)`.
        x_validation: Validation images, of the same image shape.
        y_validation: Validation labels.
        x_test: Test images, of the same image shape.
        y_test: Test labels.
        class_names: One name for each class, in label order.
        source: Where the arrays come from, for reports.

    Raises:
        ValueError: If a dtype, a shape, a label or the number of class names does not fit.

    Example:
        >>> from tfconvbias.data import load
        >>> data = load("motifs10").limit(num_train=500, num_test=100)
        >>> data
        <ImageDataset motifs10: 32×32×3, 10 classes; train 500, validation 889, test 100>
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    source: str = ""

    def __post_init__(self):
        for split in SPLITS:
            x, y = self.split(split)
            if x.dtype != np.uint8 or x.ndim != 4:
                raise ValueError(
                    f"`x_{split}` must be uint8 of shape (n, height, width, channels). "
                    f"Received: dtype={x.dtype}, shape={x.shape}"
                )
            if x.shape[1:] != self.image_shape:
                raise ValueError(
                    f"`x_{split}` must hold images of the training images' shape "
                    f"{self.image_shape}. Received: {x.shape[1:]}"
                )
            if not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1]:
                raise ValueError(
                    f"`y_{split}` must be {len(x)} integer labels of shape ({len(x)},). "
                    f"Received: dtype={y.dtype}, shape={y.shape}"
                )
            if len(y) and not 0 <= y.min() <= y.max() < self.num_classes:
                raise ValueError(
                    f"`y_{split}` must lie in 0…{self.num_classes - 1}, one of the "
                    f"{self.num_classes} `class_names`. Received: labels from {y.min()} to "
                    f"{y.max()}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of every image."""
        return self.x_train.shape[1:]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all images, labels and class names, shortened: equal data, equal digest."""
        found = hashlib.sha256(repr(self.class_names).encode())
        for name in SPLITS:
            for array in self.split(name):
                found.update(repr((array.shape, array.dtype.str)).encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()[:16]

    @functools.cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel over all training images, on the scale 0…1."""
        return channel_statistics(self.x_train)

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of the split `"train"`, `"validation"` or `"test"`."""
        if name not in SPLITS:
            raise ValueError(f"`name` must be one of {', '.join(SPLITS)}. Received: name={name!r}")
        return getattr(self, f"x_{name}"), getattr(self, f"y_{name}")

    def has(self, split: str) -> bool:
        """Whether a split has images."""
        return len(self.split(split)[0]) > 0

    def num_train(self, batch_size: int) -> int:
        """Training images, which do not depend on the size of the batches."""
        return len(self.x_train)

    def num_batches(self, batch_size: int) -> int:
        """Full training batches in an epoch."""
        return len(self.x_train) // batch_size

    def limit(
        self,
        num_train: int | None = None,
        num_validation: int | None = None,
        num_test: int | None = None,
        *,
        seed: int = 0,
    ) -> "ImageDataset":
        """Returns a smaller data set for quick runs: a seeded, stratified draw from each split.

        Each class keeps its share of the split to within one image (largest remainders), and the
        images keep their order.

        Args:
            num_train: Images to keep of the training split; `None` keeps all.
            num_validation: Images to keep of the validation split; `None` keeps all.
            num_test: Images to keep of the test split; `None` keeps all.
            seed: Non-negative integer that fixes the draw.

        Raises:
            ValueError: If a split has fewer images than asked for, or `num_train` is not positive.
        """
        arrays: dict[str, Any] = {}
        for number, (split, size) in enumerate(
            zip(SPLITS, (num_train, num_validation, num_test), strict=True)
        ):
            if size is None:
                continue
            x, y = self.split(split)
            smallest = 1 if split == "train" else 0
            if not smallest <= size <= len(x):
                raise ValueError(
                    f"`num_{split}` must lie between {smallest} and the split's {len(x)} images. "
                    f"Received: num_{split}={size}"
                )
            counts = np.bincount(y, minlength=self.num_classes)
            per_class = stratified_counts(counts, size) if size else 0 * counts
            chosen = stratified_choice(y, per_class, seed, number)
            arrays[f"x_{split}"], arrays[f"y_{split}"] = x[chosen], y[chosen]
        return dataclasses.replace(self, **arrays)

    def join_validation(self) -> "ImageDataset":
        """Returns the data set whose training images include the validation images.

        For a last training once all choices are made: its validation split is empty.
        """
        x, y = self.split("validation")
        return dataclasses.replace(
            self,
            x_train=np.concatenate([self.x_train, x]),
            y_train=np.concatenate([self.y_train, y]),
            x_validation=x[:0],
            y_validation=y[:0],
        )

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        sizes = ", ".join(f"{split} {len(self.split(split)[0]):,}" for split in SPLITS)
        return f"<ImageDataset {self.name}: {shape}, {self.num_classes} classes; {sizes}>"

    def describe(self) -> str:
        """Returns a few lines of text: name, source, image shape, classes, size of each split."""
        height, width, channels = self.image_shape
        shown = ", ".join(self.class_names[:5]) + (", …" if self.num_classes > 5 else "")
        lines = [
            f"{self.name}: {height}×{width}×{channels} images, {self.num_classes} classes ({shown})"
        ]
        if self.source:
            lines.append(f"  source      {self.source}")
        for split in SPLITS:
            x, y = self.split(split)
            if len(x) == 0:
                lines.append(f"  {split:<11} empty")
                continue
            counts = np.bincount(y, minlength=self.num_classes)
            spread = f"{counts.min():,}–{counts.max():,} per class"
            lines.append(f"  {split:<11} {len(x):,} images, {spread}")
        return "\n".join(lines)


@checked
def pixel_permutation(height: PositiveInt, width: PositiveInt, seed: NonNegativeInt) -> np.ndarray:
    """Returns the permutation of positions that `permute_pixels` applies, shape `(height·width,)`.

    Entry `i` is the flat position (row-major) from which output position `i` is taken.
    """
    return random_order(height * width, seed)


@overload
def permute_pixels(data: ImageDataset, seed: int, *, inverse: bool = ...) -> ImageDataset: ...
@overload
def permute_pixels(data: np.ndarray, seed: int, *, inverse: bool = ...) -> np.ndarray: ...


@checked
def permute_pixels(data, seed, *, inverse=False):
    """Shuffles the positions of the pixels, in the same way in every image.

    `output[n, π⁻¹(p), c] = input[n, p, c]` for one permutation π of the positions, fixed by `seed`
    and the image size; the channels of a pixel stay together. Only locality is
    destroyed: a dense network is invariant to the permutation, a convolutional one is not.

    Args:
        data: An `ImageDataset`, whose splits are all shuffled in the same way, or an array of any
            dtype `(..., height, width, channels)`.
        seed: Non-negative integer that fixes the permutation.
        inverse: Whether to undo the permutation of the same seed instead.

    Returns:
        A new `ImageDataset` or array of the same shape; the input is left as it is.

    Raises:
        ValueError: If an array has fewer than three axes.

    Example:
        >>> import numpy as np
        >>> from tfconvbias.data import permute_pixels
        >>> x = np.arange(12).reshape(1, 2, 2, 3)
        >>> bool((permute_pixels(permute_pixels(x, 5), 5, inverse=True) == x).all())
        True

    Reference:
        Neyshabur (2020), "Towards Learning Convolutions from Scratch", section 4.
    """
    if isinstance(data, ImageDataset):
        arrays: dict[str, Any] = {
            f"x_{split}": permute_pixels(data.split(split)[0], seed, inverse=inverse)
            for split in SPLITS
        }
        name = f"{data.name}-{'un' if inverse else ''}permuted{seed}"
        return dataclasses.replace(data, name=name, **arrays)
    data = np.asarray(data)
    if data.ndim < 3:
        raise ValueError(
            "`data` must be an ImageDataset or an array (..., height, width, channels). "
            f"Received: shape={data.shape}"
        )
    height, width, channels = data.shape[-3:]
    order = pixel_permutation(height, width, seed)
    if inverse:
        order = np.argsort(order)
    flat = data.reshape(*data.shape[:-3], height * width, channels)
    return np.take(flat, order, axis=-2).reshape(data.shape)
