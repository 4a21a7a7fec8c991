"""The kinds that a dense layer can be made in, and which of them is best."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfconvbias.graph import facts_of
from tfconvbias.layers import BlockDense, SparseDense
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.layer_times import inference_ms
from tfconvbias.surgery.sparsity_report import LayerChoice, LayerKind
from tfconvbias.surgery.window_blocks import WindowBlocks, best_blocks

KINDS = ("dense", "sparse", "block")
"""In the order in which a tie is decided."""

# A kind that takes up to so much longer than the fastest may be chosen since it is smaller.
_AS_FAST = 1.1


def refusal(layer, kinds, max_density: float) -> str | None:
    """Why a layer with a kernel stays as it is; None if it may be made in other kinds."""
    facts = facts_of(layer)
    if facts is None or facts.kind != "dense" or not facts.is_resizable:
        return f"a {type(layer).__name__} stays as it is: dense layers alone have other kinds"
    if getattr(layer, "quantization_mode", None) is not None:
        return f"quantized to {layer.quantization_mode}"
    if getattr(layer, "lora_enabled", False):
        return "has LoRA weights beside its kernel"
    if set(kinds) == {"dense"}:
        return "no other kind was asked for"
    kernel = to_numpy(layer.kernel)
    if not np.isfinite(kernel.astype("float64")).all():
        return "has NaN or infinite weights"
    density = np.count_nonzero(kernel) / kernel.size
    if density > max_density:
        most = f"{100 * max_density:.0f} %"
        return f"{100 * density:.0f} % of its weights are not zero, more than {most}"
    return None


def choose_kind(
    layer: Any,
    kinds: list[str],
    image_shape: tuple[int, int, int] | None,
    num_examples: int | None,
) -> tuple[LayerChoice, Callable[[str], keras.layers.Layer] | None]:
    """The best kind of a dense layer.

    Args:
        layer: The dense layer.
        kinds: The kinds to choose from.
        image_shape: `(rows, cols, channels)` of the image that its inputs are, None if unknown.
        num_examples: Number of examples to measure with; None to choose by bytes.

    Returns:
        The choice, and a function that makes the new layer, with its weights, under a name; None
        if it stays dense.
    """
    kernel = to_numpy(layer.kernel)
    nonzeros = int(np.count_nonzero(kernel))
    arguments = {
        "dtype": layer.dtype_policy,
        "activation": layer.activation,
        "bias": to_numpy(layer.bias) if layer.use_bias else None,
    }
    ways: list[tuple[str, str, Callable[..., keras.layers.Layer] | None]] = []
    ways.append(("dense", "all weights", None))
    if "sparse" in kinds:
        make = functools.partial(SparseDense.from_kernel, kernel, **arguments)
        ways.append(("sparse", f"{nonzeros:,} weights", make))
    if "block" in kinds and nonzeros:
        for blocks in _cuts(kernel, image_shape, "sparse" in kinds):
            make = functools.partial(
                BlockDense.from_kernel, kernel, blocks.blocks, rows=blocks.rows, **arguments
            )
            ways.append(("block", _in_words(blocks), make))
    made = [layer if make is None else make() for _, _, make in ways]
    times: dict[int, float] = {}
    if num_examples is not None and len(made) > 1:
        times = inference_ms(dict(enumerate(made)), kernel.shape[0], num_examples)
    compared = tuple(
        LayerKind(kind, file_bytes(one), times.get(number), detail)
        for number, ((kind, detail, _), one) in enumerate(zip(ways, made, strict=True))
    )
    best, reason = _best(compared)
    choice = LayerChoice(layer.name, kernel.shape, nonzeros, best.kind, reason, compared)
    make_best = ways[compared.index(best)][2]
    return choice, None if make_best is None else lambda name: make_best(name=name)


def _cuts(kernel, image_shape, allow_rest: bool) -> list[WindowBlocks]:
    """The best blocks that hold all weights, and those with a sparse product beside if cheaper."""
    found = [best_blocks(kernel, image_shape, allow_rest=False)]
    if allow_rest:
        found.append(best_blocks(kernel, image_shape, allow_rest=True))
    return [one for one in found if one is not None and (one is found[0] or one.num_rest)]


def file_bytes(layer: Any) -> int:
    """Bytes of a layer's weights in a file: a sparse layer saves less than it holds."""
    total = sum(to_numpy(weight).nbytes for weight in layer.weights)
    sparse = layer if isinstance(layer, SparseDense) else getattr(layer, "rest", None)
    if isinstance(sparse, SparseDense):
        total -= 4 * (sparse.num_nonzeros - sparse.units - 1)
    return int(total)


def _in_words(blocks) -> str:
    if blocks.window == 0:
        return f"the {len(blocks.rows[0]):,} inputs that anybody reads"
    words = f"{len(blocks.blocks)} blocks of {blocks.window}×{blocks.window} windows"
    return f"{words}, {blocks.num_rest:,} weights outside" if blocks.num_rest else words


def _best(compared: tuple[LayerKind, ...]) -> tuple[LayerKind, str]:
    """The smallest of the fastest, or of all where nothing was measured; and why."""
    if len(compared) == 1:
        return compared[0], "no other kind has fewer multiplications"
    times = [kind.ms for kind in compared if kind.ms is not None]
    if not times:
        best = min(compared, key=lambda kind: kind.num_bytes)
        return best, f"smallest ({best.detail})"
    pairs = zip(compared, times, strict=True)
    close = [(kind, ms) for kind, ms in pairs if ms <= _AS_FAST * min(times)]
    best, ms = min(close, key=lambda pair: pair[0].num_bytes)
    if best.kind == "dense":
        return best, "no other kind is faster"
    reason = "smallest of those within a tenth of the fastest" if ms > min(times) else "fastest"
    return best, f"{reason}, {times[0] / ms:.1f} times as fast as dense ({best.detail})"
