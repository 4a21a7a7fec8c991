"""`load`: a data set by name or from a folder of images, always as an `ImageDataset`."""

import dataclasses
import difflib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked
from tfconvbias.data.image_dataset import ImageDataset
from tfconvbias.data.image_folder import read_image_folder
from tfconvbias.data.motifs import make_motifs
from tfconvbias.data.named import TFDS_NAMES, load_tfds
from tfconvbias.data.random_order import stratified_choice
from tfconvbias.data.streamed_dataset import (
    STREAM_ABOVE,
    StreamedDataset,
    stream_image_folder,
)

MOTIFS = {"motifs10": (10, 6.0), "motifs100": (100, 13.0)}
"""Classes and amplitude of the embedded data sets."""

DATASET_NAMES = (*TFDS_NAMES, *MOTIFS)
"""The names that `load` knows."""


@checked
def load(
    name_or_path: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: NonNegativeInt = 0,
    image_size: tuple[PositiveInt, PositiveInt] | None = None,
    color_mode: Literal["rgb", "grayscale"] | None = None,
    classes: PositiveInt | None = None,
    cache_dir: str | os.PathLike | None = None,
    include_extra: bool = False,
    stream: Literal["off", "auto", "on"] = "off",
) -> ImageDataset:
    """Loads images and labels as uint8 arrays on which every backend can train.

    - `"cifar10"`, `"cifar100"`, `"svhn"`, `"mnist"`: through TensorFlow Datasets, which downloads
      them once. MNIST has one channel.
    - `"motifs10"`, `"motifs100"`: the embedded procedural sets of `make_motifs`, without files.
    - A path: a folder of JPEG, PNG, BMP, GIF, WebP or TIFF images, either `train/<class>/*` with
      `test/<class>/*` and `validation/<class>/*` (or `val`, `valid`) where it has them, or just
      `<class>/*`. Classes are numbered in sorted order; hidden files are ignored; links must not
      lead out of the folder. Write `./cifar10` for a folder in the current directory that is called
      like a named data set.

    The validation split: of each class with n training images, `round(validation_fraction * n)`
    (at least one) are drawn with `seed` and leave the training images; both splits keep the
    original order. The draw is the same on every platform. A folder's own `validation` split is
    used unchanged. The embedded sets keep their 8,000 training images and generate further ones
    for validation, so many that these make up the fraction of both together. Test images are never
    touched.

    The test split of a folder without test images is drawn in the same way, before the validation
    split, with `test_fraction`; `source` says so.

    Args:
        name_or_path: A name or a folder.
        data_dir: Where TensorFlow Datasets keeps its files; its own default if `None`. It has no
            effect on other data sets.
        validation_fraction: Share of the training images that becomes the validation split, from
            0 (an empty split) up to but excluding 1.
        test_fraction: For folders without a `test` folder: share of the training images that
            becomes the test split, from 0 (an empty split) up to but excluding 1.
        seed: Non-negative integer that fixes the draws, and the images of the embedded sets.
        image_size: `(height, width)` to resize to, bilinear with antialiasing. If `None`, the
            images must be of one size and stay as they are.
        color_mode: For folders: `"rgb"` or `"grayscale"` converts every image; `None` accepts RGB
            images only and raises an error for others.
        classes: Expected number of classes, checked if given.
        cache_dir: For folders: where to keep the decoded arrays. They are read again as long as
            names, sizes and times of the files stay the same. If `None`, nothing is kept. For
            folders that are streamed: where digest and statistics are kept, by default in
            `~/.cache/tfconvbias` (or below `XDG_CACHE_HOME`).
        include_extra: For svhn: whether the 531,131 extra images join the training images.
        stream: For folders: `"on"` leaves the images in their files, from which each batch is
            read when its turn comes; `"off"` reads them into memory; `"auto"` streams where they
            would take more than a quarter (`STREAM_ABOVE`) of the memory left. Named data sets are
            always in memory.

    Returns:
        An `ImageDataset`; a `StreamedDataset` where the images stay in their files.

    Raises:
        DatasetUnavailableError: If a named data set is not available, with the cause.
        FileNotFoundError: If a path leads nowhere.
        ImageFolderError: If a folder has another layout or content than expected; it names the
            file.
        ValueError: If a name is unknown or an argument does not fit.

    Example:
        >>> from tfconvbias.data import load
        >>> print(load("motifs10").describe())
        motifs10: 32×32×3 images, 10 classes (motif0, motif1, motif2, motif3, motif4, …)
          source      embedded, generated with seed 0
          train       8,000 images, 800–800 per class
          validation  889 images, 88–89 per class
          test        2,000 images, 200–200 per class
    """
    _check_fractions(validation_fraction=validation_fraction, test_fraction=test_fraction)
    name = name_or_path if isinstance(name_or_path, str) else None
    if include_extra and name != "svhn":
        raise ValueError(
            f"`include_extra` is for svhn only. Received: name_or_path={name_or_path!r}"
        )
    if name in DATASET_NAMES:
        for argument, value in (
            ("color_mode", color_mode),
            ("cache_dir", cache_dir),
            ("stream", "on" if stream == "on" else None),
        ):
            if value is not None:
                raise ValueError(
                    f"`{argument}` is for folders of images only. "
                    f"Received: name_or_path={name!r}, {argument}={value!r}"
                )
    if name in MOTIFS:
        dataset = _load_motifs(name, validation_fraction, seed)
    elif name in TFDS_NAMES:
        arrays = load_tfds(name, data_dir, include_extra=include_extra)
        dataset = ImageDataset(
            name=name, **_with_split(arrays, "validation", validation_fraction, seed)
        )
    else:
        folder = _existing_folder(name_or_path)
        options: dict[str, Any] = {
            "image_size": image_size,
            "color_mode": color_mode,
            "classes": classes,
        }
        streamed = None
        if stream != "off":
            above = STREAM_ABOVE if stream == "auto" else None
            streamed = stream_image_folder(folder, above=above, **options)
        arrays = streamed or read_image_folder(folder, cache_dir=cache_dir, **options)
        if "x_test" not in arrays:
            # Another draw than that of the validation split, which stays what it has always been.
            arrays = _with_split(arrays, "test", test_fraction, seed, 1)
            arrays["source"] += f", {test_fraction:g} of each class drawn as test images"
        arrays = _with_split(arrays, "validation", validation_fraction, seed)
        arrays["name"] = folder.resolve().name
        if streamed:
            dataset = StreamedDataset(cache_dir=cache_dir, **arrays)
        else:
            dataset = ImageDataset(**arrays)
    if classes is not None and classes != dataset.num_classes:
        raise ValueError(
            f"Expected {classes} classes, but {dataset.name!r} has {dataset.num_classes}."
        )
    if image_size is not None and dataset.image_shape[:2] != tuple(image_size):
        dataset = _resized(dataset, image_size)
    return dataset


def _check_fractions(**fractions: float) -> None:
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ValueError(f"`{name}` must lie in [0, 1). Received: {name}={fraction}")


def _existing_folder(name_or_path: str | os.PathLike) -> Path:
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise NotADirectoryError(
            f"A data set's path must be a folder of images; {str(folder)!r} is a file."
        )
    text = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or any(mark in text for mark in ("/", os.sep, "~")):
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r}. A data set is a folder train/<class>/* "
            f"and test/<class>/*, a folder <class>/*, or one of {', '.join(DATASET_NAMES)}."
        )
    near = difflib.get_close_matches(text.lower().replace("-", ""), DATASET_NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"There is no data set and no folder {text!r}.{hint} "
        f"Names: {', '.join(DATASET_NAMES)}; or the path of a folder of images."
    )


def _load_motifs(name: str, validation_fraction: float, seed: int) -> ImageDataset:
    num_classes, amplitude = MOTIFS[name]
    num_train = 8000
    return make_motifs(
        num_classes,
        num_train=num_train,
        num_validation=round(num_train * validation_fraction / (1 - validation_fraction)),
        amplitude=amplitude,
        seed=seed,
    )


def _with_split(arrays: dict, split: str, fraction: float, *seed: int) -> dict:
    """Adds a split that is drawn from the training images to `arrays`, unless it is there."""
    if f"x_{split}" in arrays:
        return arrays
    x, y, class_names = arrays["x_train"], arrays["y_train"], arrays["class_names"]
    counts = np.bincount(y, minlength=len(class_names))
    taken = np.maximum(np.rint(fraction * counts).astype(int), 1) if fraction else 0 * counts
    for name, count, take in zip(class_names, counts, taken, strict=True):
        if take >= count:
            raise ValueError(
                f"Class {name!r} has {count} training image(s), of which {split}_fraction="
                f"{fraction} would leave none. Take a smaller fraction, or 0."
            )
    chosen = np.zeros(len(y), bool)
    chosen[stratified_choice(y, taken, *seed)] = True
    return {
        **arrays,
        "x_train": x[~chosen],
        "y_train": y[~chosen],
        f"x_{split}": x[chosen],
        f"y_{split}": y[chosen],
    }


def _resized(dataset: ImageDataset, image_size: tuple[int, int]) -> ImageDataset:
    from PIL import Image

    height, width = image_size

    def resize(image: np.ndarray) -> np.ndarray:
        # Pillow knows images of one channel without an axis for it.
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        return resized.reshape(height, width, -1)

    arrays: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        images, _ = dataset.split(split)
        result = np.empty((len(images), height, width, images.shape[-1]), np.uint8)
        with ThreadPoolExecutor() as pool:
            for index, image in enumerate(pool.map(resize, images)):
                result[index] = image
        arrays[f"x_{split}"] = result
    return dataclasses.replace(dataset, **arrays)
