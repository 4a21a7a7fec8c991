"""The learned architecture of a model in numbers: widths, kernel sizes, cost."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph import TensorRef
from tfconvbias.graph.windows import window_of
from tfconvbias.regularizers import KernelSize
from tfconvbias.regularizers.nested_groups import increments
from tfconvbias.regularizers.structured_sparsity import regularizers_of
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.kernel_rule import KernelRule
from tfconvbias.surgery.layer_cost import kernels_of
from tfconvbias.surgery.plan import Plan, make_plan
from tfconvbias.surgery.rules import Rule
from tfconvbias.text_table import format_table


@dataclass
class LayerArchitecture:
    """One convolution or dense layer.

    Attributes:
        name: Name of the layer.
        kind: Type of the layer.
        kernels: Number of kernels d̂_i.
        live_kernels: Number of kernels with a weight that is not zero, d_i.
        kept_kernels: Number of kernels that `compact` keeps; 0 where the layer vanishes.
        inputs: Number of input channels.
        live_inputs: Number of input channels that are not constant.
        kernel_size: Edge ŝ_i (the longest axis).
        kept_kernel_size: Edge that `compact` keeps.
        sizes: How many kernels have which size s_ij, 0 for dead ones.
        receptive_field: Edge, in input pixels, of what one output of the layer sees through its
            live weights and those before it.
        parameters: Number of weights.
        kept_parameters: Number of weights that `compact` keeps.
        multiply_adds: Per image, of the layer as it is.
        theoretical_multiply_adds: Per image, Σ_j r c d_{i−1} s_ij² with live channels (eq. 10).
        realised_multiply_adds: Per image, of what `compact` makes of it.
    """

    name: str
    kind: str
    kernels: int
    live_kernels: int
    kept_kernels: int
    inputs: int
    live_inputs: int
    kernel_size: int
    kept_kernel_size: int
    sizes: dict[int, int]
    receptive_field: int
    parameters: int
    kept_parameters: int
    multiply_adds: int
    theoretical_multiply_adds: int
    realised_multiply_adds: int


@dataclass
class Architecture:
    """All layers with kernels of a model, in the order of its graph. Print it for a table."""

    layers: list[LayerArchitecture]
    explanations: dict[str, str] = field(default_factory=dict)

    def total(self, attribute: str) -> int:
        """Sum of an attribute over the layers."""
        return sum(getattr(layer, attribute) for layer in self.layers)

    def to_json(self) -> str:
        """The same numbers as JSON."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            (
                layer.name,
                f"{layer.live_kernels}/{layer.kernels}",
                str(layer.kept_kernels),
                " ".join(f"{size}:{count}" for size, count in sorted(layer.sizes.items())),
                str(layer.receptive_field),
                f"{layer.parameters:,}",
                f"{layer.multiply_adds:,}",
                f"{layer.theoretical_multiply_adds:,}",
                f"{layer.realised_multiply_adds:,}",
            )
            for layer in self.layers
        ]
        rows.append(
            (
                "total",
                f"{self.total('live_kernels')}/{self.total('kernels')}",
                str(self.total("kept_kernels")),
                "",
                "",
                *(
                    f"{self.total(name):,}"
                    for name in (
                        "parameters",
                        "multiply_adds",
                        "theoretical_multiply_adds",
                        "realised_multiply_adds",
                    )
                ),
            )
        )
        cells = [dict(zip(_HEAD, row, strict=True)) for row in rows]
        return format_table(cells, markdown=False)

    def plot(self, axes=None):
        """Draws widths along the depth ("snake") and the number of kernels of each size.

        Args:
            axes: Two matplotlib axes to draw on. Defaults to those of a new figure.

        Returns:
            The figure.
        """
        import matplotlib.pyplot as plt

        if axes is None:
            _, axes = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
        depth = np.arange(1, len(self.layers) + 1)
        base = np.array([layer.kernels for layer in self.layers])
        live = np.array([layer.live_kernels for layer in self.layers])
        axes[0].step(depth, base / 2, "k--", where="mid", linewidth=0.8, label="base")
        axes[0].step(depth, -base / 2, "k--", where="mid", linewidth=0.8)
        axes[0].fill_between(depth, -live / 2, live / 2, step="mid", alpha=0.6, label="live")
        axes[0].set_ylabel("kernels")
        axes[0].legend()
        bottom = np.zeros(len(self.layers))
        for size in sorted({size for layer in self.layers for size in layer.sizes}):
            counts = np.array([layer.sizes.get(size, 0) for layer in self.layers])
            axes[1].bar(depth, counts, bottom=bottom, label=f"size {size}")
            bottom += counts
        axes[1].set_xlabel("layer")
        axes[1].set_ylabel("kernels")
        axes[1].legend()
        return axes[0].figure


_HEAD = (
    "layer",
    "live",
    "kept",
    "sizes",
    "field",
    "parameters",
    "mult-adds",
    "theoretical",
    "realised",
)


@checked
def architecture(model: keras.Model, opaque: tuple[Any, ...] = ()) -> Architecture:
    """Measures the architecture that a model has learned.

    Args:
        model: A functional or sequential model, usually thresholded; it is only read.
        opaque: Names or classes of layers that are unknown, to be taken as they are.

    Returns:
        The `Architecture`: print it, `to_json()`, `plot()`.

    Raises:
        ValueError: If the model's graph cannot be read, or a layer is unknown.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
    ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> measured = architecture(model)
    >>> measured.layers[0].multiply_adds == 6 * 6 * 3 * 4 * 9
    True

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", eq. 10.
    """
    return measure_plan(make_plan(model, opaque=opaque))


def measure_plan(plan: Plan) -> Architecture:
    """The architecture of the model that a plan was made for."""
    fields = _receptive_fields(plan)
    seen: set[int] = set()
    layers = []
    for rule in plan.rules:
        repeated = id(rule.operation) in seen
        if isinstance(rule, KernelRule):
            layers.append(_measure(plan, rule, fields[rule.output], repeated))
        elif kernels_of(rule.operation):
            layers.append(_measure_whole(rule, fields[rule.output], repeated))
        seen.add(id(rule.operation))
    return Architecture(layers, dict(plan.explanations))


def _measure(plan: Plan, rule: KernelRule, field_size: int, repeated: bool) -> LayerArchitecture:
    view = rule.view
    used = rule.number in plan.used
    live = view.active.any(axis=0)
    sizes, taps = kernel_sizes(rule)
    kept = plan.kept[rule.output]
    crops = rule.crops(plan.kept) if used else None
    edges = [window.size for window in view.windows] or [1]
    kept_edges = [cut.size for cut in crops] if crops is not None else edges
    return LayerArchitecture(
        name=rule.call.name,
        kind=type(rule.operation).__name__,
        kernels=view.outputs,
        live_kernels=int(live.sum()),
        kept_kernels=int(kept.sum()) if used else 0,
        inputs=view.inputs,
        live_inputs=int(rule.live.sum()),
        kernel_size=max(edges),
        kept_kernel_size=max(kept_edges) if used else 0,
        sizes={int(size): count for size, count in sorted(Counter(sizes.tolist()).items())},
        receptive_field=field_size,
        parameters=0 if repeated else rule.parameters(),
        kept_parameters=rule.parameters(plan.kept) if used and not repeated else 0,
        multiply_adds=rule.multiply_adds(),
        theoretical_multiply_adds=_theoretical_multiply_adds(rule, taps),
        realised_multiply_adds=rule.multiply_adds(plan.kept) if used else 0,
    )


def _measure_whole(rule: Rule, field_size: int, repeated: bool) -> LayerArchitecture:
    """A layer with kernels that surgery keeps whole, such as those of an embedding."""
    kernel = to_numpy(list(kernels_of(rule.operation).values())[-1])
    live = int(np.any(kernel != 0, axis=tuple(range(kernel.ndim - 1))).sum())
    outputs = kernel.shape[-1]
    options = window_of(rule.operation)
    size = 1 if options is None else max(options.size)
    inputs = rule.states[0].width
    parameters = 0 if repeated else int(rule.operation.count_params())
    cost = rule.multiply_adds()
    return LayerArchitecture(
        name=rule.call.name,
        kind=type(rule.operation).__name__,
        kernels=outputs,
        live_kernels=live,
        kept_kernels=outputs,
        inputs=inputs,
        live_inputs=inputs,
        kernel_size=size,
        kept_kernel_size=size,
        sizes={edge: count for edge, count in ((0, outputs - live), (size, live)) if count},
        receptive_field=field_size,
        parameters=parameters,
        kept_parameters=parameters,
        multiply_adds=cost,
        theoretical_multiply_adds=cost,
        realised_multiply_adds=cost,
    )


def _theoretical_multiply_adds(rule: KernelRule, taps: np.ndarray) -> int:
    view = rule.view
    if view.kind == "separable":
        _, read = _sizes_of(np.any(view.kernel != 0, axis=2), rule)
        through = rule.live & view.active.any(axis=1)
        both = read[through].sum() + through.sum() * view.active.any(axis=0).sum()
        return int(rule.positions() * view.layer.depth_multiplier * both)
    reads = [rule.live[view.inputs_of_group(group)].sum() for group in range(view.groups)]
    inputs_read = np.repeat(reads, view.outputs // view.groups)
    return int(rule.positions() * (inputs_read * taps).sum())


def kernel_sizes(rule: KernelRule) -> tuple[np.ndarray, np.ndarray]:
    """Size s_ij of every kernel and the number of taps that it stands for.

    The size is that of the smallest nested group's complement that holds all live taps, with the
    groups of the layer's own penalty, half-rings by default; for kernels with unequal axes it is
    the longest edge of the box around the live taps. Of a locally connected layer a tap is live
    that is live anywhere.
    """
    view = rule.view
    live = np.any(view.kernel != 0, axis=1).reshape(-1, view.taps, view.outputs)
    return _sizes_of(live.any(axis=0), rule)


def _sizes_of(live: np.ndarray, rule: KernelRule) -> tuple[np.ndarray, np.ndarray]:
    """The same from the live taps, (taps, kernels)."""
    edges = tuple(window.size for window in rule.view.windows)
    if not edges:
        alive = live.any(axis=0).astype(int)
        return alive, alive
    if len(set(edges)) == 1:
        own = [r for r in regularizers_of(rule.operation) if isinstance(r, KernelSize)]
        groups = own[0].groups if own else "half_ring"
        size, rank = edges[0], len(edges)
        first = increments(size, rank, groups).reshape(-1, 1)
        zeroed = np.where(live, first, size).min(axis=0)
        step = 1 if groups == "half_ring" else 2
        sizes = np.where(live.any(axis=0), size - step * zeroed, 0)
        return sizes, sizes**rank
    boxes = live.reshape(*edges, -1)
    spans = []
    for axis in range(len(edges)):
        others = tuple(other for other in range(len(edges)) if other != axis)
        places: np.ndarray = np.any(boxes, axis=others)
        spans.append(
            np.where(
                places.any(axis=0),
                places.shape[0] - places[::-1].argmax(axis=0) - places.argmax(axis=0),
                0,
            )
        )
    return np.max(spans, axis=0), np.prod(spans, axis=0)


def _receptive_fields(plan: Plan) -> dict[TensorRef, int]:
    """Largest edge, in input pixels, of what each tensor sees through live weights."""
    fields: dict[TensorRef, int] = {}
    jumps: dict[TensorRef, int] = {}
    for rule in plan.rules:
        edge = max((fields[t] for t in rule.call.inputs), default=1)
        jump = max((jumps[t] for t in rule.call.inputs), default=1)
        size, stride = _reach(plan, rule)
        for tensor in rule.outputs:
            fields[tensor] = edge + (size - 1) * jump
            jumps[tensor] = jump * stride
    return fields


def _reach(plan: Plan, rule) -> tuple[int, int]:
    """How many inputs in a row an output reads, and how far apart its neighbour's are."""
    if isinstance(rule, KernelRule):
        if not rule.view.windows:
            return 1, 1
        crops = rule.crops(plan.kept) if rule.number in plan.used else None
        windows = rule.view.windows
        taps = [c.size for c in crops] if crops is not None else [w.size for w in windows]
        extents = [(t - 1) * w.dilation + 1 for t, w in zip(taps, windows, strict=True)]
        return max(extents), max(window.stride for window in windows)
    pooling = window_of(rule.operation)
    return (1, 1) if pooling is None else (max(pooling.size), max(pooling.strides))
