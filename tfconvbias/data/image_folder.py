"""Folders of images, `train/<class>/*` and so on or `<class>/*`, as NumPy arrays."""

import dataclasses
import hashlib
import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.memory import available_bytes, readable
from tfconvbias.terminal import bars

# Formats whose decoders read pixels and do nothing else. Pillow hands EPS, say, to a program.
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}
"""Extension → Pillow's name of each format that is read."""

# An image of more pixels is taken for an attack: a small file can hold a huge one.
_MAX_PIXELS = 2**26

VALIDATION_NAMES = ("validation", "val", "valid")
"""What the folder of the validation images may be called."""

_CHUNK = 200
_SHOWN = 10
_BAR_FROM = 5000
_CACHE_VERSION = 1


class ImageFolderError(ValueError):
    """A folder of images has another layout or content than expected; names file or folder."""


@dataclasses.dataclass(frozen=True)
class ImageSplit:
    """The files of a split, and their labels."""

    files: list[str]
    labels: np.ndarray


def read_image_folder(
    folder: str | os.PathLike,
    *,
    image_size: tuple[int, int] | None = None,
    color_mode: str | None = None,
    classes: int | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Reads a folder of images into arrays; see `load` for the layout and the arguments.

    Returns:
        A dict with the keys x_train, y_train, class_names and source, x_validation and
        y_validation where the folder has validation images apart, and likewise x_test and y_test.

    Raises:
        ImageFolderError: If a split or class folder is missing or empty, the splits differ in
            their classes, their number is not `classes`, the images do not fit into memory, or a
            file is no image of the known formats, is corrupt, has a wrong size, is not RGB while
            `color_mode` is `None`, is a pipe or device, or is a link that leads out of the folder.
    """
    folder = Path(folder)
    class_names, splits = scan_folder(folder, classes)
    images: dict[str, np.ndarray] | None = None
    cache = None
    if cache_dir is not None:
        cache = Path(cache_dir) / f"{_fingerprint(folder, splits, image_size, color_mode)}.npz"
        images = _read_cache(cache, splits)
    if images is None:
        images = _decode_splits(splits, image_size, color_mode)
        if cache is not None:
            _write_cache(cache, images)
    arrays: dict[str, Any] = {"class_names": tuple(class_names), "source": f"images in {folder}"}
    for name, split in splits.items():
        arrays[f"x_{name}"], arrays[f"y_{name}"] = images[name], split.labels
    return arrays


def scan_folder(
    folder: Path, classes: int | None = None
) -> tuple[list[str], dict[str, ImageSplit]]:
    """Lists the classes and the files of every split, both sorted; opens no file.

    Raises:
        ImageFolderError: If the layout is not as expected, or there are not so many `classes`.
    """
    root = folder.resolve()
    class_names: list[str] = []
    splits = {}
    for name, place in _layout(folder).items():
        check_link(place, root)
        files, folders = _entries(place, root)
        if files:
            raise ImageFolderError(
                f"{str(place)!r} must hold one folder per class, but holds the file(s) "
                f"{_listing(files)}."
            )
        if name == "train":
            class_names = folders
            if not class_names:
                raise ImageFolderError(f"{str(place)!r} holds no class folder.")
        elif folders != class_names:
            differences = [
                f"{where} has no {_listing(missing)}"
                for where, missing in (
                    ("train", sorted(set(folders) - set(class_names))),
                    (name, sorted(set(class_names) - set(folders))),
                )
                if missing
            ]
            raise ImageFolderError(
                f"The class folders of train and {name} in {str(folder)!r} differ: "
                f"{'; '.join(differences)}."
            )
        splits[name] = _scan_split(place, class_names, root)
    if classes is not None and classes != len(class_names):
        raise ImageFolderError(
            f"Expected {classes} classes, but {str(_layout(folder)['train'])!r} has "
            f"{len(class_names)} class folders: {_listing(class_names)}."
        )
    return class_names, splits


def _layout(folder: Path) -> dict[str, Path]:
    """Split → its folder; only "train", the folder itself, where it holds the classes."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    held_out = [name for name in VALIDATION_NAMES if name in names]
    others = [name for name in names if name not in ("train", "test", *held_out)]
    # A class may be called "train", too: its folder holds images.
    if others and not any(_holds_folders(folder / name) for name in names):
        return {"train": folder}
    missing = "train" if "train" not in names else "test"
    if "train" not in names or (others and "test" not in names):
        found = f", but {_listing(names)}" if names else ""
        raise ImageFolderError(
            f"{str(folder)!r} has no folder {missing!r}{found}. A folder of images holds "
            "train/<class>/* and, where they are apart, test/<class>/* and validation/<class>/*; "
            "or just <class>/*."
        )
    if len(held_out) > 1:
        raise ImageFolderError(
            f"{str(folder)!r} must hold one folder of validation images, but holds "
            f"{_listing(held_out)}."
        )
    layout = {"train": folder / "train"}
    if held_out:
        layout["validation"] = folder / held_out[0]
    if "test" in names:
        layout["test"] = folder / "test"
    return layout


def _holds_folders(folder: Path) -> bool:
    return any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def _scan_split(folder: Path, class_names: Sequence[str], root: Path) -> ImageSplit:
    all_files: list[str] = []
    labels = []
    for label, class_name in enumerate(class_names):
        files, folders = _entries(folder / class_name, root)
        if folders:
            raise ImageFolderError(
                f"The class folder {str(folder / class_name)!r} must hold images only, but holds "
                f"the folder(s) {_listing(folders)}."
            )
        others = [file for file in files if _extension(file) not in FORMATS]
        if others:
            raise ImageFolderError(
                f"The class folder {str(folder / class_name)!r} holds {len(others)} file(s) that "
                f"are not images: {_listing(others)}. Known are {', '.join(FORMATS)}."
            )
        if not files:
            raise ImageFolderError(f"The class folder {str(folder / class_name)!r} is empty.")
        # Strings, as 60,000 Path objects take a second to make and to sort.
        all_files += [f"{folder / class_name}{os.sep}{file}" for file in files]
        labels += [label] * len(files)
    return ImageSplit(all_files, np.array(labels, np.int32))


def _extension(file: str) -> str:
    stem, dot, extension = file.rpartition(".")
    return dot + extension.lower() if stem else ""


def _entries(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """Returns the names of files and folders in `folder`, sorted, without hidden ones."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                check_link(Path(entry.path), root)
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file():
                files.append(entry.name)
            else:
                raise ImageFolderError(
                    f"{entry.path!r} is neither a file nor a folder (a pipe, a device, a socket or "
                    "a broken link). Remove it."
                )
    return sorted(files), sorted(folders)


def check_link(path: Path, root: Path) -> None:
    """Raises an `ImageFolderError` where a link leads out of `root`, a resolved path."""
    if not path.resolve().is_relative_to(root):
        raise ImageFolderError(
            f"{str(path)!r} is a link that leads out of {str(root)!r}. A folder of images must "
            "hold its images itself, since links in it could lead anywhere."
        )


def _decode_splits(splits: dict[str, ImageSplit], image_size, color_mode) -> dict[str, np.ndarray]:
    total = sum(len(split.files) for split in splits.values())
    shape = first_shape(splits, image_size, color_mode)
    check_memory(total, shape)
    problems: list[str] = []
    images = {}
    with (
        bars.aside("Reading images", total, show=total >= _BAR_FROM) as bar,
        ThreadPoolExecutor() as pool,
    ):
        for name, split in splits.items():
            target = np.empty((len(split.files), *shape), np.uint8)

            def decode(start, files=split.files, target=target):
                stop = min(start + _CHUNK, len(files))
                return stop - start, [
                    problem
                    for index in range(start, stop)
                    if (
                        problem := decode_image(files[index], target[index], image_size, color_mode)
                    )
                ]

            for count, found in pool.map(decode, range(0, len(split.files), _CHUNK)):
                problems += found
                bar(count)
            images[name] = target
    raise_problems(problems)
    return images


def raise_problems(problems: Sequence[str]) -> None:
    """Raises an `ImageFolderError` that names the first files of which something is wrong."""
    if problems:
        more = len(problems) - _SHOWN
        raise ImageFolderError(
            "\n".join(problems[:_SHOWN]) + (f"\nand {more:,} files more." if more > 0 else "")
        )


def check_memory(num_images: int, shape: tuple[int, int, int]) -> None:
    """Raises an `ImageFolderError` where so many images do not fit into memory."""
    needed, left = num_images * math.prod(shape), available_bytes()
    if left is not None and needed > left:
        height, width, channels = shape
        raise ImageFolderError(
            f"{num_images:,} images of {height}×{width}×{channels} (height×width×channels) take "
            f"{readable(needed)}, but {readable(left)} of memory are left. Make them smaller, or "
            "take fewer."
        )


def _open(path: str):
    """Opens an image, trying the format of its extension first: Pillow's search takes as long."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path, formats=(FORMATS[_extension(path)],))
    except UnidentifiedImageError:
        image = Image.open(path, formats=tuple(set(FORMATS.values())))
    if image.width * image.height > _MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.height}×{image.width} pixels, more than {_MAX_PIXELS:,}")
    return image


def first_shape(splits, image_size, color_mode) -> tuple[int, int, int]:
    """Returns the shape that all images must have: that of the first one that can be read."""
    channels = 1 if color_mode == "grayscale" else 3
    if image_size is not None:
        return (*image_size, channels)
    for split in splits.values():
        for path in split.files:
            try:
                with _open(path) as image:
                    return (image.height, image.width, channels)
            # A file that is no image is reported with its name when its turn comes.
            except Exception:  # nosec B112
                continue
    return (1, 1, channels)


def decode_image(path: str, target: np.ndarray, image_size, color_mode) -> str | None:
    """Decodes one file into `target`, or returns what is wrong with it."""
    from PIL import Image

    try:
        with _open(path) as image:
            image.load()
            mode = image.mode
            if mode in ("F", "I") or mode.startswith("I;"):
                return f"{path!r} has more than 8 bits per channel (mode {mode}); convert it first."
            if color_mode is None and mode != "RGB":
                kind = "a grey image" if mode in ("1", "L", "LA") else "not an RGB image"
                return (
                    f"{path!r} is {kind} (mode {mode}). To convert every image pass "
                    'color_mode="rgb" or color_mode="grayscale".'
                )
            wanted = "L" if color_mode == "grayscale" else "RGB"
            converted = image if mode == wanted else image.convert(wanted)
            height, width, channels = target.shape
            if converted.size != (width, height):
                if image_size is None:
                    return (
                        f"{path!r} is {image.height}×{image.width} (height×width), but the "
                        f"first image is {height}×{width}. To resize all pass image_size=(height, "
                        "width)."
                    )
                converted = converted.resize((width, height), Image.Resampling.BILINEAR)
            target[...] = np.asarray(converted).reshape(height, width, channels)
    except Exception as error:  # any decoder's error: reported with the file's name
        return f"{path!r} is corrupt, truncated or no image: {type(error).__name__}: {error}"
    return None


def _fingerprint(folder: Path, splits: dict[str, ImageSplit], image_size, color_mode) -> str:
    digest = hashlib.sha256(repr((_CACHE_VERSION, image_size, color_mode)).encode())
    for split in splits.values():
        for path in split.files:
            status = os.stat(path)  # noqa: PTH116  # ten times as fast as Path.stat for so many
            name = path.removeprefix(str(folder)).replace(os.sep, "/")
            entry = (name, status.st_size, status.st_mtime_ns)
            digest.update(repr(entry).encode())
    return digest.hexdigest()[:32]


def _read_cache(cache: Path, splits: dict[str, ImageSplit]) -> dict[str, np.ndarray] | None:
    if not cache.exists():
        return None
    try:
        with cache.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in splits}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(
            f"The cache {str(cache)!r} cannot be read and is written again: {error}", stacklevel=2
        )
        return None


def _write_cache(cache: Path, images: dict[str, Any]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name, then renamed, so that a killed run leaves no half cache.
    part = cache.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **images)
        part.replace(cache)
    finally:
        part.unlink(missing_ok=True)


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
