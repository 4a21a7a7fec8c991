"""Keras callbacks that measure or guard a training run."""

from tfconvbias.callbacks.epoch_seeds import EpochSeeds
from tfconvbias.callbacks.finite_loss import StopOnNonFiniteLoss
from tfconvbias.callbacks.generalization_bound import GeneralizationBound
from tfconvbias.callbacks.locality_score import LocalityScore
from tfconvbias.callbacks.nonzeros import NonZeros

__all__ = [
    "EpochSeeds",
    "GeneralizationBound",
    "LocalityScore",
    "NonZeros",
    "StopOnNonFiniteLoss",
]
