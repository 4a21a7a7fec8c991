"""The tables of the draft and its Figure 2: architectures counted, nested groups drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.lazy import keras, models, plots, surgery
from tfconvbias.studies.structured_sparsity.googlenet import GoogLeNet
from tfconvbias.training import (
    Config,
    ConfigError,
    environment,
    environment_note,
    format_table,
    option,
    write_page,
)


class Published(NamedTuple):
    """A row of the draft's Table 1, as printed: errors are 1-crop / 10-crop.

    Attributes:
        top1: Top-1 error.
        top5: Top-5 error.
        depth: D.
        parameters: Learned parameters.
        multiply_adds: Per image.
    """

    top1: str
    top5: str
    depth: int
    parameters: str
    multiply_adds: str


TABLE_1: Mapping[str, Published] = {
    "AlexNet": Published("– / 40.7 %", "– / 18.2 %", 7, "60M", "–"),
    "VGG-16": Published("27.0 % / –", "8.8 % / –", 16, "138M", "15.3B"),
    "GoogLeNet": Published("– / –", "10.07 % / 9.15 %", 22, "6.7M", "1.5B"),
    "ResNet-152": Published("– / 19.38 %", "– / 4.49 %", 152, "–", "11.3B"),
}
"""What the draft prints of known architectures."""


@dataclass(frozen=True)
class ArchitectureTable(Config):
    """Which known architectures are built and counted, and the kernel whose groups are drawn.

    Raises:
        ConfigError: If a value is out of its range.
    """

    networks: tuple[str, ...] = option(tuple(TABLE_1), f"some of {', '.join(TABLE_1)}")
    kernel_size: int = option(5, "edge ŝ of the kernel whose nested groups are drawn")
    run_dir: str = option(
        "runs/structured-sparsity-tables", "folder of figure and report", decides=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._distinct("networks")
        self._positive("kernel_size")
        unknown = [name for name in self.networks if name not in TABLE_1]
        if unknown:
            raise ConfigError(f"networks must be some of {', '.join(TABLE_1)}. Received: {unknown}")


@checked
def report_architectures(config: ArchitectureTable) -> None:
    """Build and count, print the tables and write the report with Figure 2."""
    tables = {
        "Table 1: known architectures": [architecture_row(name) for name in config.networks],
        "Table 2: base architectures": base_rows(),
    }
    for heading, rows in tables.items():
        print(f"\n{heading}\n\n{format_table(rows)}")
    size = config.kernel_size
    figure = plots.group_supports(
        {name: group_supports(size, name) for name in ("half_ring", "ring")}
    )
    caption = (
        f"Figure 2: positions of a {size}×{size} kernel that each nested group holds. Where the "
        "first n groups are zero, the white positions are left."
    )
    page = write_page(
        Path(config.run_dir) / "report.html",
        "Structured sparsity: architectures and groups",
        tables,
        {"groups": (caption, figure)},
        [f"Counted, not trained, on {environment_note(environment())}."],
        findings=_findings(tables["Table 1: known architectures"]),
        settings=config,
    )
    print(f"Report: {page}")


def _findings(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """For each network, whether the printed depth is the counted one."""
    return [
        f"{row['network']}: depth {row['D']}, "
        + ("as printed" if row["D"] == row["D, printed"] else f"printed {row['D, printed']}")
        + f"; {row['parameters']} parameters (printed {row['parameters, printed']}) and "
        f"{row['multiply-adds']} multiply-adds (printed {row['multiply-adds, printed']})."
        for row in rows
    ]


@checked
def architecture_row(name: str) -> dict[str, str]:
    """A row of Table 1: what the draft prints, and what the network has."""
    published, network = TABLE_1[name], _BUILDERS[name]()
    layers = surgery.architecture(network).layers
    convolutions = [layer for layer in layers if layer.kind != "Dense"]
    return {
        "network": name,
        "top-1 error": published.top1,
        "top-5 error": published.top5,
        "D, printed": str(published.depth),
        "D": str(network_depth(network)),
        "layer widths": _listed({layer.kernels for layer in convolutions}),
        "kernel sizes": _listed({layer.kernel_size for layer in convolutions}),
        "parameters, printed": published.parameters,
        "parameters": f"{network.count_params():,}",
        "multiply-adds, printed": published.multiply_adds,
        "multiply-adds": f"{sum(layer.multiply_adds for layer in layers):,}",
    }


@checked
def base_rows() -> list[dict[str, str]]:
    """Table 2, and the base that is ours: (width, kernel size) of the convolutions and cost."""
    rows = []
    for name, layers in models.BASES.items():
        network = models.StructuredBase(name, kernel_initializer="zeros")
        rows.append(
            {
                "base": name,
                "D": str(len(layers) + 1),
                "(width, kernel size)": _runs(layers),
                "parameters, residual": f"{network.count_params():,}",
                "multiply-adds, residual": (
                    f"{surgery.architecture(network).total('multiply_adds'):,}"
                ),
            }
        )
    return rows


@checked
def group_supports(size: int, groups: str) -> np.ndarray:
    """Boolean `(groups, size, size)`: whether a position of the kernel belongs to G_n.

    Args:
        size: Edge ŝ of the kernel.
        groups: `"half_ring"` or `"ring"`.
    """
    from tfconvbias.regularizers.nested_groups import memberships

    return memberships(size, 2, groups).reshape(-1, size, size)


@checked
def network_depth(network: keras.Model) -> int:
    """The most layers with a kernel on a way from input to output."""
    from tfconvbias.graph import facts_of, read_graph

    graph = read_graph(network)
    depths: list[int] = []
    for call in graph.calls:
        facts = facts_of(call.operation)
        before = max((depths[tensor.call] for tensor in call.inputs), default=0)
        depths.append(before + (facts is not None and bool(facts.kernels)))
    return max(depths)


def _alexnet() -> keras.Model:
    layers = keras.layers

    def convolution(filters: int, size: int, groups: int = 1, **options):
        return layers.Conv2D(
            filters, size, groups=groups, activation="relu", kernel_initializer="zeros", **options
        )

    def dense(units: int):
        return layers.Dense(units, kernel_initializer="zeros")

    return keras.Sequential(
        [
            keras.Input((227, 227, 3)),
            convolution(96, 11, strides=4),
            layers.MaxPooling2D(3, 2),
            convolution(256, 5, groups=2, padding="same"),
            layers.MaxPooling2D(3, 2),
            convolution(384, 3, padding="same"),
            convolution(384, 3, groups=2, padding="same"),
            convolution(256, 3, groups=2, padding="same"),
            layers.MaxPooling2D(3, 2),
            layers.Flatten(),
            *(layer for units in (4096, 4096) for layer in (dense(units), layers.ReLU())),
            dense(1000),
        ],
        name="alexnet",
    )


_BUILDERS: Mapping[str, Callable[[], keras.Model]] = {
    "AlexNet": _alexnet,
    "VGG-16": lambda: keras.applications.VGG16(weights=None),
    "GoogLeNet": GoogLeNet,
    "ResNet-152": lambda: keras.applications.ResNet152(weights=None),
}


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _runs(layers: tuple[tuple[int, int], ...]) -> str:
    """Equal neighbours as one: (16, 3)×7, (32, 3)×6."""
    found: list[tuple[tuple[int, int], int]] = []
    for layer in layers:
        if found and found[-1][0] == layer:
            found[-1] = (layer, found[-1][1] + 1)
        else:
            found.append((layer, 1))
    return ", ".join(f"{layer}×{count}" if count > 1 else f"{layer}" for layer, count in found)
