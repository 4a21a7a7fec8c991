"""Locality of a layer during training."""

import keras

from tfconvbias.analysis import layer_locality
from tfconvbias.arguments import NonNegativeInt, PositiveInt, checked

_LOGGED = ("spread", "spread_ratio", "window_share", "window_share_ratio")


@checked
class LocalityScore(keras.callbacks.Callback):
    """Add `locality/<number>` of one layer to the logs of every epoch.

    The numbers are `spread`, `spread_ratio`, `window_share` and `window_share_ratio` of
    `analysis.layer_locality`. A ratio divides by the value of the same weights on permuted pixels,
    so that 1 means no locality. All are NaN while no unit has enough non-zero weights. Put the
    callback before callbacks that write the logs.

    Args:
        layer_name: Name of the layer. Defaults to the layer with the model's first kernel.
        input_shape: `(rows, cols, channels)` of the layer's input. Defaults to the model's input
            shape.
        window: Side of the window, in pixels.
        min_nonzeros: Units with fewer non-zero weights are left out.
        max_units: Number of units to measure, drawn with `seed`; `None` measures all.
        num_permutations: Number of permutations to compare with.
        seed: Seed of the draw and of the permutations, which are the same in every epoch.

    Example:
        >>> watcher = LocalityScore(window=3, max_units=64)
        >>> watcher.options["max_units"]
        64
    """

    def __init__(
        self,
        layer_name: str | None = None,
        input_shape: tuple[int, int, int] | None = None,
        window: PositiveInt = 9,
        min_nonzeros: int = 20,
        max_units: PositiveInt | None = 512,
        num_permutations: PositiveInt = 4,
        seed: NonNegativeInt = 0,
    ):
        super().__init__()
        self.layer_name = layer_name
        self.input_shape = input_shape
        self.options = {
            "window": window,
            "min_nonzeros": min_nonzeros,
            "max_units": max_units,
            "num_permutations": num_permutations,
            "seed": seed,
        }

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure after the epoch's last step."""
        if logs is not None:
            found = layer_locality(
                self.model, self.layer_name, self.input_shape, **self.options
            ).as_dict()
            logs.update({f"locality/{name}": found[name] for name in _LOGGED})
