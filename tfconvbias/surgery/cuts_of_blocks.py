"""The cuts of layers that mix channels in a way of their own, such as attention."""

import inspect
import math
from collections.abc import Callable

import keras
import numpy as np

from tfconvbias.graph.calls import tensors_in
from tfconvbias.graph.facts import is_pointwise
from tfconvbias.surgery.layer_cost import places_of
from tfconvbias.surgery.layer_cuts import Axis, LayerCut, Site, Tie

L = keras.layers


def block_cut(site: Site) -> LayerCut | None:
    """The cut of a call of one of these layers, `None` for all others.

    Args:
        site: The call.
    """
    operation = type(site.layer)
    maker = _BLOCKS.get(operation)
    if maker is None and operation.__module__.split(".")[0] == "keras":
        # These classes are not public, but their names stand in saved files.
        maker = _NOT_PUBLIC.get(operation.__name__)
    return None if maker is None else maker(site)


def _layer_normalization(site: Site) -> LayerCut:
    """Statistics over all channels: those of the narrower layer are those of what is left."""
    layer, rank = site.layer, len(site.input_shapes()[0])
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    normalized = [axis - rank if axis >= 0 else axis for axis in axes]
    if site.input_axes()[0] != -1 or -1 not in normalized:
        return site.whole()
    weights = tuple(
        Axis(weight, -1, "channels", "shifts" if weight.name == "beta" else "scales")
        for weight in layer.weights
    )
    return site.apart(weights)


def _group_normalization(site: Site) -> LayerCut:
    """Every group of channels loses the same of its channels, so that all stay equally wide."""
    layer, rank = site.layer, len(site.input_shapes()[0])
    axis, width = site.input_axes()[0], site.input_widths()[0]
    own = layer.axis - rank if layer.axis >= 0 else layer.axis
    if own != axis or width is None:
        return site.whole()
    weights = tuple(
        Axis(weight, -1, "channels", "shifts" if weight.name == "beta" else "scales")
        for weight in layer.weights
    )
    if layer.groups in (-1, width):
        # One group for each channel.
        return site.apart(
            weights, narrow=lambda config, kept: {**config, "groups": int(kept["channels"].sum())}
        )
    if layer.groups == 1:
        return site.apart(weights)
    size = width // layer.groups
    channels = np.arange(width)
    tie = Tie("channels of a group", channels % size, "channels", channels)
    return site.apart(weights, ties=(tie,))


_PARTS = {
    # What the weights of an attention layer are called: the space that each axis counts.
    "query": ("query", "heads"),
    "gate": ("query", "heads"),
    "key": ("key", "key heads"),
    "value": ("value", "key heads"),
    "attention_output": ("heads", "output"),
}


def _attention(site: Site) -> LayerCut:
    """Heads are cut whole: their queries, keys, values and what the output reads of them."""
    layer = site.layer
    grouped = isinstance(layer, L.GroupQueryAttention)
    inputs = tuple(
        name if name in ("query", "value", "key") else None for name in _argument_names(site)
    )
    if len(site.outputs) > 1 or set(site.input_axes()) != {-1} or "query" not in inputs:
        return site.whole()
    axes: list[Axis] = []
    for weight in layer.weights:
        part, kind = weight.path.split("/")[-2:]
        if part not in _PARTS or kind not in ("kernel", "bias"):
            # Such as the scales of a quantized kernel.
            return site.whole()
        read, written = _PARTS[part]
        if kind == "kernel" and part == "attention_output":
            if len(weight.shape) != 3:
                return site.whole()
            axes += [Axis(weight, 0, read, "reads"), Axis(weight, 2, written, "writes")]
        elif kind == "kernel":
            axes += [Axis(weight, 0, read, "reads"), Axis(weight, 1, written, "writes")]
        else:
            axes.append(Axis(weight, 0, written, "shifts"))
    heads = layer.num_query_heads if grouped else layer.num_heads
    key_heads = layer.num_key_value_heads if grouped else heads
    numbers = np.arange(heads)
    ties = [Tie("heads", numbers, "key heads", numbers // (heads // key_heads))]
    if "key" not in inputs:
        channels = np.arange(site.input_widths()[inputs.index("value")] or 0)
        ties.append(Tie("key", channels, "value", channels))
    if grouped:
        channels = np.arange(site.input_widths()[inputs.index("query")] or 0)
        ties.append(Tie("query", channels, "output", channels))
    size = layer.head_dim if grouped else layer.key_dim
    value_size = layer.head_dim if grouped else layer.value_dim
    whole = size + value_size
    shapes = dict(zip(inputs, site.input_shapes(), strict=True))
    asked, held = (places_of(shapes[name]) for name in ("query", "value"))
    places = {
        id(weight): held if weight.path.split("/")[-2] in ("key", "value") else asked
        for weight in layer.weights
    }

    def narrow(config: dict, kept) -> dict:
        if grouped:
            return {
                **config,
                "num_query_heads": int(kept["heads"].sum()),
                "num_key_value_heads": int(kept["key heads"].sum()),
            }
        output = (int(kept["output"].sum()),)
        return {**config, "num_heads": int(kept["heads"].sum()), "output_shape": output}

    return LayerCut(
        inputs, ("output",), tuple(axes), tuple(ties), narrow,
        widths={"heads": size, "key heads": size}, places=places,
        multiply_adds=lambda counts: (asked or 0) * (held or 0) * counts["heads"] * whole,
    )  # fmt: skip


def _argument_names(site: Site) -> list[str]:
    """For each tensor of a call the name of the argument that it belongs to."""
    parameters = inspect.signature(site.layer.call).parameters
    pairs = list(zip(parameters, site.call.args, strict=False))
    pairs += [(name, site.call.kwargs[name]) for name in sorted(site.call.kwargs)]
    return [name for name, value in pairs for _ in tensors_in(value)]


def _einsum_dense(site: Site) -> LayerCut:
    """A dense layer written as a sum of products, where channels are last on both sides."""
    layer = site.layer
    left, after = layer.equation.replace("...", "").replace(" ", "").split("->")
    before, letters = left.split(",")
    read, written = before[-1:], after[-1:]
    plain = read in letters and written in letters and read not in after and written not in before
    if not (read and written and plain) or site.input_axes() != [-1]:
        return site.whole()
    axes = [
        Axis(layer.kernel, letters.index(read), "input", "reads"),
        Axis(layer.kernel, letters.index(written), "output", "writes"),
    ]
    if layer.bias is not None and written in layer.bias_axes:
        axes.append(Axis(layer.bias, -1, "output", "shifts"))
    locked = {}
    if not is_pointwise(layer.activation):
        locked["output"] = f"the activation of {site.call.name!r} may mix channels"

    def narrow(config: dict, kept) -> dict:
        shape = config["output_shape"]
        places = () if isinstance(shape, int) else tuple(shape)[:-1]
        return {**config, "output_shape": (*places, int(kept["output"].sum()))}

    # Letters of the kernel that the output has are places with kernels of their own.
    lengths = dict(zip(reversed(before), reversed(site.input_shapes()[0]), strict=False))
    free = [lengths[letter] for letter in before[1:-1] if letter not in letters]
    places = None if None in free or "..." in layer.equation else math.prod(free)
    return LayerCut(
        ("input",), ("output",), tuple(axes), (), narrow, locked,
        places={id(layer.kernel): places},
    )  # fmt: skip


def _embedding(site: Site) -> LayerCut:
    weight = Axis(site.layer.embeddings, -1, "output", "writes")
    return LayerCut(
        (None,), ("output",), (weight,),
        narrow=lambda config, kept: {**config, "output_dim": int(kept["output"].sum())},
        places={id(site.layer.embeddings): 0},  # looked up, not multiplied
    )  # fmt: skip


def _get_item(site: Site) -> LayerCut:
    """Indexing of axes in front of the channels, such as `x[:, 0]`."""
    if len(site.call.args) != 2 or len(site.call.inputs) != 1 or site.input_axes() != [-1]:
        return site.whole()
    key = site.call.args[1]
    keys = tuple(key) if isinstance(key, list | tuple) else (key,)
    simple = all(isinstance(one, int | slice) for one in keys)
    return site.apart() if simple and len(keys) < len(site.input_shapes()[0]) else site.whole()


def _layer_scale(site: Site) -> LayerCut:
    """The layer of `keras.applications.ConvNeXt*`."""
    layer = site.layer
    if site.input_axes() != [-1]:
        return site.whole()
    return site.apart(
        (Axis(layer.gamma, 0, "channels", "scales"),),
        narrow=lambda config, kept: {**config, "projection_dim": int(kept["channels"].sum())},
    )


_BLOCKS: dict[type, Callable[[Site], LayerCut]] = {
    L.LayerNormalization: _layer_normalization,
    L.GroupNormalization: _group_normalization,
    L.MultiHeadAttention: _attention,
    L.GroupQueryAttention: _attention,
    L.EinsumDense: _einsum_dense,
    L.Embedding: _embedding,
}
if hasattr(L, "RMSNormalization"):
    # Younger than the oldest Keras that is supported.
    _BLOCKS[L.RMSNormalization] = _layer_normalization

_NOT_PUBLIC: dict[str, Callable[[Site], LayerCut]] = {
    "GetItem": _get_item,
    "LayerScale": _layer_scale,
    "StochasticDepth": Site.apart,
}
