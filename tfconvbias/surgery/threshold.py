"""Zeroes the kernels, and the rings of kernels, whose norm a threshold does not reach."""

import math
import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.graph import LayerGraph, TensorRef, facts_of, read_graph
from tfconvbias.graph.facts import keeps_zero, kind_of
from tfconvbias.graph.normalization import folded_scale, following_normalization
from tfconvbias.regularizers import KernelSize, StructuredSparsity
from tfconvbias.regularizers.complexity import kernel_axes_of
from tfconvbias.regularizers.nested_groups import increments
from tfconvbias.regularizers.structured_sparsity import regularizers_of
from tfconvbias.surgery.kernel_layers import to_numpy


def threshold(model, tau, relative=False, regularizer=None, fold_normalization=False):
    r"""Returns a copy of a model whose kernels and rings with a norm ≤ τ are exactly zero.

    ```
    remove kernel j where ‖k_ij‖ ≤ τ (eq. 15)      ring G_n where ‖k_ij(G_n)‖ ≤ τ (eq. 23)
    ```

    The norm and the groups are those of the penalty that the layer was trained with: its
    `KernelNumber` or `KernelSize`. Groups are nested, so that a ring takes all rings outside it
    with it. Where a kernel is gone, its bias goes, and so do γ, β and the moving mean of a
    BatchNormalization that reads it: otherwise the dead channel would emit β − γμ/√(σ²+ε).

    A layer that reads nothing but zeros goes too, so that a branch with one dead layer
    goes whole. A layer that would lose all of its kernels while no shortcut goes around it keeps
    its largest one, with a warning.

    Args:
        model: A functional or sequential model; it is not modified.
        tau: τ >= 0.
        relative: Whether τ is a fraction of the largest norm of a whole kernel in the same layer.
        regularizer: A `KernelNumber` or `KernelSize` to be used for every convolution, whatever
            penalty it was trained with (none, or the `Proximal` optimizer's). Defaults to each
            layer's own; layers without one are left alone.
        fold_normalization: Whether norms are those of the kernels folded with the
            BatchNormalization that follows, (γ/√(σ²+ε))·k; for models trained with
            `Complexity(..., fold_normalization=True)`.

    Returns:
        The thresholded copy, of the same architecture.

    Raises:
        ValueError: If τ is negative or removes every kernel of every layer it is applied to, or if
            there is no layer to apply it to.

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
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    graph = read_graph(copy)
    cuts = _cuts(graph, tau, relative, regularizer, fold_normalization)
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
    _spread(graph, cuts)
    for cut in cuts:
        cut.apply(graph)
    return copy


@dataclass
class _Cut:
    """What is to be zeroed in one layer."""

    name: str
    numbers: list[int]
    layer: Any
    variable: Any
    penalty: StructuredSparsity
    norms: np.ndarray  # (groups, kernels)
    zero_groups: np.ndarray  # per kernel, how many of the nested groups are zeroed

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

    def apply(self, graph: LayerGraph) -> None:
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
        if self.dead.any():
            self._silence(graph)

    def _silence(self, graph: LayerGraph) -> None:
        """Clears what would make the dead channels emit something."""
        dead = self.dead
        if getattr(self.layer, "use_bias", False):
            self.layer.bias.assign(np.where(dead, 0.0, to_numpy(self.layer.bias)))
        readers = graph.consumers()
        for number in self.numbers:
            for reader in readers.get(TensorRef(number, 0), []):
                normalization = graph.calls[reader].operation
                if kind_of(normalization) == "normalization":
                    for part in ("gamma", "beta", "moving_mean"):
                        variable = getattr(normalization, part, None)
                        if variable is not None:
                            variable.assign(np.where(dead, 0.0, to_numpy(variable)))


def _cuts(graph: LayerGraph, tau, relative, regularizer, fold_normalization) -> list[_Cut]:
    cuts: dict[int, _Cut] = {}
    for number, call in enumerate(graph.calls):
        layer = call.operation
        if id(layer) in cuts:
            cuts[id(layer)].numbers.append(number)
            continue
        penalty, variable = _penalty_of(layer, regularizer)
        if penalty is None:
            continue
        try:
            norms = to_numpy(penalty.group_norms(ops.convert_to_tensor(variable)))
        except ValueError as error:
            raise ValueError(f"Layer {call.name!r}: {error}") from error
        reader = following_normalization(graph, number) if fold_normalization else None
        if reader is not None:
            norms = norms * np.abs(to_numpy(folded_scale(graph.calls[reader].operation)))
        bound = tau * norms[-1].max() if relative else tau
        # The largest group within the bound takes the smaller ones, which it holds, with it.
        reached = (norms <= bound) * np.arange(1, len(norms) + 1)[:, None]
        cuts[id(layer)] = _Cut(
            call.name, [number], layer, variable, penalty, norms, reached.max(axis=0)
        )
    if not cuts:
        raise ValueError(
            "There is nothing to apply the threshold to: no layer of the model has a "
            "`KernelNumber` or `KernelSize`, and no convolution was found for `regularizer`. "
            f"Received: regularizer={regularizer}"
        )
    return list(cuts.values())


def _penalty_of(layer, regularizer):
    """The penalty that gives norm and groups for a layer, and the kernel that it belongs to."""
    if regularizer is not None:
        axes = kernel_axes_of(layer)
        if axes is None or len(layer.kernel.shape) < 3:
            return None, None
        config = {**regularizer.get_config(), "kernel_axes": axes}
        return type(regularizer).from_config(config), layer.kernel
    for own in regularizers_of(layer):
        if isinstance(own, StructuredSparsity):
            for variable in layer.trainable_weights + layer.non_trainable_weights:
                if variable.regularizer is own:
                    return own, variable
    return None, None


def _rescue(graph: LayerGraph, cuts: list[_Cut]) -> list[_Cut]:
    """Gives kernels back to dead layers until something reaches the outputs."""
    dead = [cut for cut in cuts if cut.dead.all()]
    rescued = []
    for cut in [c for c in dead if not _is_connected(graph, [c])]:
        cut.keep_largest()
        rescued.append(cut)
        dead.remove(cut)
    # Layers that go around each other may be dead together: the one with the largest kernel comes
    # back first.
    dead.sort(key=lambda cut: cut.norms[-1].max())
    while dead and not _is_connected(graph, dead):
        cut = dead.pop()
        cut.keep_largest()
        rescued.append(cut)
    return rescued


def _spread(graph: LayerGraph, cuts: list[_Cut]) -> None:
    """Takes the layers that read zeros only along: what they emit is a constant of their own."""
    by_number = {number: cut for cut in cuts for number in cut.numbers}
    silent: set[TensorRef] = set()
    for number, call in enumerate(graph.calls):
        cut = by_number.get(number)
        reads_zeros = bool(call.inputs) and silent.issuperset(call.inputs)
        if cut is not None and reads_zeros and len(cut.numbers) == 1 and not cut.dead.all():
            before = cut.zero_groups
            cut.remove_all()
            if not _is_connected(graph, [c for c in cuts if c.dead.all()]):
                cut.zero_groups = before
        if cut is not None:
            is_silent = bool(cut.dead.all()) and keeps_zero(cut.layer)
        elif kind_of(call.operation) == "normalization":
            # The one that reads a dead layer is cleared with it; another one has its own shift.
            writer = by_number.get(call.inputs[0].call)
            is_silent = reads_zeros and writer is not None
        else:
            facts = facts_of(call.operation)
            is_silent = reads_zeros and facts is not None and not facts.kernels
            is_silent = is_silent and keeps_zero(call.operation)
        if is_silent:
            silent.add(TensorRef(number, 0))


def _is_connected(graph: LayerGraph, dead: list[_Cut]) -> bool:
    """Whether an output depends on an input without the calls of the dead layers."""
    blocked = {number for cut in dead for number in cut.numbers}
    reached: set[TensorRef] = set()
    for number, call in enumerate(graph.calls):
        if number not in blocked and (not call.inputs or reached & set(call.inputs)):
            # An upper bound of the outputs of one call is enough for membership.
            reached |= {TensorRef(number, index) for index in range(_num_outputs(call))}
    return any(tensor in reached for tensor in graph.flat_outputs())


def _num_outputs(call) -> int:
    return len(keras.tree.flatten(call.operation.output))
