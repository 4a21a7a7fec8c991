"""Zeroes the kernels, and the rings of kernels, whose norm a threshold does not reach."""

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.graph import LayerGraph, TensorRef, facts_of, read_graph
from tfconvbias.graph.facts import channel_axis, keeps_zero, kind_of
from tfconvbias.graph.normalization import folded_scale, following_normalization, is_chosen
from tfconvbias.regularizers import KernelNumber, KernelSize, StructuredSparsity
from tfconvbias.regularizers.layer_penalties import penalty_for
from tfconvbias.regularizers.nested_groups import increments
from tfconvbias.regularizers.structured_sparsity import regularizers_of
from tfconvbias.surgery.kernel_layers import check_weights, to_numpy


@checked
def threshold(
    model: keras.Model,
    tau=0.0,
    relative=False,
    regularizer=None,
    fold_normalization=False,
    shifts="keep",
    layers=None,
):
    r"""Returns a copy of a model whose kernels and rings with a norm ≤ τ are exactly zero.

    ```
    remove kernel j where ‖k_ij‖ ≤ τ (eq. 15)      ring G_n where ‖k_ij(G_n)‖ ≤ τ (eq. 23)
    ```

    The norm and the groups are those of the penalty that the layer was trained with: its
    `KernelNumber` or `KernelSize`. Groups are nested, so that a ring takes all rings outside it
    with it. Both kernels of a separable convolution are thresholded, each by itself.

    A dead channel goes on to emit the constant that it emits in the penalized network: its bias b,
    or β − γ(μ − b)/√(σ²+ε) under a BatchNormalization. So kernels that are zero already change
    nothing, and with τ = 0 the copy computes what the model computes. Where a kernel that is not
    zero goes, the moving mean μ of a BatchNormalization that reads it becomes what is left of its
    mean, so that the channel emits β, the mean of what it emitted. `compact` carries constants
    exactly. `shifts="drop"` makes dead channels silent instead: bias, γ, β and μ go with the
    kernel, and a layer that reads nothing but zeros goes too, so that a branch with one dead layer
    goes whole. The network is smaller then, but computes something else.

    A layer that would lose all of its kernels while no shortcut goes around it keeps its largest
    one, with a warning.

    Args:
        model: A functional or sequential model; it is not modified.
        tau: τ >= 0. Defaults to 0, which takes the kernels that are zero already.
        relative: Whether τ is a fraction of the largest norm of a whole kernel in the same layer.
        regularizer: A `KernelNumber` or `KernelSize` to be used for every convolution, whatever
            penalty it was trained with (none, or the `Proximal` optimizer's). A kernel without
            spatial axes of one length has no sizes: it is removed whole or not at all. Defaults
            to each layer's own; layers without one are left alone. In a model in which no layer has
            a penalty, whole kernels are compared with τ, as with `KernelNumber`.
        fold_normalization: Whether norms are those of the kernels folded with the
            BatchNormalization that follows, (γ/√(σ²+ε))·k; for models trained with
            `Complexity(..., fold_normalization=True)`.
        shifts: `"keep"` (default) or `"drop"`: what becomes of the constants of dead channels.
        layers: Names or classes of the layers to threshold, such as
            `(keras.layers.Conv2D, keras.layers.Dense)`. Defaults to all that have a penalty of
            their own; with `regularizer`, or where none has a penalty, to the convolutions.

    Returns:
        The thresholded copy, of the same architecture.

    Raises:
        ValueError: If τ is negative or removes every kernel of every layer it is applied to, if
            there is no layer to apply it to, or if a layer is quantized, has LoRA weights or
            weights that are not finite.

    Warns:
        UserWarning: If a layer keeps a kernel only because no shortcut goes around it.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, kernel_regularizer=KernelSize(1e-3)),
    ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> zeroed = threshold(model, tau=1e-3)

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", eqs. 15 and 23.
        Figure 1 uses τ = 1e-3. The relative form is ours.
    """
    number = isinstance(tau, Real) and not isinstance(tau, bool)
    if not number or not math.isfinite(tau) or tau < 0:
        raise ValueError(f"`tau` must be a finite number >= 0. Received: tau={tau}")
    if shifts not in ("keep", "drop"):
        raise ValueError(f"`shifts` must be 'keep' or 'drop'. Received: shifts={shifts!r}")
    for call in read_graph(model).calls:
        check_weights(call.operation, call.name)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    graph = read_graph(copy)
    cuts = _cuts(graph, tau, relative, regularizer, fold_normalization, layers)
    if all(cut.dead.all() for cut in cuts):
        raise ValueError(
            f"`tau` removes every kernel of every penalized layer. Received: tau={tau}, "
            f"relative={relative}; the largest kernel norms are "
            f"{ {cut.name: float(f'{cut.norms[-1].max():.3g}') for cut in cuts[:8]} }"
        )
    rescued = _rescue(graph, cuts)
    if rescued:
        warnings.warn(
            f"tau={tau} removes every kernel of {[cut.name for cut in rescued]}, but no shortcut "
            "goes around: the largest kernel of each is kept.",
            stacklevel=2,
        )
    if shifts == "drop":
        _spread(graph, cuts)
    for cut in cuts:
        cut.apply()
    for cut in cuts:
        if cut.writes_outputs and cut.dead.any():
            _shift(graph, cuts, cut, shifts)
    return copy


@dataclass
class _Cut:
    """What is to be zeroed in one kernel."""

    name: str
    numbers: list[int]
    layer: Any
    variable: Any
    penalty: StructuredSparsity
    writes_outputs: bool  # false for the first of two kernels
    norms: np.ndarray  # (groups, kernels)
    zero_groups: np.ndarray  # per kernel, how many of the nested groups are zeroed
    was_zero: np.ndarray  # per kernel, whether it was zero before

    @property
    def dead(self) -> np.ndarray:
        """Kernels that are zeroed whole."""
        return self.zero_groups == len(self.norms)

    def keep_largest(self) -> None:
        """Takes the largest kernel back."""
        self.zero_groups[np.argmax(self.norms[-1])] = 0

    def remove_all(self) -> None:
        """Marks every kernel as dead."""
        self.zero_groups = np.full_like(self.zero_groups, len(self.norms))

    def apply(self) -> None:
        """Writes the zeros."""
        kernel = to_numpy(self.variable).copy()
        columns = to_numpy(self.penalty.columns(ops.convert_to_tensor(kernel))).copy()
        if isinstance(self.penalty, KernelSize):
            first = increments(columns.shape[0], columns.ndim - 2, self.penalty.groups)
            keep = first[..., None] >= self.zero_groups
            columns *= keep[..., None, :]
        else:
            columns *= ~self.dead
        restored = self.penalty.restore(ops.convert_to_tensor(columns), kernel.shape)
        self.variable.assign(restored)


def _shift(graph: LayerGraph, cuts: list[_Cut], cut: _Cut, shifts: str) -> None:
    """Sets what the dead channels of a layer emit: nothing, or their mean as far as it is known."""
    dead = {
        number: other.dead for other in cuts for number in other.numbers if other.writes_outputs
    }
    readers = graph.consumers()
    if shifts == "drop" and getattr(cut.layer, "use_bias", False):
        cut.layer.bias.assign(np.where(cut.dead, 0.0, to_numpy(cut.layer.bias)))
    for tensor in (TensorRef(number, 0) for number in cut.numbers):
        for reader in readers.get(tensor, []):
            normalization = graph.calls[reader].operation
            if not _normalizes_channels(graph, tensor, cut.layer, normalization):
                continue
            # A normalization that is called again serves live channels too.
            channels = cut.dead.copy()
            for call in graph.calls:
                if call.operation is normalization:
                    channels &= dead.get(call.inputs[0].call, np.zeros_like(channels))
            if shifts == "drop":
                for part in ("gamma", "beta", "moving_mean"):
                    _assign_where(channels, getattr(normalization, part, None), 0.0)
            elif not graph.is_shared(graph.calls[reader]):
                emitted = _emitted(cut.layer)
                _assign_where(channels & ~cut.was_zero, normalization.moving_mean, emitted)


def _normalizes_channels(graph: LayerGraph, tensor: TensorRef, layer, normalization) -> bool:
    """Whether a layer is a normalization of the channels that another one writes."""
    if kind_of(normalization) != "normalization":
        return False
    num_axes = len(graph.shapes[tensor])
    return channel_axis(layer, num_axes) == channel_axis(normalization, num_axes)


def _assign_where(channels: np.ndarray, variable: Any, value: Any) -> None:
    if variable is not None:
        variable.assign(np.where(channels, value, to_numpy(variable)))


def _emitted(layer: Any) -> Any:
    """What a layer emits in channels without a kernel: its activated bias."""
    bias = layer.bias if getattr(layer, "use_bias", False) else ops.zeros(())
    activation = getattr(layer, "activation", None) or keras.activations.linear
    return to_numpy(activation(ops.convert_to_tensor(bias)))


def _cuts(graph, tau, relative, regularizer, fold_normalization, layers) -> list[_Cut]:
    if regularizer is None and not any(
        isinstance(own, StructuredSparsity)
        for call in graph.calls
        for own in regularizers_of(call.operation)
    ):
        regularizer = KernelNumber(0.0)
    cuts: dict[int, list[_Cut]] = {}
    for number, call in enumerate(graph.calls):
        layer = call.operation
        if id(layer) in cuts:
            for cut in cuts[id(layer)]:
                cut.numbers.append(number)
            continue
        if layers is not None and not is_chosen(call, tuple(layers)):
            continue
        for penalty, variable, writes_outputs in _penalties_of(layer, regularizer, layers):
            try:
                norms = to_numpy(penalty.group_norms(ops.convert_to_tensor(variable)))
            except ValueError as error:
                raise ValueError(f"Layer {call.name!r}: {error}") from error
            was_zero = norms[-1] == 0
            reader = following_normalization(graph, number) if fold_normalization else None
            if reader is not None and writes_outputs:
                norms = norms * np.abs(to_numpy(folded_scale(graph.calls[reader].operation)))
            bound = tau * norms[-1].max() if relative else tau
            # The largest group within the bound takes the smaller ones, which it holds, with it.
            reached = (norms <= bound) * np.arange(1, len(norms) + 1)[:, None]
            cut = _Cut(
                call.name, [number], layer, variable, penalty, writes_outputs, norms,
                reached.max(axis=0), was_zero,
            )  # fmt: skip
            cuts.setdefault(id(layer), []).append(cut)
    if not cuts:
        raise ValueError(
            "There is nothing to apply the threshold to: no layer that was chosen has a "
            "`KernelNumber` or `KernelSize`, and no convolution was found for `regularizer`. "
            f"Received: regularizer={regularizer}, layers={layers}"
        )
    return [cut for group in cuts.values() for cut in group]


def _penalties_of(
    layer, regularizer, layers
) -> Iterator[tuple[StructuredSparsity, keras.Variable, bool]]:
    """The penalties that give norm and groups for a layer's kernels, and those kernels."""
    facts = facts_of(layer)
    kernels = () if facts is None or not facts.is_resizable else facts.kernels
    outputs = [getattr(layer, kernel.attribute) for kernel in kernels][-1:]
    if regularizer is None:
        for own in {id(own): own for own in regularizers_of(layer)}.values():
            if isinstance(own, StructuredSparsity):
                for variable in layer.trainable_weights + layer.non_trainable_weights:
                    if variable.regularizer is own:
                        yield own, variable, not outputs or variable is outputs[0]
    elif facts is not None and (facts.convolves or layers is not None):
        for kernel in kernels:
            variable = getattr(layer, kernel.attribute)
            penalty = penalty_for(regularizer, kernel, tuple(variable.shape), facts.kind)
            yield penalty, variable, variable is outputs[0]


def _rescue(graph: LayerGraph, cuts: list[_Cut]) -> list[_Cut]:
    """Gives kernels back to dead layers until something reaches the outputs."""
    dead = [cut for cut in cuts if cut.dead.all()]
    rescued = []
    for cut in [c for c in dead if not graph.is_connected(_calls_of([c]))]:
        cut.keep_largest()
        rescued.append(cut)
        dead.remove(cut)
    # Layers that go around each other may be dead together: the one with the largest kernel comes
    # back first.
    dead.sort(key=lambda cut: cut.norms[-1].max())
    while dead and not graph.is_connected(_calls_of(dead)):
        cut = dead.pop()
        cut.keep_largest()
        rescued.append(cut)
    return rescued


def _spread(graph: LayerGraph, cuts: list[_Cut]) -> None:
    """Takes the layers that read zeros only along: what they emit is a constant of their own."""
    by_number = {number: cut for cut in cuts for number in cut.numbers if cut.writes_outputs}
    silent: set[TensorRef] = set()
    for number, call in enumerate(graph.calls):
        cut = by_number.get(number)
        reads_zeros = bool(call.inputs) and silent.issuperset(call.inputs)
        if cut is not None and reads_zeros and len(cut.numbers) == 1 and not cut.dead.all():
            before = cut.zero_groups
            cut.remove_all()
            if not graph.is_connected(_calls_of(c for c in cuts if c.dead.all())):
                cut.zero_groups = before
        if cut is not None:
            is_silent = bool(cut.dead.all()) and keeps_zero(cut.layer)
        elif kind_of(call.operation) == "normalization":
            # The one that reads a dead layer is cleared with it; another one has its own shift.
            writer = by_number.get(call.inputs[0].call)
            is_silent = reads_zeros and writer is not None and not graph.is_shared(call)
        else:
            facts = facts_of(call.operation)
            is_silent = reads_zeros and facts is not None and not facts.kernels
            is_silent = is_silent and keeps_zero(call.operation)
        if is_silent:
            silent.add(TensorRef(number, 0))


def _calls_of(cuts: Iterable[_Cut]) -> set[int]:
    return {number for cut in cuts for number in cut.numbers}
