"""Named data sets as uint8 arrays, image folders, embedded data and augmentation layers."""

from tfconvbias.data.sphere import (
    ConvTeacher,
    SphereRegression,
    conv_teacher,
    product_of_spheres,
    sphere_regression,
    uniform_sphere,
)

__all__ = [
    "ConvTeacher",
    "SphereRegression",
    "conv_teacher",
    "product_of_spheres",
    "sphere_regression",
    "uniform_sphere",
]
