"""Keep the weights of chosen epochs."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfconvbias.arguments import PositiveInt, checked


@checked
def log_spaced_epochs(epochs: PositiveInt, num: int = 20) -> tuple[int, ...]:
    """Epochs 0, 1 and on to the last, spaced evenly on a logarithmic axis.

    They are 0, the distinct integer parts of `num` points from 1 to `epochs`, and `epochs` itself.

    Args:
        epochs: The last epoch.
        num: Number of points on the axis.

    Returns:
        Increasing epochs.

    Raises:
        ValueError: If `epochs` or `num` is not positive.

    Example:
        >>> log_spaced_epochs(150)
        (0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, 40, 52, 67, 88, 115, 150)

    Reference:
        d'Ascoli et al., 2019, Figure 2.
    """
    if epochs < 1 or num < 1:
        raise ValueError(
            f"`epochs` and `num` must be positive. Received: epochs={epochs}, num={num}"
        )
    # A little is added, since the last point of the axis may come out just below its integer.
    points = np.geomspace(1, epochs, num) + 1e-9
    return tuple(sorted({0, *(int(point) for point in points), epochs}))


@checked
class Snapshots(keras.callbacks.Callback):
    """Write the model's weights to `folder/epoch-N.weights.h5` after chosen epochs.

    Epochs are counted from 1; epoch 0 is the state before the first step and is not written when
    training resumes at a later epoch. A file is complete or absent: it is written under another
    name and then renamed. Files that exist already are kept, since a resumed run reaches the same
    weights.

    Args:
        folder: Folder for the files, made if it is missing.
        epochs: Epochs whose weights are kept, for instance those of `log_spaced_epochs`.

    Raises:
        ValueError: If an epoch is negative.

    Example:
        >>> Snapshots("run/snapshots", [0, 1, 10]).path(10).name
        'epoch-10.weights.h5'
    """

    def __init__(self, folder: str | Path, epochs: Sequence[int]):
        super().__init__()
        if any(epoch < 0 for epoch in epochs):
            raise ValueError(f"`epochs` must not be negative. Received: epochs={epochs}")
        self.folder = Path(folder)
        self.epochs = frozenset(epochs)

    def path(self, epoch: int) -> Path:
        """The file of an epoch."""
        return self.folder / f"epoch-{epoch}.weights.h5"

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the state before the first step."""
        if epoch == 0:
            self._write(0)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the state after an epoch."""
        self._write(epoch + 1)

    def _write(self, epoch: int) -> None:
        path = self.path(epoch)
        if epoch not in self.epochs or path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        self.model.save_weights(unfinished)
        unfinished.replace(path)
