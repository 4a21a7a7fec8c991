"""The cuts of layers by their kind, as the table of layer facts tells it."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfconvbias.graph import LayerFacts, TensorRef, facts_of
from tfconvbias.graph.calls import tensors_in
from tfconvbias.graph.facts import KERNELS, channel_axis, is_pointwise, kind_of
from tfconvbias.surgery.cuts_of_blocks import block_cut
from tfconvbias.surgery.kernel_layers import check_weights
from tfconvbias.surgery.layer_cost import places_of
from tfconvbias.surgery.layer_cuts import Axis, LayerCut, Site, Tie, own_cut


def cut_of(site: Site) -> LayerCut:
    """The cut of a call; one that keeps all its channels where nothing else is known.

    Args:
        site: The call.

    Raises:
        ValueError: If its layer is quantized, has LoRA weights or weights that are not finite.
    """
    check_weights(site.layer, site.call.name)
    found = own_cut(site.layer) or block_cut(site)
    if found is not None:
        return found
    facts = facts_of(site.layer)
    if facts is None or not facts.is_resizable:
        return site.whole()
    maker = _MAKERS.get(facts.kind)
    return site.whole() if maker is None else maker(site, facts)


def kept_count(name: str, space: str) -> Callable[[dict, Any], dict]:
    """A function that sets one number of a configuration to how many channels are kept."""
    return lambda config, kept: {**config, name: int(kept[space].sum())}


def _kernel(site: Site, facts: LayerFacts) -> LayerCut:
    layer, kind = site.layer, facts.kind
    axis = channel_axis(layer, len(site.input_shapes()[0]))
    width = site.input_shapes()[0][axis]
    axes: list[Axis] = []
    ties: list[Tie] = []
    narrow = None
    if kind == "depthwise":
        axes.append(Axis(layer.kernel, -2, "input", "filters"))
        ties.append(_repeated("input", width, "output", layer.kernel.shape[-1]))
    elif kind == "separable":
        axes += [
            Axis(layer.depthwise_kernel, -2, "input", "filters"),
            Axis(layer.pointwise_kernel, -2, "between", "reads"),
            Axis(layer.pointwise_kernel, -1, "output", "writes"),
        ]
        ties.append(_repeated("input", width, "between", layer.depthwise_kernel.shape[-1]))
        narrow = kept_count("filters", "output")
    else:
        (kernel,) = facts.kernels
        weight = getattr(layer, kernel.attribute)
        (output_axis,) = kernel.output_axes
        rows = weight.shape[kernel.input_axis]
        outputs = weight.shape[output_axis]
        groups = width // rows
        narrow = kept_count("units" if kind == "dense" else "filters", "output")
        depthwise = groups == width > 1
        axes.append(Axis(weight, output_axis, "output", "filters" if depthwise else "writes"))
        if depthwise:
            # Each group has one channel, which goes with its group.
            ties.append(_repeated("input", width, "output", outputs // groups))
            narrow = _fewer_groups
        elif groups == 1:
            axes.append(Axis(weight, kernel.input_axis, "input", "reads"))
        else:
            # All groups keep the same of their channels, so that they stay equally wide.
            axes.append(Axis(weight, kernel.input_axis, "rows", "reads"))
            ties.append(_cyclic("rows", rows, "input", width))
            ties.append(_cyclic("columns", outputs // groups, "output", outputs))
    if layer.use_bias:
        axes.append(Axis(layer.bias, -1, "output", "shifts"))
    locked = {}
    if not is_pointwise(getattr(layer, "activation", None)):
        locked["output"] = f"the activation of {site.call.name!r} may mix channels"
    places: dict[int, int | None] = {}
    if kind == "transposed":
        places[id(layer.kernel)] = places_of(site.input_shapes()[0], axis)
    elif kind == "local":
        # The kernel has the places among its axes.
        places[id(layer.kernel)] = 1
    return LayerCut(
        ("input",), ("output",), tuple(axes), tuple(ties), narrow, locked, (axis, axis),
        places=places,
    )  # fmt: skip


def _fewer_groups(config: dict, kept) -> dict:
    filters, groups = (int(kept[space].sum()) for space in ("output", "input"))
    return {**config, "filters": filters, "groups": groups}


def _repeated(first: str, width: int, second: str, times: int) -> Tie:
    """Each channel of one space stands for several in a row of another."""
    channels = np.arange(width * times)
    return Tie(first, channels // times, second, channels)


def _cyclic(first: str, width: int, second: str, total: int) -> Tie:
    """The channels of one space recur in another, round and round."""
    channels = np.arange(total)
    return Tie(first, channels % width, second, channels)


def _pass(site: Site, facts: LayerFacts) -> LayerCut:
    """Layers that keep channels apart."""
    if len(site.call.inputs) != 1 or len(site.outputs) != 1:
        return site.whole()
    layer = site.layer
    if isinstance(layer, keras.layers.Activation) and not is_pointwise(layer.activation):
        return site.whole()
    rank, rank_after = len(site.input_shapes()[0]), len(site.output_shape())
    axis, width = site.input_axes()[0], site.input_widths()[0]
    if facts.kind == "elementwise":
        return site.apart()
    expected = channel_axis(layer, rank)
    # Pooling over all places removes the axes between batch and channel.
    ends = (expected, expected if rank_after == rank else -1)
    if expected != axis or width is None:
        return site.whole()
    if isinstance(layer, keras.layers.Rescaling):
        return site.apart(narrow=_shorter_offset) if axis == -1 else site.whole()
    weights = getattr(layer, "weights", ())
    if any(weight.shape[-1] != width for weight in weights):
        return site.whole()
    axes = tuple(Axis(weight, -1, "channels", _role_of(layer, weight)) for weight in weights)
    return site.apart(axes, channel_axes=ends)


def _shorter_offset(config: dict, kept) -> dict:
    offset = keras.saving.deserialize_keras_object(config["offset"])
    if not np.ndim(offset):
        return config
    offset = np.asarray(offset)[kept["channels"]]
    return {**config, "offset": keras.saving.serialize_keras_object(offset)}


def _role_of(layer: Any, weight: Any) -> str:
    if kind_of(layer) != "normalization":
        return "scales"
    return {"gamma": "scales", "beta": "shifts"}.get(weight.name, "other")


def _merge(site: Site, facts: LayerFacts) -> LayerCut:
    widths = site.input_widths()
    axes = set(site.input_axes())
    constants = [
        np.shape(argument)
        for argument in keras.tree.flatten((site.call.args, site.call.kwargs))
        if np.ndim(argument)
    ]
    if len(axes) > 1 or None in widths or site.call.kwargs or len(site.outputs) > 1:
        return site.whole()
    known = [width for width in widths if width is not None]
    width = max(known)
    # A tensor with one channel serves all channels of the others, and so stays.
    inputs = tuple("channels" if w == width else None for w in known)
    fits = {*known} <= {1, width} and site.output_shape()[site.input_axes()[0]] == width
    if not fits or any(shape[-1] not in (1, width) for shape in constants):
        return site.whole()
    if constants and axes != {-1}:
        return site.whole()
    axis = site.input_axes()[0]
    return LayerCut(
        inputs, ("channels",), channel_axes=(axis, axis),
        arguments=_cut_constants if constants else None,
    )  # fmt: skip


def _cut_constants(args: Any, kept) -> Any:
    keep = kept["channels"]

    def cut(argument):
        if isinstance(argument, TensorRef):
            return argument
        if any(tensors_in(argument)):
            return type(argument)(cut(part) for part in argument)
        if np.ndim(argument) and np.shape(argument)[-1] == keep.size > 1:
            return np.asarray(argument)[..., keep]
        return argument

    return type(args)(cut(argument) for argument in args)


def _concatenate(site: Site, facts: LayerFacts) -> LayerCut:
    ranks = {len(shape) for shape in site.input_shapes()}
    axes, widths = set(site.input_axes()), site.input_widths()
    listed = site.call.args and isinstance(site.call.args[0], list | tuple)
    plain = listed and len(site.call.args) == 1 and not site.call.kwargs
    if len(ranks) > 1 or len(axes) > 1 or None in widths or not plain:
        return site.whole()
    (rank,), (axis,) = ranks, axes
    joined = site.layer.axis - rank if site.layer.axis >= 0 else site.layer.axis
    known = [width for width in widths if width is not None]
    if joined != axis:
        if len(set(known)) > 1 or joined == -rank:
            return site.whole()
        return LayerCut(("channels",) * len(known), ("channels",), channel_axes=(axis, axis))
    names = tuple(f"part {index}" for index in range(len(known)))
    starts = np.cumsum([0, *known])
    ties = tuple(
        Tie(name, np.arange(width), "output", start + np.arange(width))
        for name, width, start in zip(names, known, starts[:-1], strict=True)
    )
    return LayerCut(names, ("output",), ties=ties, channel_axes=(axis, axis))


def _reshape(site: Site, facts: LayerFacts) -> LayerCut:
    """Row-major reshaping: element f of the last axis is in channel f mod the smaller width."""
    before, after = site.input_shapes()[0], site.output_shape()
    first = getattr(site.layer, "data_format", "channels_last") == "channels_first"
    known = len(before) > 1 and len(after) > 1 and None not in (before[-1], after[-1])
    if (first and len(before) > 2) or not known or site.input_axes() != [-1]:
        return site.whole()
    small, large = sorted((before[-1], after[-1]))
    if large % small:
        return site.whole()
    names = ("input", "output") if before[-1] == small else ("output", "input")
    tie = _cyclic(names[0], small, names[1], large)
    narrow = _narrow_target if hasattr(site.layer, "target_shape") else None
    return LayerCut(("input",), ("output",), ties=(tie,), narrow=narrow)


def _narrow_target(config: dict, kept) -> dict:
    *places, last = config["target_shape"]
    last = last if last == -1 else int(kept["output"].sum())
    return {**config, "target_shape": (*places, last)}


def _reduction(site: Site, facts: LayerFacts) -> LayerCut:
    """A mean or maximum over axes other than that of the channels."""
    rank = len(site.input_shapes()[0])
    axes = site.layer.axis
    listed = (axes,) if isinstance(axes, int) else tuple(axes or range(rank))
    reduced = {axis - rank if axis >= 0 else axis for axis in listed}
    if site.input_axes() != [-1] or reduced & {-1, -rank} or len(site.call.args) != 1:
        return site.whole()
    return site.apart()


def _input(site: Site, facts: LayerFacts) -> LayerCut:
    return site.whole()


_MAKERS: dict[str, Callable[[Site, LayerFacts], LayerCut]] = {
    **dict.fromkeys(KERNELS, _kernel),
    **dict.fromkeys(
        ("channelwise", "cropping", "elementwise", "normalization", "padding", "pooling"), _pass
    ),
    "concatenate": _concatenate,
    "input": _input,
    "merge": _merge,
    "reduction": _reduction,
    "reshape": _reshape,
}
