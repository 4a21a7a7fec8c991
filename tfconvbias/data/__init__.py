"""Named data sets as uint8 arrays, image folders, embedded data and augmentation layers."""

from tfconvbias.data.augmentation_policy import OPERATIONS, PUBLISHED_POLICIES
from tfconvbias.data.cutout import Cutout
from tfconvbias.data.fast_auto_augment import FastAutoAugment, ImageOperation
from tfconvbias.data.image_dataset import (
    EVALUATION_BATCH_SIZE,
    ImageDataset,
    permute_pixels,
    pixel_permutation,
)
from tfconvbias.data.image_files import ImageFiles
from tfconvbias.data.image_folder import ImageFolderError
from tfconvbias.data.loaders import Loaders
from tfconvbias.data.loading import DATASET_NAMES, load
from tfconvbias.data.motifs import make_motifs
from tfconvbias.data.named import DatasetUnavailableError
from tfconvbias.data.normalize import PUBLISHED_STATISTICS, Normalize, channel_statistics
from tfconvbias.data.pad_crop import PadCrop
from tfconvbias.data.permuted_pixels import PermutePixels
from tfconvbias.data.preprocessing import (
    AUGMENTATIONS,
    AugmentationLayers,
    Preprocessing,
    augmentation,
    preprocessing,
)
from tfconvbias.data.sphere import product_of_spheres, sphere_regression, uniform_sphere
from tfconvbias.data.streamed_dataset import STREAM_ABOVE, StreamedDataset
from tfconvbias.data.teacher import (
    ConvTeacher,
    TeacherRegression,
    conv_teacher,
    teacher_regression,
)
from tfconvbias.data.views import patch_views

__all__ = [
    "AUGMENTATIONS",
    "DATASET_NAMES",
    "EVALUATION_BATCH_SIZE",
    "OPERATIONS",
    "PUBLISHED_POLICIES",
    "PUBLISHED_STATISTICS",
    "STREAM_ABOVE",
    "AugmentationLayers",
    "ConvTeacher",
    "Cutout",
    "DatasetUnavailableError",
    "FastAutoAugment",
    "ImageDataset",
    "ImageFiles",
    "ImageFolderError",
    "ImageOperation",
    "Loaders",
    "Normalize",
    "PadCrop",
    "PermutePixels",
    "Preprocessing",
    "StreamedDataset",
    "TeacherRegression",
    "augmentation",
    "channel_statistics",
    "conv_teacher",
    "load",
    "make_motifs",
    "patch_views",
    "permute_pixels",
    "pixel_permutation",
    "preprocessing",
    "product_of_spheres",
    "sphere_regression",
    "teacher_regression",
    "uniform_sphere",
]
