"""Random layers whose draws depend on the seed and the epoch alone."""

import keras
import numpy as np

from tfconvbias.arguments import NonNegativeInt, checked


@checked
class EpochSeeds(keras.callbacks.Callback):
    """Set every seed generator of the model at the start of an epoch from `(seed, epoch)`.

    Keras does not save the state of dropout's and augmentation's generators with a model. With
    this callback a resumed run draws what the uninterrupted run would have drawn.

    Args:
        seed: Non-negative integer.
    """

    def __init__(self, seed: NonNegativeInt):
        super().__init__()
        self.seed = seed
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Give the generator at position i the state `[hash(seed, epoch, i), 0]`."""
        states = [v for v in self.model.variables if v.path.endswith("seed_generator_state")]
        for position, state in enumerate(states):
            words = np.random.SeedSequence((self.seed, epoch, position)).generate_state(1)
            state.assign(np.array([words[0] >> 1, 0]))
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """On PyTorch, where Keras' dropout draws from the global generator, seed that one too."""
        # At the first batch: before it, making the data loader draws a number, once in each `fit`.
        if batch == 0 and keras.config.backend() == "torch":
            import torch

            words = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)
            torch.manual_seed(int(words[0]))
