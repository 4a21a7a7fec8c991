"""Non-zero weights per layer during training."""

import keras

from tfconvbias.analysis import num_nonzeros


class NonZeros(keras.callbacks.Callback):
    """Add `nonzeros/<layer>` to the logs of every epoch, for all layers with a kernel.

    Put it before callbacks that write the logs. The numbers are those of Neyshabur 2020, Figure 3.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Count after the epoch's last step."""
        if logs is not None:
            for name, count in num_nonzeros(self.model).items():
                logs[f"nonzeros/{name}"] = count
