"""Which layers of a model were made sparse, and why."""

import json
from dataclasses import asdict, dataclass

from tfconvbias.text_table import format_table


@dataclass(frozen=True)
class LayerKind:
    """One way to compute a layer.

    Attributes:
        kind: `"dense"`, `"sparse"` or `"block"`.
        num_bytes: Bytes of its weights in a file.
        ms: Measured milliseconds of a call; None where nothing was measured.
        detail: What it is made of, in words.
    """

    kind: str
    num_bytes: int
    ms: float | None
    detail: str


@dataclass(frozen=True)
class LayerChoice:
    """What became of one layer.

    Attributes:
        name: Name of the layer in the new model.
        shape: Shape of its kernel.
        num_nonzeros: Number of weights that are not zero.
        chosen: The kind that it has now.
        reason: Why.
        kinds: All that were compared.
    """

    name: str
    shape: tuple[int, ...]
    num_nonzeros: int
    chosen: str
    reason: str
    kinds: tuple[LayerKind, ...]

    @property
    def density(self) -> float:
        """Share of the weights that are not zero."""
        size = 1
        for length in self.shape:
            size *= length
        return self.num_nonzeros / size if size else 0.0

    def kind(self, name: str) -> LayerKind | None:
        """The best that was compared of one kind: there may be several ways to cut blocks."""
        found = [kind for kind in self.kinds if kind.kind == name]
        return min(found, key=lambda kind: (kind.ms or 0.0, kind.num_bytes), default=None)


@dataclass(frozen=True)
class SparsityReport:
    """What `sparsify` made of a model. Print it for a table.

    Attributes:
        batch_size: Number of examples of a call for which it chose.
        layers: The model's layers with kernels, in its order.
        num_bytes: Bytes of all weights in a file, before and after.
    """

    batch_size: int
    layers: tuple[LayerChoice, ...]
    num_bytes: tuple[int, int]

    def to_json(self) -> str:
        """The same numbers as JSON."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        rows = []
        for layer in self.layers:
            row = {
                "layer": layer.name,
                "kernel": "×".join(map(str, layer.shape)),
                "non-zero": f"{100 * layer.density:.2f} %",
                "now": layer.chosen,
            }
            for name in ("dense", "sparse", "block"):
                kind = layer.kind(name)
                row[f"{name} kB"] = "–" if kind is None else f"{kind.num_bytes / 1e3:,.1f}"
                ms = None if kind is None else kind.ms
                row[f"{name} ms"] = "–" if ms is None else f"{ms:.3f}"
            rows.append(row)
        before, after = (size / 1e6 for size in self.num_bytes)
        reasons = [f"{layer.name}: {layer.reason}" for layer in self.layers]
        return "\n".join(
            [
                format_table(rows, markdown=False),
                f"weights {before:.3f} → {after:.3f} MB; milliseconds of a layer's call on "
                f"{self.batch_size} example{'s' if self.batch_size > 1 else ''}",
                *reasons,
            ]
        )
