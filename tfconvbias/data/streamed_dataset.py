"""`StreamedDataset`: an `ImageDataset` whose images stay in the files of a folder."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.data.image_dataset import SPLITS, ImageDataset
from tfconvbias.data.image_files import ImageFiles, ReadAhead
from tfconvbias.data.image_folder import first_shape, scan_folder
from tfconvbias.data.normalize import histograms, statistics_from_histograms
from tfconvbias.memory import available_bytes
from tfconvbias.terminal import bars

STREAM_ABOVE = 0.25
"""Share of the memory left above which `load(…, stream="auto")` leaves images in their files.

Images in memory take up to three times their size for a while: drawing the validation images
copies them, and so may the backend.
"""

_PART_BYTES = 2**24
_BAR_FROM = 5000
_CACHE_VERSION = 1


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class StreamedDataset(ImageDataset):
    """A data set of which only names, sizes and times of the files and the labels are in memory.

    `data.load(folder, stream="on")` makes it. `x_train`, `x_validation` and `x_test` are
    `ImageFiles`. `training.run` trains on it as on an `ImageDataset` of the same folder: the
    batches, the normalization and the digest are the same, and so is the history.

    Digest and channel statistics are those of the pixels, so that they take reading every image
    once; this also finds files that cannot be read before a training begins. What was found is
    kept, and used as long as names, sizes and times of the files are the same.

    Args:
        cache_dir: Where the digest and the statistics are kept; the user's cache by default.
    """

    x_train: Any
    x_validation: Any
    x_test: Any
    cache_dir: str | os.PathLike | None = None

    def __post_init__(self):
        super().__post_init__()
        for split in SPLITS:
            if not isinstance(self.split(split)[0], ImageFiles):
                raise ValueError(
                    f"`x_{split}` of a StreamedDataset must be ImageFiles. "
                    f"Received: {type(self.split(split)[0]).__name__}"
                )

    def split(self, name: str) -> tuple[Any, np.ndarray]:
        """Returns files and labels of the split `"train"`, `"validation"` or `"test"`."""
        return super().split(name)

    @functools.cached_property
    def digest(self) -> str:
        """The digest of an `ImageDataset` of the same images."""
        return self._survey["digest"]

    @functools.cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel over all training images, on the scale 0…1."""
        return statistics_from_histograms(np.array(self._survey["histograms"]))

    def join_validation(self) -> ImageDataset:
        """Returns the data set whose training images include the validation images."""
        x, y = self.split("validation")
        return dataclasses.replace(
            self,
            x_train=self.x_train.joined(x),
            y_train=np.concatenate([self.y_train, y]),
            x_validation=x[:0],
            y_validation=y[:0],
        )

    @functools.cached_property
    def _survey(self) -> dict[str, Any]:
        """What takes reading all images, from the cache where it is there."""
        folder = _user_cache() if self.cache_dir is None else Path(self.cache_dir)
        cache = folder / f"{self._fingerprint()}.json"
        try:
            return json.loads(cache.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            pass  # not there yet, or cut short: read the images
        found = self._read_all()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Written under another name, then renamed, so that a killed run leaves no half file.
            number, unfinished = tempfile.mkstemp(dir=folder, suffix=".part")
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(found, file)
            Path(unfinished).replace(cache)
        except OSError as error:
            warnings.warn(f"The next run will read all images again: {error}", stacklevel=2)
        return found

    def _read_all(self) -> dict[str, Any]:
        digest = hashlib.sha256(repr(self.class_names).encode())
        counts = np.zeros((self.image_shape[-1], 256), np.int64)
        total = sum(len(self.split(name)[0]) for name in SPLITS)
        with bars.aside("Checking images", total, show=total >= _BAR_FROM) as bar:
            for name in SPLITS:
                x, y = self.split(name)
                digest.update(repr((x.shape, x.dtype.str)).encode())
                for part in _parts(x):
                    digest.update(part.data)
                    if name == "train":
                        counts += histograms(part)
                    bar(len(part))
                digest.update(repr((y.shape, y.dtype.str)).encode())
                digest.update(np.ascontiguousarray(y).data)
        return {"digest": digest.hexdigest()[:16], "histograms": counts.tolist()}

    def _fingerprint(self) -> str:
        """Names, sizes and times of the files: as long as they stay, the images do."""
        import PIL

        x = self.x_train
        options = (_CACHE_VERSION, PIL.__version__, self.class_names, x.image_size, x.color_mode)
        digest = hashlib.sha256(repr(options).encode())
        for split in SPLITS:
            x, y = self.split(split)
            names = [os.path.relpath(file, x.root) for file in x.files]
            digest.update(repr((x.shape, names)).encode())
            digest.update(np.ascontiguousarray(x.states).data)
            digest.update(np.ascontiguousarray(y).data)
        return digest.hexdigest()[:32]


def stream_image_folder(
    folder: Path,
    *,
    image_size: tuple[int, int] | None,
    color_mode: str | None,
    classes: int | None,
    above: float | None,
) -> dict[str, Any] | None:
    """Lists a folder of images without reading them, in the form of `read_image_folder`.

    Args:
        folder: The folder.
        image_size: As in `load`.
        color_mode: As in `load`.
        classes: As in `load`.
        above: Share of the memory left which the images must exceed; `None`: any number of them.

    Returns:
        The dict of `read_image_folder` with `ImageFiles` for arrays; `None` if the images would
        take less than that share.

    Raises:
        ImageFolderError: If the layout is not as expected.
    """
    class_names, splits = scan_folder(folder, classes)
    shape = first_shape(splits, image_size, color_mode)
    if above is not None:
        needed = math.prod(shape) * sum(len(split.files) for split in splits.values())
        left = available_bytes()
        if left is None or needed <= above * left:
            return None
    arrays: dict[str, Any] = {
        "class_names": tuple(class_names),
        "source": f"images streamed from {folder}",
    }
    for name, split in splits.items():
        arrays[f"x_{name}"] = ImageFiles(
            split.files, shape, folder.resolve(), image_size=image_size, color_mode=color_mode
        )
        arrays[f"y_{name}"] = split.labels
    return arrays


def _parts(x: ImageFiles) -> Iterator[np.ndarray]:
    """All images, as arrays of a few megabytes, the next of which are being read."""
    size = max(1, _PART_BYTES // math.prod(x.image_shape))
    starts = range(0, len(x), size)
    return ReadAhead(lambda start: np.asarray(x[start : start + size]), starts)


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tfconvbias"
