"""Keras callbacks that measure or guard a training run."""

from tfconvbias.callbacks.certified_sparsity import CertifiedSparsity, LayerEpoch
from tfconvbias.callbacks.epoch_seeds import EpochSeeds
from tfconvbias.callbacks.finite_loss import StopOnNonFiniteLoss
from tfconvbias.callbacks.freeze_support import FreezeAudit, FreezeSupport
from tfconvbias.callbacks.generalization_bound import GeneralizationBound
from tfconvbias.callbacks.kernel_statistics import KernelCorrelation, LiveKernels
from tfconvbias.callbacks.locality_score import LocalityScore
from tfconvbias.callbacks.measurement import Measurement
from tfconvbias.callbacks.nonzeros import NonZeros
from tfconvbias.callbacks.prune_during_fit import PruneDuringFit
from tfconvbias.callbacks.relu_units import ActiveUnits, GeneralizationGap, PathNorm
from tfconvbias.callbacks.sharpness import Sharpness
from tfconvbias.callbacks.snapshots import Snapshots, log_spaced_epochs
from tfconvbias.callbacks.sparsity_schedule import SparsitySchedule

__all__ = [
    "ActiveUnits",
    "CertifiedSparsity",
    "EpochSeeds",
    "FreezeAudit",
    "FreezeSupport",
    "GeneralizationBound",
    "GeneralizationGap",
    "KernelCorrelation",
    "LayerEpoch",
    "LiveKernels",
    "LocalityScore",
    "Measurement",
    "NonZeros",
    "PathNorm",
    "PruneDuringFit",
    "Sharpness",
    "Snapshots",
    "SparsitySchedule",
    "StopOnNonFiniteLoss",
    "log_spaced_epochs",
]
