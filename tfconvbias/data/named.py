"""The named data sets, which TensorFlow Datasets prepares, as NumPy arrays."""

import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfconvbias.optional import require

PROBE_SECONDS = 10.0

TFDS_NAMES = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "svhn": "svhn_cropped",
    "mnist": "mnist",
}
"""Our names of data sets and those of TensorFlow Datasets."""


class DatasetUnavailableError(RuntimeError):
    """A named data set is not available on this machine, most often because there is no network.

    Its message says why and what to do instead; a command line can name the exact command.

    Attributes:
        name: The data set's name.
        reason: The underlying cause, in one line.
    """

    def __init__(self, name: str, reason: str):
        self.name = name
        self.reason = reason
        super().__init__(
            f"The data set {name!r} is not available: {reason}. Instead: run the same command with "
            "`--demo` (small, on embedded images), or with `--dataset PATH`, a folder of images "
            "train/<class>/* and test/<class>/*, or with `--data-dir DIR`, a folder where "
            f"TensorFlow Datasets has prepared {TFDS_NAMES.get(name, name)!r} before. In Python: "
            'load("motifs10"), load(PATH) or load(name, data_dir=DIR).'
        )

    def __reduce__(self):
        # By default an error is pickled with its message, which is not what this one is made from.
        return type(self), (self.name, self.reason)


def load_tfds(
    name: str, data_dir: str | os.PathLike | None, *, include_extra: bool = False
) -> dict[str, Any]:
    """Reads a named data set through TensorFlow Datasets, downloading it if needed.

    Args:
        name: A key of `TFDS_NAMES`.
        data_dir: Where TensorFlow Datasets keeps its files; its own default if `None`.
        include_extra: Whether to append svhn's 531,131 extra images to the training images.

    Returns:
        A dict with the keys x_train, y_train, x_test, y_test, class_names and source.

    Raises:
        DatasetUnavailableError: If the data set is neither prepared nor downloadable.
    """
    try:
        tfds = require("tensorflow_datasets", "datasets", "A data set of TensorFlow Datasets")
    except ImportError as error:
        raise DatasetUnavailableError(name, f"importing TensorFlow Datasets: {error}") from error
    builder = tfds.builder(
        TFDS_NAMES[name], data_dir=None if data_dir is None else os.fspath(data_dir), try_gcs=False
    )
    # builder.is_prepared() would ask the same, with a logged warning where the answer is no.
    if not (Path(builder.data_dir) / "dataset_info.json").exists():
        _prepare(name, builder)
    splits = ["train", "extra"] if include_extra else ["train"]
    x_train, y_train = _read(tfds, builder, splits)
    x_test, y_test = _read(tfds, builder, ["test"])
    return {
        "x_train": x_train,
        "y_train": y_train,
        "x_test": x_test,
        "y_test": y_test,
        "class_names": tuple(builder.info.features["label"].names),
        "source": f"TensorFlow Datasets {builder.info.full_name}, splits {'+'.join(splits)}, test",
    }


def _prepare(name: str, builder) -> None:
    # Without a network TensorFlow Datasets retries for 200 seconds, with a warning each time. So
    # ask first whether the server answers, unless an earlier download makes that needless.
    downloads = Path(builder.data_dir_root) / "downloads" / builder.name
    if not any(path.is_file() and ".tmp." not in path.name for path in downloads.rglob("*")):
        _probe(name, (builder.url_infos or {}).keys())
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever went wrong, it is named and chained
        reason = f"TensorFlow Datasets failed in {builder.data_dir_root}: {_one_line(error)}"
        raise DatasetUnavailableError(name, reason) from error


def _probe(name: str, urls: Iterable[str]) -> None:
    """Raises an error unless the server of every URL answers anything within 10 seconds."""
    failures: list[Exception] = []

    def ask(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            # The addresses are those of TensorFlow Datasets, none is a user's.
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()  # nosec B310
        except urllib.error.HTTPError as error:  # it answered; the download itself may do better
            error.close()
        except OSError as error:
            failures.append(error)

    for url in {urllib.parse.urlsplit(url).netloc: url for url in urls}.values():
        # In a thread, because looking up a host's name heeds no timeout.
        thread = threading.Thread(target=ask, args=(url,), daemon=True)
        thread.start()
        thread.join(1.5 * PROBE_SECONDS)
        if thread.is_alive():
            raise DatasetUnavailableError(name, f"no answer from {url}")
        if failures:
            reason = f"{url} cannot be reached: {_one_line(failures[0])}"
            raise DatasetUnavailableError(name, reason) from failures[0]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _read(tfds, builder, splits: list[str]) -> tuple[np.ndarray, np.ndarray]:
    # In batches into arrays of the final size: svhn with its extra images takes 1.9 GB as it is.
    total = sum(builder.info.splits[split].num_examples for split in splits)
    images = np.empty((total, *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(total, np.int32)
    start = 0
    for split in splits:
        dataset = builder.as_dataset(split=split, batch_size=1000, shuffle_files=False)
        for batch in tfds.as_numpy(dataset):
            stop = start + len(batch["label"])
            images[start:stop], labels[start:stop] = batch["image"], batch["label"]
            start = stop
    return images, labels
