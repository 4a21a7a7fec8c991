"""What a training is fed with: arrays in memory, images in files, or loaders of the user's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tfconvbias.lazy import data, keras
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.devices import Devices
from tfconvbias.training.environment import accelerators
from tfconvbias.training.errors import ConfigError
from tfconvbias.training.execution import Execution
from tfconvbias.training.run_config import RunConfig


class Feed:
    """Hands `fit` and `evaluate` the images of an `ImageDataset`, resident or streamed.

    Args:
        dataset: The images.
        batch_size: Images per step.
        seed: Of the order of the batches.
        shuffle: As in `ShuffledBatches`.
        devices: On which the training runs.
        execution: Says whether each epoch is one execution.

    Raises:
        ConfigError: If there are fewer images than one batch, or the options do not fit.
    """

    def __init__(
        self,
        dataset: data.ImageDataset,
        batch_size: int,
        seed: int,
        shuffle: bool,
        devices: Devices,
        execution: Execution,
    ):
        self.dataset = dataset
        self.devices = devices
        self.batches = ShuffledBatches(
            dataset.x_train, dataset.y_train, batch_size, seed, shuffle=shuffle
        )
        check_execution(dataset, devices, execution)
        self.is_on_device = execution.device_epochs == "on" or (
            execution.device_epochs == "auto"
            and devices.strategy == "none"
            and not isinstance(dataset, data.StreamedDataset)
            and bool(accelerators())
        )

    def example(self, split: str) -> tuple[Any, Any]:
        """The first images and labels of a split, as many as a batch holds."""
        images, labels = (part[: self.batches.batch_size] for part in self.dataset.split(split))
        return np.asarray(images), labels

    def train(self, model: keras.Model, first_epoch: int) -> tuple[Any, int | None]:
        """What `fit` takes as its batches from an epoch on, and as its steps per epoch."""
        if self.is_on_device:
            from tfconvbias.training.device_epochs import DeviceEpochs

            on_device = DeviceEpochs(self.batches)
            on_device.attach(model)
            return on_device.stream(first_epoch), 1
        return self.devices.stream(self.batches, first_epoch), self.batches.num_batches

    def measured(self, split: str) -> dict[str, Any]:
        """What `fit` takes as its validation data."""
        images_and_labels = self.dataset.split(split)
        if self.is_on_device:
            images_and_labels = tuple(map(keras.ops.convert_to_tensor, images_and_labels))
        given, size = measured_batches(images_and_labels, self.devices)
        return {"validation_data": given, "validation_batch_size": size}

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Raise what went wrong in reading as it was, and end the reading in the end.

        Backends report an error of a stream as one of their own.

        Raises:
            ConfigError: If an image could not be read.
        """
        try:
            yield
        except Exception as error:
            fault = self.batches.fault
            if fault is None:
                raise
            raise ConfigError(str(fault)) from error
        finally:
            self.batches.close()


class LoaderFeed:
    """Hands `fit` and `evaluate` loaders as they are.

    Args:
        loaders: The loaders.
        batch_size: What their batches hold.
        devices: One device.
        execution: How `fit` is carried out.

    Raises:
        ConfigError: If loaders and options do not fit.
    """

    def __init__(
        self, loaders: data.Loaders, batch_size: int, devices: Devices, execution: Execution
    ):
        check_execution(loaders, devices, execution)
        self.loaders = loaders
        self._fault: Exception | None = None
        with _as_config_error():
            self.num_batches = loaders.num_batches(batch_size)

    def example(self, split: str) -> tuple[Any, Any]:
        """The first batch of a split, checked."""
        with _as_config_error():
            return self.loaders.example(split)

    def train(self, model: keras.Model, first_epoch: int) -> tuple[Any, int | None]:
        """What `fit` takes as its batches from an epoch on, and as its steps per epoch."""
        if self.loaders.is_by_epoch:
            return self._watched(self.loaders.stream(first_epoch)), self.num_batches
        return self.loaders.train, self.loaders.steps_per_epoch

    def measured(self, split: str) -> dict[str, Any]:
        """What `fit` takes as its validation data."""
        return {"validation_data": self.loaders.split(split)}

    def _watched(self, batches: Iterable) -> Iterator:
        try:
            yield from batches
        except ValueError as error:
            self._fault = error
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Raise what is wrong with the batches as it is, and not as a backend reports it.

        Raises:
            ConfigError: If the epochs are not equally long.
        """
        try:
            yield
        except Exception as error:
            if self._fault is None:
                raise
            raise ConfigError(str(self._fault)) from error


def feed_of(
    dataset: data.ImageDataset | data.Loaders,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    devices: Devices,
    execution: Execution,
) -> Feed | LoaderFeed:
    """What hands a data set to `fit`.

    Raises:
        ConfigError: If data set and options do not fit.
    """
    if isinstance(dataset, data.Loaders):
        if not shuffle:
            raise ConfigError("Loaders have an order of their own. Received: shuffle=False")
        return LoaderFeed(dataset, batch_size, devices, execution)
    return Feed(dataset, batch_size, seed, shuffle, devices, execution)


def measured_batches(images_and_labels: Any, devices: Devices) -> tuple[Any, int | None]:
    """What `evaluate` takes, and the batch size; none for what comes in batches.

    Args:
        images_and_labels: A pair of arrays or image files and labels; or a loader.
        devices: On which the model was built.
    """
    if not isinstance(images_and_labels, tuple):
        return images_and_labels, None
    (images, labels), size = devices.evaluation(images_and_labels)
    if not isinstance(images, data.ImageFiles):
        return (images, labels), size
    from tfconvbias.training.file_batches import FileBatches

    return FileBatches(images, labels, size), None


def check_execution(
    dataset: data.ImageDataset | data.Loaders, devices: Devices, execution: Execution
) -> None:
    """Refuse what cannot be done with images that are not in memory.

    Raises:
        ConfigError: If they were to be held on the device, or loaders spread over devices.
    """
    is_loader = isinstance(dataset, data.Loaders)
    if execution.device_epochs == "on" and (is_loader or isinstance(dataset, data.StreamedDataset)):
        kind = "come from loaders" if is_loader else "stay in their files (stream)"
        raise ConfigError(
            f"device_epochs='on' holds the images on the device. Received: images that {kind}"
        )
    if is_loader and devices.strategy != "none":
        raise ConfigError(
            "Loaders are for one device; several take an image folder or a named data set. "
            f"Received: strategy={devices.strategy!r}"
        )


def check_loaders(config: RunConfig, loaders: data.Loaders) -> None:
    """Refuse what does not fit together, before a run folder is made.

    Raises:
        ConfigError: If the configuration asks for something that is the loaders' business, the
            network is to change images that it does not normalize, or the first batch that is
            measured is not as it should be.
    """
    plain = RunConfig()
    own = ["image_size", "include_extra", "num_train", "num_test", "subset_seed", "train_on_all"]
    asked = [name for name in own if getattr(config, name) != getattr(plain, name)]
    if config.stream == "on":
        asked.append("stream")
    if asked:
        raise ConfigError(
            f"{', '.join(asked)}: loaders decide themselves which images they give. "
            f"Received: loaders {loaders.name!r} and "
            + ", ".join(f"{name}={getattr(config, name)!r}" for name in asked)
        )
    if loaders.statistics is None and (
        config.augment != "none" or config.permute_pixels is not None
    ):
        raise ConfigError(
            "The network augments and permutes uint8 images only: give the loaders `statistics`. "
            f"Received: augment={config.augment!r}, permute_pixels={config.permute_pixels}"
        )
    with _as_config_error():
        for split in ("validation", "test"):
            if loaders.has(split):
                loaders.example(split)


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error
