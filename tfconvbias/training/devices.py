"""One training on many devices: which strategy, over which devices, and what must be the same."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.lazy import data, keras
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.errors import ConfigError, RunFolderError
from tfconvbias.training.run_folder import RunFolder

Strategy = Literal["none", "mirrored", "data_parallel", "model_parallel"]
"""How one training is spread over devices."""

BACKENDS = {
    "mirrored": "tensorflow",
    "data_parallel": "jax",
    "model_parallel": "jax",
}
"""Strategy → the only backend on which it spreads anything."""

PROCESS_VARIABLES = (
    "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "KERAS_DISTRIBUTION_PROCESS_ID",
)
"""Environment variables of Keras that name the processes of one training."""

Layout = Mapping[str, tuple[str | None, ...]]
"""Regular expression over variable paths → for each axis `"model"` (cut) or `None` (whole)."""


class Devices:
    """One device in one process, and the base of what spreads a training over more.

    Made by `distribute`. A batch is the same global batch on any number of devices: each replica
    takes an equal part of it.
    """

    strategy: ClassVar[str] = "none"

    num_replicas: int = 1
    """Equal parts into which a batch is cut."""
    num_processes: int = 1
    """Processes that train together."""
    process: int = 0
    """Number of this process. The first one, 0, is the chief, which alone writes the results."""

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.process == 0

    def __str__(self) -> str:
        processes = f" in {self.num_processes} processes" if self.num_processes > 1 else ""
        return f"{self.strategy}, {self.num_replicas} replica(s){processes}"

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Variables made inside are placed on all devices."""
        yield

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Work inside takes part in that of the other processes, and ends where one of them ends.

        Raises:
            LostProcessError: If another process has ended or cannot be reached.
        """
        yield

    def prepare(self, model: keras.Model) -> None:
        """Make the step of a compiled model mean the same on any number of devices.

        Under tf.distribute batch normalization then takes its statistics over the global batch,
        and each replica draws random numbers of its own. On JAX there is nothing to do: its step is
        written, and compiled, for the global batch.

        Args:
            model: Built and compiled in the scope.

        Raises:
            ConfigError: If the model was made outside of the scope, or its optimizer clips
                gradients, which tf.distribute does before they are added up.
        """

    def check(self, batch_size: int, device_epochs: bool = False, jit_compile: str = "auto"):
        """Check that a batch can be cut into equal parts.

        Args:
            batch_size: Of the global batch.
            device_epochs: Whether an epoch is to be one execution.
            jit_compile: As in `RunConfig`.

        Raises:
            ConfigError: If it cannot, or an option is of no use with the strategy.
        """
        if batch_size % self.num_replicas:
            raise ConfigError(
                f"batch_size must be a multiple of the {self.num_replicas} replicas of "
                f"strategy={self.strategy!r}. Received: batch_size={batch_size}"
            )
        if self.strategy == "none":
            return
        if device_epochs:
            raise ConfigError(
                "device_epochs='on' holds the images on one device. "
                f"Received: strategy={self.strategy!r}"
            )
        if jit_compile == "on" and BACKENDS[self.strategy] == "tensorflow":
            raise ConfigError(
                "tf.distribute does not run inside of XLA: jit_compile must be 'auto' or 'off'. "
                f"Received: strategy={self.strategy!r}"
            )

    def stream(self, batches: ShuffledBatches, first_epoch: int) -> Any:
        """What this process hands to `fit` as its batches, from `first_epoch` on."""
        return batches.stream(first_epoch)

    def evaluation(self, images_and_labels: tuple) -> tuple[tuple, int]:
        """What this process hands to `evaluate`, and the batch size, so that every image counts.

        No replica may be left without an image in the last batch.

        Raises:
            ConfigError: If there are too few images for that.
        """
        num = len(images_and_labels[0])
        for size in range(data.EVALUATION_BATCH_SIZE, self.num_replicas - 1, -1):
            # Keras adds up the parts of the first batch to learn their shape: they must be equal.
            is_even = min(num, size) % self.num_replicas == 0
            if is_even and self._spreads(num % size):
                return images_and_labels, size
        raise ConfigError(
            f"{num} images are too few to be measured on {self.num_replicas} replicas."
        )

    def _spreads(self, num: int) -> bool:
        """Whether every replica gets images of a batch that is cut into parts, rounded up."""
        part = -(-num // self.num_replicas)
        return num == 0 or num > part * (self.num_replicas - 1)

    def gather(self, number: int) -> list[int]:
        """The numbers that the processes pass, each in its place; all must call it."""
        return [number]

    def work_folder(self, folder: RunFolder, config: Any, images: Any) -> RunFolder:
        """Where this process writes: the run's folder, or one of its own, removed in the end.

        Every process saves what it trains, since reading distributed variables takes them all, but
        only the chief's files are kept.

        Args:
            folder: The run's folder, on storage that all processes see.
            config: The run's configuration.
            images: Its data set.

        Raises:
            RunFolderError: If the processes see different checkpoints in the folder.
        """
        if self.num_processes == 1:
            return folder
        found = folder.checkpoint()
        epochs = self.gather(0 if found is None else found[0])
        if len(set(epochs)) > 1:
            raise RunFolderError(
                f"The processes see different checkpoints in {folder.path} (of epochs "
                f"{', '.join(map(str, epochs))}). It must lie on storage that all of them share."
            )
        if self.is_chief:
            return folder
        path = Path(tempfile.mkdtemp(prefix="tfconvbias-"))
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        own = RunFolder(path / "run")
        own.claim(config, images)
        if found is not None:
            own.take_over(folder)
            own.best.take_over(folder.best)
        # The chief goes on, and may replace what is copied here, only now.
        return own


@checked
def distribute(
    strategy: Strategy = "none",
    *,
    num_devices: PositiveInt | None = None,
    layout: Layout | None = None,
    num_shards: PositiveInt | None = None,
) -> Devices:
    """Spread a training over the devices of this machine, or of a cluster.

    | strategy | backend | what it does |
    |---|---|---|
    | `mirrored` | TensorFlow | a replica on each GPU of this machine (`tf.distribute`) |
    | `data_parallel` | JAX | parts of the batch on all devices, of all processes |
    | `model_parallel` | JAX | dense kernels cut up, for models too large for one device |

    For `data_parallel` over several processes set `KERAS_DISTRIBUTION_JOB_ADDRESSES` (HOST:PORT of
    process 0), `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID` (from 0),
    which `keras.distribution.initialize` reads, and call `distribute` first thing in the program.
    tf.distribute over several machines (`MultiWorkerMirroredStrategy`) is not offered, since Keras
    3.15 cannot train there: `fit` cannot build a model from a batch that lies on several workers,
    and with a model that was built before it takes the mean over axis 0 of a loss without axes.

    `training.run` does all this itself, from `RunConfig(strategy=…)`. For a `model.fit` of your
    own build and compile the model inside the scope, then `prepare` it. On one device
    (`strategy="none"`) the same lines do nothing.

    Batch size, batch normalization, β-LASSO's penalty and threshold, and the loss mean the same on
    any number of devices. Random numbers (dropout, augmentation) do on JAX; under tf.distribute
    the replicas draw numbers of their own, so there they depend on the number of replicas.

    Args:
        strategy: One of the table, or `"none"`.
        num_devices: Use the first so many devices of this machine. Defaults to all.
        layout: For `model_parallel`: which kernels are cut along which axis, as in `LAYOUTS`.
        num_shards: For `model_parallel`: parts of a kernel; the batch is cut into
            devices / parts. Defaults to the number of devices.

    Returns:
        What to enter (`scope`), to prepare the model with, and to ask for numbers.

    Raises:
        ConfigError: If the strategy would not spread anything on this backend, there are fewer
            devices than asked for, or the environment asks for several processes in a way that
            the strategy cannot follow.

    Example:
        >>> devices = distribute("none")
        >>> with devices.scope():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        ...     model.compile("sgd", "mse")
        >>> devices.prepare(model)
        >>> model.fit(keras.ops.ones((8, 4)), keras.ops.ones((8, 2)), verbose=0).epoch
        [0]
    """
    _check_processes(strategy)
    if strategy == "none":
        return Devices()
    if strategy not in BACKENDS:
        shown = ", ".join(map(repr, ("none", *BACKENDS)))
        raise ConfigError(f"strategy must be one of {shown}. Received: strategy={strategy!r}")
    backend = keras.config.backend()
    if backend != BACKENDS[strategy]:
        others = [name for name, needed in BACKENDS.items() if needed == backend]
        advice = f"use {' or '.join(others)}" if others else "train on one device"
        raise ConfigError(
            f"strategy={strategy!r} spreads a training on the {BACKENDS[strategy]} backend only; "
            f"on {backend} it would train on one device without saying so. Set KERAS_BACKEND, "
            f"or {advice}."
        )
    if backend == "tensorflow":
        from tfconvbias.training.tensorflow_devices import Mirrored

        return Mirrored(num_devices)
    from tfconvbias.training.jax_devices import DataParallel, ModelParallel

    if strategy == "data_parallel":
        return DataParallel(num_devices)
    if layout is None:
        raise ConfigError("strategy='model_parallel' needs a `layout`, such as LAYOUTS['s'].")
    return ModelParallel(num_devices, layout, num_shards)


def _check_processes(strategy: str) -> None:
    """Check the environment variables by which processes find each other.

    Raises:
        ConfigError: If only some of them are set, one has a value that cannot be used, or the
            strategy would train once in each process.
    """
    given = {name: os.environ[name] for name in PROCESS_VARIABLES if name in os.environ}
    if not given:
        return
    shown = ", ".join(f"{name}={value}" for name, value in given.items())
    count, number = (given.get(name, "") for name in PROCESS_VARIABLES[1:])
    is_whole = len(given) == len(PROCESS_VARIABLES) and count.isdecimal() and number.isdecimal()
    if not is_whole or int(number) >= int(count):
        raise ConfigError(
            "Processes that train together need KERAS_DISTRIBUTION_JOB_ADDRESSES=HOST:PORT of the "
            "first one, KERAS_DISTRIBUTION_NUM_PROCESSES=N and KERAS_DISTRIBUTION_PROCESS_ID, "
            f"which is 0 to N - 1. Received: {shown}"
        )
    if strategy != "data_parallel" and int(count) > 1:
        raise ConfigError(
            "Only strategy='data_parallel' trains in several processes together; with another one "
            f"each would train for itself. Received: strategy={strategy!r}, {shown}"
        )


def choose(found: list, num_devices: int | None) -> list:
    """The first devices of those found.

    Raises:
        ConfigError: If there are fewer.
    """
    if num_devices is not None and len(found) < num_devices:
        raise ConfigError(
            f"There are {len(found)} devices here. Received: num_devices={num_devices}"
        )
    return found[:num_devices]
