"""Batches of images that are read from their files, for measuring."""

import keras
import numpy as np

from tfconvbias.data import ImageFiles


class FileBatches(keras.utils.PyDataset):
    """Images and labels in their own order, batch by batch, the next of which is being read.

    Args:
        images: The files.
        labels: `(n,)` integers.
        batch_size: Images in a batch; the last may hold fewer.
    """

    def __init__(self, images: ImageFiles, labels: np.ndarray, batch_size: int):
        super().__init__(workers=2, max_queue_size=2)
        self.images = images
        self.labels = labels
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return np.asarray(self.images[rows]), self.labels[rows]
