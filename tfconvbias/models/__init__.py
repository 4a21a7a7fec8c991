"""The papers' model families, one family a file."""

from tfconvbias.models.d_conv import DConv
from tfconvbias.models.parameter_counts import base_channels_for_budget, num_kernel_parameters
from tfconvbias.models.resnet18 import ResNet18
from tfconvbias.models.s_conv import SConv
from tfconvbias.models.three_fc import ThreeFC
from tfconvbias.models.two_layer_relu import HalfMeanSquaredError, TwoLayerReLU

__all__ = [
    "DConv",
    "HalfMeanSquaredError",
    "ResNet18",
    "SConv",
    "ThreeFC",
    "TwoLayerReLU",
    "base_channels_for_budget",
    "num_kernel_parameters",
]
