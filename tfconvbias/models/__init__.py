"""The papers' model families, one family per file."""

from tfconvbias.models.alexnet import AlexNet
from tfconvbias.models.d_conv import DConv
from tfconvbias.models.float_image_model import FloatImageModel
from tfconvbias.models.model_family import ModelFamily
from tfconvbias.models.moving_statistics import match_statistics_momentum
from tfconvbias.models.parameter_counts import base_channels_for_budget, num_kernel_parameters
from tfconvbias.models.preset_files import PresetCard, PresetError, load_preset, presets
from tfconvbias.models.resnet18 import ResNet18
from tfconvbias.models.s_conv import SConv
from tfconvbias.models.structured_base import BASE_STRIDES, BASES, StructuredBase
from tfconvbias.models.three_fc import ThreeFC
from tfconvbias.models.two_layer_relu import HalfMeanSquaredError, TwoLayerReLU
from tfconvbias.models.vanilla_cnn import VanillaCNN, load_channels_first_weights

__all__ = [
    "BASES",
    "BASE_STRIDES",
    "AlexNet",
    "DConv",
    "FloatImageModel",
    "HalfMeanSquaredError",
    "ModelFamily",
    "PresetCard",
    "PresetError",
    "ResNet18",
    "SConv",
    "StructuredBase",
    "ThreeFC",
    "TwoLayerReLU",
    "VanillaCNN",
    "base_channels_for_budget",
    "load_channels_first_weights",
    "load_preset",
    "match_statistics_momentum",
    "num_kernel_parameters",
    "presets",
]
