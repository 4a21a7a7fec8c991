"""Stop a run whose loss is no longer a number."""

import math

import keras

from tfconvbias.arguments import checked


@checked
class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Stop training after an epoch whose loss is NaN or infinite, and say so in `diverged`.

    It checks the mean loss of the epoch, which a single NaN makes NaN, so that no training step
    has to wait for a check.

    Attributes:
        diverged: Number of the epoch with that loss, counted from 1; `None` while there is none.
    """

    def __init__(self):
        super().__init__()
        self.diverged: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Check the epoch's training loss."""
        if not math.isfinite((logs or {})["loss"]):
            self.diverged = epoch + 1
            self.model.stop_training = True
