"""Numbers in, matplotlib figures out."""

from tfconvbias.plots.architectures import (
    Series,
    accuracy_frontier,
    kernel_size_histograms,
    path_curves,
    width_snakes,
)
from tfconvbias.plots.code_lengths import code_lengths
from tfconvbias.plots.depth_curves import depth_and_spectrum
from tfconvbias.plots.eigenvalue_density import eigenvalue_density
from tfconvbias.plots.embedding import (
    against_switch_time,
    deviation_panels,
    interpolation_panels,
    log_weight_images,
    masked_accuracy,
    switch_time_curves,
)
from tfconvbias.plots.figure import show_names_as_they_are, stack_panels
from tfconvbias.plots.filter_images import filter_images
from tfconvbias.plots.interactive import bokeh_script, has_bokeh, interactive
from tfconvbias.plots.kernel_groups import group_supports, size_snakes
from tfconvbias.plots.scaling import (
    accuracy_against_kernel_size,
    accuracy_against_parameters,
    accuracy_pairs,
    parameter_curves,
)
from tfconvbias.plots.spread_curves import spread_curves
from tfconvbias.plots.stability_curves import (
    against_patch_size,
    gap_against,
    gap_curves,
    gaps_by_group,
    sharpness_and_accuracy,
    sharpness_curves,
    units_of_networks,
)
from tfconvbias.plots.training_curves import accuracy_curves, nonzero_curves

__all__ = [
    "Series",
    "accuracy_against_kernel_size",
    "accuracy_against_parameters",
    "accuracy_curves",
    "accuracy_frontier",
    "accuracy_pairs",
    "against_patch_size",
    "against_switch_time",
    "bokeh_script",
    "code_lengths",
    "depth_and_spectrum",
    "deviation_panels",
    "eigenvalue_density",
    "filter_images",
    "gap_against",
    "gap_curves",
    "gaps_by_group",
    "group_supports",
    "has_bokeh",
    "interactive",
    "interpolation_panels",
    "kernel_size_histograms",
    "log_weight_images",
    "masked_accuracy",
    "nonzero_curves",
    "parameter_curves",
    "path_curves",
    "sharpness_and_accuracy",
    "sharpness_curves",
    "show_names_as_they_are",
    "size_snakes",
    "spread_curves",
    "stack_panels",
    "switch_time_curves",
    "units_of_networks",
    "width_snakes",
]
