"""Batches whose order depends on the seed and the epoch alone."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked
from tfconvbias.lazy import data
from tfconvbias.training.errors import ConfigError

if TYPE_CHECKING:
    from tfconvbias.data.image_files import ReadAhead


def check_batch_size(batch_size: int, num_train: int) -> None:
    """A `ConfigError` where there are fewer samples than one batch."""
    if batch_size > num_train:
        raise ConfigError(
            f"batch_size must not exceed the {num_train} training samples. "
            f"Received: batch_size={batch_size}"
        )


@checked
class ShuffledBatches:
    """Full batches of arrays in an order that is a function of `(seed, epoch)`.

    A run that is resumed at epoch e sees the batches that the uninterrupted run would have seen.
    The samples left over after the last full batch are skipped; another order skips others.

    One generator serves all epochs of a `fit`, since Keras may open the next epoch's iterator of a
    `PyDataset` before it says that the epoch is over:

    ```
    batches = ShuffledBatches(x, y, batch_size=128, seed=0)
    model.fit(batches.stream(), steps_per_epoch=batches.num_batches, shuffle=False)
    ```

    Images in files are read two batches ahead, in threads.

    Args:
        x: `(samples, …)` inputs: an array, or `data.ImageFiles`.
        y: `(samples, …)` targets.
        batch_size: samples a batch.
        seed: seed of the orders.
        shuffle: whether each epoch has an order of its own; without, all have the samples' own.

    Raises:
        ConfigError: If there are fewer samples than one batch.
    """

    def __init__(
        self,
        x: np.ndarray | data.ImageFiles,
        y: np.ndarray,
        batch_size: PositiveInt,
        seed: NonNegativeInt,
        *,
        shuffle: bool = True,
    ):
        check_batch_size(batch_size, len(x))
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._readings: list[ReadAhead] = []
        self.fault: Exception | None = None
        """What went wrong in reading a batch; backends report it as an error of their own."""

    @property
    def num_batches(self) -> int:
        """Full batches an epoch."""
        return len(self.x) // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """Indices of an epoch's samples, `(num_batches, batch_size)`."""
        order = np.arange(len(self.x))
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.x))
        used = self.num_batches * self.batch_size
        return order[:used].reshape(self.num_batches, self.batch_size)

    def stream(
        self, first_epoch: int = 0, rows: slice = slice(None)
    ) -> Generator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of `first_epoch` (counted from 0) and of all that follow, endlessly.

        Args:
            first_epoch: The first epoch.
            rows: The rows of each batch that are wanted, where processes share a batch.
        """
        wanted = (
            chosen[rows] for epoch in itertools.count(first_epoch) for chosen in self.order(epoch)
        )
        if isinstance(self.x, np.ndarray):
            yield from map(self._batch, wanted)
        else:
            from tfconvbias.data.image_files import ReadAhead

            reading = ReadAhead(self._batch, wanted)
            self._readings.append(reading)
            yield from reading

    def close(self) -> None:
        """End all streams that read from files: backends may hold on to their generators."""
        while self._readings:
            self._readings.pop().close()

    def _batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            return np.asarray(self.x[chosen]), self.y[chosen]
        except Exception as error:
            self.fault = error
            raise
