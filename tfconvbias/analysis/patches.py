"""Streams of points cut from images: patches, random pixels, shuffled ones, whole images, tiles."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked

Array = np.ndarray
Kind = Literal["patches", "random", "shuffled", "images"]
"""Which points an image gives; see `ImagePoints`."""
Normalization = Literal["none", "unit", "contrast"]
"""How each point is normalized; see `ImagePoints`."""

_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff"})


@checked
def image_patches(images: Array, patch_size: PositiveInt = 4, strides: PositiveInt = 2) -> Array:
    """All square patches of a batch of images, flattened as (row, column, channel).

    Args:
        images: `(n, rows, cols, channels)`.
        patch_size: Side p of a patch.
        strides: Step between patches, in both directions.

    Returns:
        `(n · positions, p² channels)`, of the type of `images`.

    Raises:
        ValueError: If the images are not of rank 4 or are smaller than a patch.

    Example:
    >>> image_patches(np.zeros((2, 8, 8, 3))).shape
    (18, 48)
    """
    images = np.asarray(images)
    if images.ndim != 4 or min(images.shape[1:3]) < patch_size:
        raise ValueError(
            "`images` must have shape (n, rows, cols, channels), with at least `patch_size` rows "
            "and columns. "
            f"Received: images.shape={images.shape}, patch_size={patch_size}, strides={strides}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, (patch_size,) * 2, axis=(1, 2))
    windows = windows[:, ::strides, ::strides].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(-1, patch_size**2 * images.shape[3])


@checked
def image_tiles(image: Array, size: int) -> Array:
    """An image cut into square tiles side by side; a rest at the lower and right edge is left out.

    Args:
        image: `(rows, cols, channels)`.
        size: Side of a tile.

    Returns:
        `(tiles, size, size, channels)`.

    Raises:
        ValueError: If the image is smaller than a tile.
    """
    rows, cols = image.shape[0] // size, image.shape[1] // size
    if not rows * cols:
        raise ValueError(
            f"The image must be at least {size} × {size}. Received: image.shape={image.shape}"
        )
    cut = image[: rows * size, : cols * size].reshape(rows, size, cols, size, -1)
    return cut.transpose(0, 2, 1, 3, 4).reshape(rows * cols, size, size, -1)


@checked
class ImageTiles:
    """The images of files or of a folder, as batches of equally large RGB tiles, read when needed.

    It can be iterated again and again and holds one batch. Images of the tile's size pass whole.

    Args:
        source: A folder, which is searched with its subfolders, an image file, or a list of them.
        size: Side of a tile.
        max_images: Number of files to use, drawn without replacement; all by default.
        seed: Seed of that draw.

    Raises:
        ValueError: If there is no image file; while iterating, if an image is smaller than a tile.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        size: int = 32,
        *,
        max_images: PositiveInt | None = None,
        seed: NonNegativeInt = 0,
    ):
        paths = [Path(p) for p in ([source] if isinstance(source, str | Path) else source)]
        files = []
        for path in paths:
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            files += [file for file in inside if file.suffix.lower() in _IMAGE_SUFFIXES]
        if not files:
            raise ValueError(
                f"`source` must hold image files ({', '.join(sorted(_IMAGE_SUFFIXES))}). "
                f"Received: source={source}"
            )
        if max_images is not None and max_images < len(files):
            chosen = np.random.default_rng(seed).permutation(len(files))[:max_images]
            files = [files[i] for i in np.sort(chosen)]
        self.files = files
        self.size = size

    def __iter__(self) -> Iterator[Array]:
        """Batches `(n, size, size, 3)` of uint8."""
        from PIL import Image

        waiting: list[Array] = []
        for file in self.files:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            try:
                waiting.append(image_tiles(pixels, self.size))
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
            if sum(map(len, waiting)) >= 256:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)


@checked
class ImagePoints:
    """The points that images give, in batches: an iterable for `point_geometry`.

    Args:
        images: `(n, rows, cols, channels)`, or an iterable of such batches that can be iterated
            again, as `ImageTiles`. Integers are divided by 255.
        kind: `"patches"`; `"random"`, as many sets of as many pixels, which lie anywhere in the
            image and keep their channels, the same sets for all images; `"shuffled"`, patches after
            one permutation of all values of an image, the same for all images; or `"images"`, each
            a point.
        patch_size: Side of a patch.
        strides: Step between patches.
        normalize: `"none"`; `"unit"`, to norm 1; or `"contrast"`, to mean 0 and then norm 1.
            Points of norm 0 are left out.
        seed: Seed of the permutation and of the random pixels.

    Raises:
        ValueError: For an unknown kind or normalization.
    """

    def __init__(
        self,
        images: Array | Iterable[Array],
        kind: Kind = "patches",
        *,
        patch_size: PositiveInt = 4,
        strides: PositiveInt = 2,
        normalize: Normalization = "none",
        seed: NonNegativeInt = 0,
    ):
        if kind not in (kinds := get_args(Kind)):
            raise ValueError(f"`kind` must be one of {kinds}. Received: kind={kind!r}")
        if normalize not in ("none", "unit", "contrast"):
            raise ValueError(
                "`normalize` must be 'none', 'unit' or 'contrast'. "
                f"Received: normalize={normalize!r}"
            )
        self.images, self.kind = images, kind
        self.patch_size, self.strides = patch_size, strides
        self.normalize, self.seed = normalize, seed

    def __iter__(self) -> Iterator[Array]:
        """Batches `(points, dimension)` of float32."""
        drawn = None
        for images in self._batches():
            if drawn is None:
                drawn = self._draw(images.shape[1:])
            if self.kind == "images":
                points = images.reshape(len(images), -1)
            elif self.kind == "random":
                pixels = images.reshape(len(images), -1, images.shape[3])
                points = pixels[:, drawn].reshape(-1, drawn.shape[1] * images.shape[3])
            else:
                if self.kind == "shuffled":
                    images = images.reshape(len(images), -1)[:, drawn].reshape(images.shape)
                points = image_patches(images, self.patch_size, self.strides)
            if np.issubdtype(points.dtype, np.integer):
                points = points / np.float32(255)
            yield self._normalized(points.astype("float32", copy=False))

    def _draw(self, shape: tuple[int, ...]) -> Array:
        """The permutation of all values, or `(positions, p²)` pixels, for images of a shape."""
        rng = np.random.default_rng(self.seed)
        if self.kind != "random":
            return rng.permutation(shape[0] * shape[1] * shape[2])
        rows, cols = ((side - self.patch_size) // self.strides + 1 for side in shape[:2])
        return np.stack(
            [rng.permutation(shape[0] * shape[1])[: self.patch_size**2] for _ in range(rows * cols)]
        )

    def _batches(self) -> Iterator[Array]:
        if isinstance(self.images, np.ndarray):
            for begin in range(0, len(self.images), 256):
                yield self.images[begin : begin + 256]
        else:
            yield from self.images

    def _normalized(self, points: Array) -> Array:
        if self.normalize == "none":
            return points
        if self.normalize == "contrast":
            points = points - points.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        # A constant patch keeps rounding errors of about 1e-7 after its mean is taken off.
        kept = norms[:, 0] > 1e-5
        return points[kept] / norms[kept]
