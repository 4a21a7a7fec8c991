"""Stop a run whose loss is no longer a number."""

import math

import keras


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Stop training after an epoch whose loss is NaN or infinite, and say so in `diverged`.

    Looks at the epoch's mean loss, into which one bad step shows, so that no step waits for it.

    Attributes:
        diverged: number of the epoch, counted from 1, or `None`.
    """

    def __init__(self):
        super().__init__()
        self.diverged: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Check the epoch's training loss."""
        if not math.isfinite((logs or {})["loss"]):
            self.diverged = epoch + 1
            self.model.stop_training = True
