"""`ImageFiles`: images that stay in their files, as an array that is read part by part."""

import collections
import itertools
import math
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.data.image_folder import (
    check_link,
    check_memory,
    decode_image,
    raise_problems,
)

_MIN_PART = 8
"""Fewer images than this are not worth a thread of their own."""

_AHEAD = 2
"""Parts that are read before they are asked for."""

_LARGE = 2**28
"""More bytes than a batch takes: whoever wants them all at once needs the memory for it."""

Read = TypeVar("Read")
Wanted = TypeVar("Wanted")


@checked
class ImageFiles:
    """Images in files, as an array `(n, height, width, channels)` of uint8 that is read in parts.

    An integer index reads one image. A slice, a mask or an array of indices gives the files of
    these images, still unread, and `np.asarray` reads all files there are, in threads. What is read
    is exactly what `load` reads into memory. A file that is not what it was when its folder was
    listed (other size or time, a pipe, a link that leads out of the folder) is an error.

    Args:
        files: Paths, listed by `image_folder.scan_folder`.
        shape: `(height, width, channels)` of every image.
        root: The folder in which all files must lie.
        image_size: `(height, width)` to resize to; `None` makes images of another size an error.
        color_mode: `"rgb"` or `"grayscale"` converts every image; `None` accepts RGB images only.

    Raises:
        ImageFolderError: When images are read, if one of them cannot be.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        files: Sequence[str],
        shape: tuple[int, int, int],
        root: Path,
        *,
        image_size: tuple[int, int] | None = None,
        color_mode: str | None = None,
    ):
        self.files = np.array(files, object)
        # As two whole numbers per file, since 1.3 million results of `stat` would take 1 GB.
        found = (os.stat(file) for file in files)  # noqa: PTH116  # as fast as it gets
        pairs = (number for status in found for number in (status.st_size, status.st_mtime_ns))
        self.states = np.fromiter(pairs, np.int64, 2 * len(files)).reshape(-1, 2)
        self.image_shape = shape
        self.root = root
        self.image_size = image_size
        self.color_mode = color_mode

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(n, height, width, channels)`."""
        return (len(self.files), *self.image_shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the images would take in memory."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: Any) -> Any:
        if isinstance(chosen, int | np.integer):
            return np.asarray(self[[chosen]])[0]
        return self._with(self.files[chosen], self.states[chosen])

    def joined(self, others: "ImageFiles") -> "ImageFiles":
        """These images, then those of the same folder in `others`."""
        return self._with(
            np.concatenate([self.files, others.files]),
            np.concatenate([self.states, others.states]),
        )

    def _with(self, files: np.ndarray, states: np.ndarray) -> "ImageFiles":
        part = object.__new__(ImageFiles)
        vars(part).update(vars(self), files=files, states=states)
        return part

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("Images in files cannot be an array without being read.")
        if self.nbytes > _LARGE:
            check_memory(len(self), self.image_shape)
        images = np.empty(self.shape, np.uint8)
        size = max(_MIN_PART, -(-len(self) // (4 * (os.cpu_count() or 1))))
        starts = range(0, len(self), size)

        def read(start: int) -> list[str]:
            indices = range(start, min(start + size, len(self)))
            return [problem for i in indices if (problem := self._read(i, images[i]))]

        if len(starts) < 2:
            problems = list(map(read, starts))
        else:
            with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1)) as pool:
                problems = list(pool.map(read, starts))
        raise_problems(list(itertools.chain(*problems)))
        return images if dtype is None else images.astype(dtype, copy=False)

    def _read(self, index: int, target: np.ndarray) -> str | None:
        """Reads one file into `target`, or returns what is wrong with it."""
        path = self.files[index]
        try:
            is_link = stat.S_ISLNK(os.lstat(path).st_mode)
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            return f"{path!r} is there no more: {error}"
        if is_link:
            check_link(Path(path), self.root)
        state = (status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode) or state != tuple(self.states[index]):
            return f"{path!r} has changed since its folder was listed."
        return decode_image(path, target, self.image_size, self.color_mode)


class ReadAhead(Generic[Wanted, Read]):
    """Iterates over what `read` returns for each of `wanted`, reading the next two meanwhile.

    Args:
        read: What takes long; it runs in a thread of its own.
        wanted: Its arguments, of which there may be infinitely many.

    Example:
        >>> import itertools
        >>> squares = ReadAhead(lambda number: number**2, itertools.count())
        >>> [next(squares) for _ in range(4)]
        [0, 1, 4, 9]
        >>> squares.close()
    """

    def __init__(self, read: Callable[[Wanted], Read], wanted: Iterable[Wanted]):
        self._read = read
        self._wanted = iter(wanted)
        self._pool = ThreadPoolExecutor(1)
        self._waiting: collections.deque[Future[Read]] = collections.deque()
        self._begin(_AHEAD)

    def __iter__(self) -> "ReadAhead[Wanted, Read]":
        return self

    def __next__(self) -> Read:
        if not self._waiting:
            self.close()
            raise StopIteration
        try:
            found = self._waiting.popleft().result()
        except BaseException:
            self.close()
            raise
        self._begin(1)
        return found

    def close(self) -> None:
        """End the thread, once it has read what it is at, and drop what was read."""
        while self._waiting:
            self._waiting.popleft().cancel()
        self._pool.shutdown()

    def _begin(self, number: int) -> None:
        for argument in itertools.islice(self._wanted, number):
            self._waiting.append(self._pool.submit(self._read, argument))
