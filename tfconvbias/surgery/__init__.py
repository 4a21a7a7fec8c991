"""Smaller models: from a zeroed one (threshold, measure, cut), or by importance (prune)."""

from tfconvbias.surgery.architecture import Architecture, LayerArchitecture, architecture
from tfconvbias.surgery.channel_groups import ChannelGroup, ChannelGroups, Slice, channel_groups
from tfconvbias.surgery.compact import compact
from tfconvbias.surgery.densify import densify
from tfconvbias.surgery.identity import identity_kernels
from tfconvbias.surgery.importance import channel_scores
from tfconvbias.surgery.layer_cuts import Axis, LayerCut, Tie, register_cut
from tfconvbias.surgery.plan import Plan, make_plan
from tfconvbias.surgery.prune import Pruned, PrunedGroup, PruningReport, prune
from tfconvbias.surgery.report import Report, report
from tfconvbias.surgery.sparsify import Sparsified, sparsify
from tfconvbias.surgery.sparsity_report import LayerChoice, LayerKind, SparsityReport
from tfconvbias.surgery.threshold import threshold

__all__ = [
    "Architecture",
    "Axis",
    "ChannelGroup",
    "ChannelGroups",
    "LayerArchitecture",
    "LayerChoice",
    "LayerCut",
    "LayerKind",
    "Plan",
    "Pruned",
    "PrunedGroup",
    "PruningReport",
    "Report",
    "Slice",
    "Sparsified",
    "SparsityReport",
    "Tie",
    "architecture",
    "channel_groups",
    "channel_scores",
    "compact",
    "densify",
    "identity_kernels",
    "make_plan",
    "prune",
    "register_cut",
    "report",
    "sparsify",
    "threshold",
]
