"""Smaller models: from a zeroed one (threshold, measure, cut), or by importance (prune)."""

from tfconvbias.surgery.architecture import Architecture, LayerArchitecture, architecture
from tfconvbias.surgery.channel_groups import ChannelGroup, ChannelGroups, Slice, channel_groups
from tfconvbias.surgery.compact import compact
from tfconvbias.surgery.identity import identity_kernels
from tfconvbias.surgery.importance import channel_scores
from tfconvbias.surgery.layer_cuts import Axis, LayerCut, Tie, register_cut
from tfconvbias.surgery.plan import Plan, make_plan
from tfconvbias.surgery.prune import Pruned, PrunedGroup, PruningReport, prune
from tfconvbias.surgery.report import Report, report
from tfconvbias.surgery.threshold import threshold

__all__ = [
    "Architecture",
    "Axis",
    "ChannelGroup",
    "ChannelGroups",
    "LayerArchitecture",
    "LayerCut",
    "Plan",
    "Pruned",
    "PrunedGroup",
    "PruningReport",
    "Report",
    "Slice",
    "Tie",
    "architecture",
    "channel_groups",
    "channel_scores",
    "compact",
    "identity_kernels",
    "make_plan",
    "prune",
    "register_cut",
    "report",
    "threshold",
]
