"""How much each channel of a group matters, by many criteria; a low score goes first."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis import LossDerivatives
from tfconvbias.arguments import NonNegativeInt, checked
from tfconvbias.graph import Rebuilder, TensorRef
from tfconvbias.surgery.channel_groups import ChannelGroup, ChannelGroups, Slice
from tfconvbias.surgery.kernel_layers import to_numpy

Importance = str | Callable[[ChannelGroup], Any]

LOSS_CHANGES = ("fisher", "taylor")
# Their scores compare between groups as they are.
ABSOLUTE = (*LOSS_CHANGES, "lamp")
OF_DATA = ("activation", "fisher", "taylor")
NAMES = (
    "activation", "bn_scale", "fisher", "fpgm", "lamp", "magnitude", "random", "taylor",
)  # fmt: skip

_BATCH = 32


@checked
def channel_scores(
    model: keras.Model,
    groups: ChannelGroups,
    importance: Importance = "magnitude",
    dataset: Any = None,
    loss: Any = None,
    seed: NonNegativeInt = 0,
) -> dict[str, np.ndarray]:
    r"""Scores every channel of the groups that may be cut.

    With $W_s(c)$ what the slice s of a group, such as the rows of one kernel, has of channel c:

    ```
    "magnitude"   mean over the kernels' slices of ‖W_s(c)‖²
    "lamp"        m(c) / Σ m(c') over all c' of the group with m(c') ≥ m(c); m is the magnitude
    "fpgm"        mean over the kernels that write of Σ_c' ‖W_s(c) − W_s(c')‖
    "bn_scale"    mean over the normalizations of |γ(c)|
    "taylor"      mean over batches of |Σ W_s(c)·∂L/∂W_s(c)|, summed over the kernels that read c
    "fisher"      ½ mean over examples of (Σ W_s(c)·∂L/∂W_s(c))², summed likewise
    "activation"  mean of |activation| over examples and places, where kernels read it
    "random"      uniform numbers
    ```

    To remove a channel is to zero what reads it, so that the sum in `"taylor"` is the first-order
    change of the loss, and `"fisher"` its second-order change with Fisher's information in place of
    the Hessian.

    Args:
        model: The model that the groups are of.
        groups: What `channel_groups` found in it.
        importance: One of these names, or a function of a `ChannelGroup` that returns one score for
            each of its channels.
        dataset: A pair of arrays `(inputs, targets)`, or an iterable of such pairs that fits into
            memory; for `"activation"` the targets may be missing.
        loss: The loss for `"taylor"` and `"fisher"`, as in `compile`. Defaults to the loss that the
            model is compiled with.
        seed: Seed of `"random"`.

    Returns:
        Name of the group → scores. A group of which the criterion says nothing is not among them,
        such as one without normalization for `"bn_scale"`.

    Raises:
        ValueError: For an unknown name, a dataset or loss that is needed and missing, and scores
            of a wrong number or that are not finite.

    Reference:
        Li et al. 2017 (magnitude); Lee et al. 2021 (LAMP); He et al. 2019 (FPGM); Liu et al. 2017
        (BN scale); Molchanov et al. 2017 and 2019 (Taylor); Theis et al. 2018 (Fisher). That the
        slices of a group are averaged follows Fang et al. 2023 (DepGraph).
    """
    if not callable(importance) and importance not in NAMES:
        raise ValueError(
            f"`importance` must be one of {list(NAMES)} or a function of a ChannelGroup. "
            f"Received: importance={importance!r}"
        )
    if importance in OF_DATA and dataset is None:
        raise ValueError(
            f"`dataset` must be given for importance={importance!r}, which is measured on data. "
            "Received: dataset=None"
        )
    prunable = groups.prunable()
    found: dict[str, Any]
    if importance == "activation":
        found = _activations(groups, prunable, dataset_arrays(dataset)[0])
    elif importance in LOSS_CHANGES:
        found = _loss_changes(model, prunable, dataset, loss, per_example=importance == "fisher")
    elif importance == "random":
        rng = np.random.default_rng(seed)
        found = {group.name: rng.random(group.channels) for group in prunable}
    else:
        function = importance if callable(importance) else _OF_WEIGHTS[importance]
        found = {group.name: function(group) for group in prunable}
    return {
        group.name: _checked(group, found[group.name])
        for group in prunable
        if found.get(group.name) is not None
    }


def _checked(group: ChannelGroup, scores: Any) -> np.ndarray:
    result = np.asarray(scores, dtype="float64")
    if result.shape != (group.channels,) or not np.isfinite(result).all():
        raise ValueError(
            f"`importance` must give group {group.name!r} {group.channels} finite scores. "
            f"Received: scores of shape {result.shape}"
        )
    return result


def _mean(parts: list[np.ndarray]) -> np.ndarray | None:
    return np.mean(parts, axis=0) if parts else None


def _kernels(group: ChannelGroup) -> list[Slice]:
    return group.with_roles("reads", "writes", "filters")


def _magnitude(group: ChannelGroup) -> np.ndarray | None:
    return _mean([part.squares() for part in _kernels(group)])


def _lamp(group: ChannelGroup) -> np.ndarray | None:
    magnitudes = _magnitude(group)
    if magnitudes is None:
        return None
    order = np.argsort(-magnitudes, kind="stable")
    sums = np.cumsum(magnitudes[order])
    scores = np.empty_like(magnitudes)
    scores[order] = magnitudes[order] / np.maximum(sums, np.finfo(float).tiny)
    return scores


def _fpgm(group: ChannelGroup) -> np.ndarray | None:
    distances = []
    for part in group.with_roles("writes", "filters"):
        rows = part.rows().astype("float64")
        squares = np.square(rows).sum(axis=1)
        between = squares[:, None] + squares - 2 * rows @ rows.T
        np.fill_diagonal(between, 0.0)
        distances.append(np.sqrt(np.maximum(between, 0.0)).sum(axis=1))
    return _mean(distances)


def _bn_scale(group: ChannelGroup) -> np.ndarray | None:
    scales = [part for part in group.with_roles("scales") if part.weight.name == "gamma"]
    return _mean([np.abs(part.rows().astype("float64")).mean(axis=1) for part in scales])


_OF_WEIGHTS: dict[str, Callable[[ChannelGroup], np.ndarray | None]] = {
    "bn_scale": _bn_scale,
    "fpgm": _fpgm,
    "lamp": _lamp,
    "magnitude": _magnitude,
}


def _loss_changes(model, groups: list[ChannelGroup], dataset, loss, per_example: bool) -> dict:
    loss = getattr(model, "loss", None) if loss is None else loss
    inputs, targets = dataset_arrays(dataset)
    if loss is None or targets is None:
        raise ValueError(
            "The gradient of a loss needs `dataset=(inputs, targets)`, and `loss` or a model that "
            f"is compiled with one. Received: loss={loss!r}, targets "
            + ("missing" if targets is None else "given")
        )
    readers = {id(part.weight): part.weight for g in groups for part in g.with_roles("reads")}
    derivatives = LossDerivatives(
        model, inputs, targets, loss, variables=list(readers.values()), include_penalties=False
    )
    weights = [to_numpy(weight) for weight in derivatives.variables]
    totals = {group.name: np.zeros(group.channels) for group in groups}
    size = 1 if per_example else min(_BATCH, derivatives.num_samples)
    count = derivatives.num_samples
    for begin in range(0, count, size):
        rows = np.arange(begin, min(begin + size, count))
        gradients = derivatives.split(derivatives.gradient(rows))
        products = {
            id(variable): gradient * weight
            for variable, gradient, weight in zip(
                derivatives.variables, gradients, weights, strict=True
            )
        }
        for group in groups:
            change = np.zeros(group.channels)
            for part in group.with_roles("reads"):
                change += part.rows(products[id(part.weight)]).sum(axis=1)
            term = 0.5 * change**2 if per_example else np.abs(change)
            totals[group.name] += term * len(rows) / count
    return totals


def _activations(groups: ChannelGroups, prunable: list[ChannelGroup], inputs) -> dict:
    read = {
        tensor
        for call, cut in zip(groups.graph.calls, groups.cuts, strict=True)
        if any(axis.role == "reads" for axis in cut.axes)
        for tensor in call.inputs
    }
    chosen = {
        tensor
        for group in prunable
        for tensor in group.positions
        if isinstance(tensor, TensorRef) and tensor in read
    }
    means = mean_activations(groups, chosen, inputs, np.abs)
    scores = {}
    for group in prunable:
        scores[group.name] = _mean(
            [means[t][group.positions[t]].mean(axis=1) for t in group.positions if t in chosen]
        )
    return scores


def mean_activations(
    groups: ChannelGroups,
    tensors: Iterable[TensorRef],
    inputs: Any,
    function: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> dict[TensorRef, np.ndarray]:
    """The mean of each channel of some tensors over examples and places.

    Args:
        groups: What `channel_groups` found in the model.
        tensors: The tensors of its graph.
        inputs: Arrays in the structure of the model's inputs.
        function: What is applied to the activations first.
    """
    chosen = sorted(tensors)
    if not chosen:
        return {}
    copy = Rebuilder(groups.graph)
    whole = copy.model()
    probe = keras.Model(whole.inputs, [copy.tensors[tensor] for tensor in chosen])
    axes = _axes(groups)
    totals: dict[TensorRef, Any] = dict.fromkeys(chosen, 0.0)
    flat = keras.tree.flatten(inputs)
    count = len(flat[0])
    for begin in range(0, count, _BATCH):
        batch = [ops.convert_to_tensor(array[begin : begin + _BATCH]) for array in flat]
        found = keras.tree.flatten(probe(batch, training=False))
        for tensor, values in zip(chosen, found, strict=True):
            array = function(to_numpy(values).astype("float64"))
            others = tuple(i for i in range(1, array.ndim) if i != array.ndim + axes[tensor])
            totals[tensor] = totals[tensor] + array.mean(axis=others).sum(axis=0) / count
    return totals


def _axes(groups: ChannelGroups) -> dict[TensorRef, int]:
    """The channel axis of every tensor."""
    axes = {}
    for number, cut in enumerate(groups.cuts):
        for index in range(len(cut.outputs)):
            axes[TensorRef(number, index)] = cut.channel_axes[1]
    return axes


def dataset_arrays(dataset: Any) -> tuple[Any, Any]:
    """Inputs and targets as arrays; no targets where there are none."""
    if isinstance(dataset, np.ndarray):
        return dataset, None
    if isinstance(dataset, tuple) and len(dataset) in (1, 2):
        inputs, targets = dataset if len(dataset) == 2 else (dataset[0], None)
        return keras.tree.map_structure(np.asarray, inputs), targets
    if isinstance(dataset, keras.utils.PyDataset):
        batches: Iterable = (dataset[index] for index in range(len(dataset)))
    else:
        batches = dataset
    pairs = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if not pairs:
        raise ValueError("`dataset` must hold at least one batch. Received: an empty dataset")
    joined = keras.tree.map_structure(
        lambda *parts: np.concatenate([to_numpy(part) for part in parts]), *[p[:2] for p in pairs]
    )
    return joined if len(joined) == 2 else (joined[0], None)
