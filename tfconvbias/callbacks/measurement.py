"""The base of callbacks that measure every few epochs."""

import keras

from tfconvbias.arguments import PositiveInt, checked


@checked
class Measurement(keras.callbacks.Callback):
    """Add the numbers of `measure` to the logs every `every` epochs.

    In the epochs between, the same names hold NaN, so that all columns of a history have the same
    length. Put measuring callbacks before those that write the logs.

    Args:
        every: Epochs between two measurements. The last epoch is always measured.

    Raises:
        ValueError: If `every` is below 1.
    """

    names: tuple[str, ...] = ()

    def __init__(self, every: PositiveInt = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        self.every = every

    def measure(self, logs: dict) -> dict[str, float]:
        """One value for each of `names`, measured on the present model."""
        raise NotImplementedError

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure after the epoch's last step."""
        if logs is None:
            return
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params.get("epochs"):
            logs.update(self.measure(logs))
        else:
            logs.update(dict.fromkeys(self.names, float("nan")))
