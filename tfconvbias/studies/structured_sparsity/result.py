"""A finished sweep, and what it keeps of each network's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfconvbias.lazy import keras, surgery
from tfconvbias.studies.structured_sparsity.config import SparsityConfig
from tfconvbias.studies.structured_sparsity.steps import Reduced
from tfconvbias.training import History, RunFolder

_LAYER_FIELDS = (
    *("name", "kind", "kernels", "live_kernels", "kept_kernels"),
    *("kernel_size", "kept_kernel_size", "sizes", "multiply_adds"),
)


@dataclass(frozen=True)
class SparsityResult:
    """A finished sweep, as it is read from its folder.

    Attributes:
        config: What was run.
        rows: The networks, the base first: `kind` is `"base"`, `"found"`, `"uniform"` or
            `"random"`.
        histories: Name of a training → its columns, epoch by epoch.
        folder: The run folder; each training has the part of its name.
    """

    config: SparsityConfig
    rows: list[dict[str, Any]]
    histories: dict[str, History]
    folder: RunFolder

    @property
    def base(self) -> dict[str, Any]:
        """The base's row."""
        return self.rows[0]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Rows of a kind, in the order in which they were run."""
        return [row for row in self.rows if row["kind"] == kind]

    def model_file(self, name: str) -> Path:
        """The trained network of a row's name."""
        return self.folder.part(name).last_model


def lost_layers(reduced: Reduced) -> dict[str, Any]:
    """What the threshold has left of the old architecture, layer by layer, as JSON holds it."""
    before, after = reduced.report.before, reduced.report.after
    kept = {layer.name for layer in after.layers}
    return {
        "theoretical_multiply_adds": before.total("theoretical_multiply_adds"),
        "architecture": [_layer(layer) for layer in before.layers],
        "vanished": [layer.name for layer in before.layers if layer.name not in kept],
        "identity_kernels": sum(surgery.identity_kernels(reduced.thresholded).values()),
        "messages": list(reduced.messages),
    }


def layer_rows(network: keras.Model) -> list[dict[str, Any]]:
    """The architecture of a network, layer by layer, as JSON holds it."""
    return [_layer(layer) for layer in surgery.architecture(network).layers]


def _layer(layer: surgery.LayerArchitecture) -> dict[str, Any]:
    row = {name: getattr(layer, name) for name in _LAYER_FIELDS}
    # JSON knows no numbers as keys.
    return row | {"sizes": {str(size): count for size, count in layer.sizes.items()}}
