"""Penalties on a whole model: the coupled forms, and those on kernels folded with BatchNorm."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfconvbias.arguments import checked
from tfconvbias.graph import LayerGraph, TensorRef, facts_of, read_graph
from tfconvbias.graph.facts import channel_axis
from tfconvbias.graph.normalization import folded_scale, following_normalization, scale_outputs
from tfconvbias.regularizers.group_norms import safe_sqrt
from tfconvbias.regularizers.kernel_number import KernelNumber
from tfconvbias.regularizers.kernel_size import KernelSize
from tfconvbias.regularizers.structured_sparsity import PenaltyWeight, StructuredSparsity

FORMS = ("number", "size", "number_squared", "size_squared", "multiply_adds")


def kernel_axes_of(layer) -> tuple[int, ...] | None:
    """Axes that count the kernels of a layer with one kernel of which some can be removed.

    `None` for any other layer: locally connected and separable ones are not penalized.
    """
    facts = facts_of(layer)
    if facts is None or len(facts.kernels) != 1 or not facts.is_resizable:
        return None
    if facts.kind == "local":
        return None
    return facts.kernels[0].output_axes


@checked
def following_gammas(model: keras.Model) -> dict[str, str]:
    """Path of each kernel that a BatchNormalization alone follows → path of that one's γ.

    For `tfconvbias.optimizers.Proximal(gammas=…)`. A kernel that several calls share is left out,
    for it has several γ.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`.

    Raises:
        ValueError: If the model's graph cannot be read.

    Example:
    >>> inputs = keras.Input((8, 8, 3))
    >>> outputs = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    >>> outputs = keras.layers.BatchNormalization(name="norm")(outputs)
    >>> following_gammas(keras.Model(inputs, outputs))
    {'conv/kernel': 'norm/gamma'}
    """
    graph = read_graph(model)
    found = {}
    for number, call in enumerate(graph.calls):
        layer = call.operation
        if kernel_axes_of(layer) is None or graph.is_shared(call):
            continue
        reader = following_normalization(graph, number)
        if reader is not None and graph.calls[reader].operation.scale:
            found[layer.kernel.path] = graph.calls[reader].operation.gamma.path
    return found


@dataclass
class _Target:
    """A call of a layer whose kernels are penalized."""

    number: int
    layer: Any
    normalization: Any
    measure: StructuredSparsity
    counted_before: bool

    def kernel(self):
        kernel = ops.convert_to_tensor(self.layer.kernel)
        if self.normalization is None:
            return kernel
        # The kernel's length means nothing before a BatchNormalization: a pull on it would change
        # no output, only make the steps that follow too long. So it is held fixed; γ shrinks, and
        # the taps against each other.
        axes = self.measure.kernel_axes
        kept = [axis % len(kernel.shape) for axis in axes]
        others = [axis for axis in range(len(kernel.shape)) if axis not in kept]
        length = safe_sqrt(ops.sum(ops.square(kernel), axis=others, keepdims=True))
        fixed = ops.stop_gradient(length) / ops.maximum(length, keras.config.epsilon())
        return scale_outputs(kernel * fixed, folded_scale(self.normalization), axes)


@checked
@keras.saving.register_keras_serializable(package="tfconvbias")
class Complexity(PenaltyWeight, keras.Model):
    r"""A model that adds a penalty on its architecture's complexity to the training loss.

    It wraps a functional or sequential model, shares its layers and computes the same outputs;
    train the wrapper and the wrapped `base` is trained. A wrapper, since the forms couple layers,
    which a regularizer on one kernel does not see. With d'_i and s'_ij the relaxed width and kernel
    size that `KernelNumber` and `KernelSize` measure the penalty α Ω has one of the forms

    ```
    "number"          Ω = Σ_i d'_i                          (eq. 13)
    "size"            Ω = Σ_ij s'_ij                        (eq. 22)
    "number_squared"  Ω = Σ_i d'_i²                         (eq. 32)
    "size_squared"    Ω = Σ_ij s'_ij²                       (eq. 33)
    "multiply_adds"   Ω = Σ_ij r_i c_i d'_{i−1} s'_ij²      (eq. 34)
    ```

    In (34) r_i c_i is the layer's own output size. d'_{i−1} is the sum over the layer's input
    channels of the norm of the kernel that writes the channel: 1 for the model's own inputs, the
    largest one where residual branches are added (the channel lives while one writer does), the
    concatenation's parts side by side; 1 for a depthwise kernel, which reads one channel; 1 for
    each channel of a layer that mixes channels without a penalized kernel, or that is not known
    (`tfconvbias.graph.register` makes it known). The draft leaves this open for anything but a
    chain; the choice is ours.

    With `fold_normalization=True` norms are those of the folded kernels (γ/√(σ²+ε))·k wherever a
    BatchNormalization follows directly: before it, a kernel's length means nothing. The gradient
    leaves that length alone (it would change no output, but lengthen every later step, by
    1/‖k‖²): γ shrinks, and with sizes the taps of a kernel against each other.

    The layers whose output reaches the model's outputs without another kernel layer between (the
    classifier) are not penalized, as in the paper.

    Args:
        base: A functional `keras.Model` or a built `keras.Sequential`.
        alpha: α >= 0; assign to `alpha` during training to change it.
        form: One of the five above. Defaults to `"multiply_adds"`.
        groups: `"half_ring"` or `"ring"`, for the forms with sizes.
        norm: `"l2"`, `"normalized"`, `"scaled"` or `"linf"`.
        fold_normalization: Whether kernels are folded with the BatchNormalization that follows.
        name: Name of the wrapper.

    Raises:
        ValueError: For a negative α, an unknown form, a model without kernels to penalize, a
            kernel with unequal spatial axes where sizes are needed (the message names the layer),
            or `"multiply_adds"` on a model whose spatial sizes are not known.

    Example:
    >>> base = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3),
    ...     keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> model = Complexity(base, alpha=1e-6)
    >>> model.compile(optimizer="sgd", loss="mse")

    Reference:
        "Optimal Convolutional Architectures Via Structured Sparsity Regularizers", section 3.5.
    """

    def __init__(
        self,
        base: keras.Model,
        alpha: float,
        form: str = "multiply_adds",
        groups: str = "half_ring",
        norm: str = "l2",
        fold_normalization: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if form not in FORMS:
            raise ValueError(f"`form` must be one of {FORMS}. Received: form={form!r}")
        graph = read_graph(base)
        self.base = base
        self.form = form
        self.groups = groups
        self.norm = norm
        self.fold_normalization = bool(fold_normalization)
        self.add_alpha(alpha)
        # Held in a plain object, so that Keras does not track the graph's tuples as state.
        self._view = _View(graph, _targets(graph, form, groups, norm, self.fold_normalization))
        self._view.check(form)

    def call(self, inputs, training=None):
        outputs = self.base(inputs, training=training)
        self.add_loss(ops.cast(self._alpha, "float32") * self.measure())
        return outputs

    @property
    def weights(self):
        """The weights of `base`: α is state of the training and no weight."""
        return self.base.weights

    def measure(self):
        """Ω, without α: a differentiable scalar."""
        return self._view.measure(self.form)

    def get_config(self):
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "alpha": self.alpha_value(),
            "form": self.form,
            "groups": self.groups,
            "norm": self.norm,
            "fold_normalization": self.fold_normalization,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        base = keras.saving.deserialize_keras_object(config["base"], custom_objects=custom_objects)
        return cls(**{**config, "base": base})


def _targets(graph, form, groups, norm, fold_normalization) -> list[_Target]:
    found = {n: kernel_axes_of(call.operation) for n, call in enumerate(graph.calls)}
    axes_of = {n: axes for n, axes in found.items() if axes is not None}
    last = _last_kernel_calls(graph, set(axes_of))
    targets: list[_Target] = []
    seen: set[int] = set()
    for number, axes in axes_of.items():
        if number in last:
            continue
        layer = graph.calls[number].operation
        spatial = len(layer.kernel.shape) > 2
        sized = spatial and form in ("size", "size_squared", "multiply_adds")
        measure: StructuredSparsity
        if sized:
            measure = KernelSize(0.0, groups=groups, norm=norm, kernel_axes=axes)
        else:
            measure = KernelNumber(0.0, norm=norm, kernel_axes=axes)
        try:
            measure.check_kernel(layer.kernel.shape)
        except ValueError as error:
            raise ValueError(f"Layer {graph.calls[number].name!r}: {error}") from error
        reader = following_normalization(graph, number) if fold_normalization else None
        normalization = None if reader is None else graph.calls[reader].operation
        targets.append(_Target(number, layer, normalization, measure, id(layer) in seen))
        seen.add(id(layer))
    if not targets:
        raise ValueError(
            "`base` has no convolution or dense layer to penalize besides its last ones. "
            f"Received layers: {[call.name for call in graph.calls]}"
        )
    return targets


def _last_kernel_calls(graph: LayerGraph, kernel_calls: set[int]) -> set[int]:
    """Kernel layers whose output reaches the model's outputs without another one between."""
    last: set[int] = set()
    seen: set[int] = set()
    stack = [tensor.call for tensor in graph.flat_outputs()]
    while stack:
        number = stack.pop()
        if number in seen:
            continue
        seen.add(number)
        if number in kernel_calls:
            last.add(number)
        else:
            stack += [tensor.call for tensor in graph.calls[number].inputs]
    return last


class _View:
    """The penalized layers of a graph; an object that Keras does not look into."""

    def __init__(self, graph: LayerGraph, targets: list[_Target]):
        self.graph = graph
        self.targets = targets

    def check(self, form: str) -> None:
        if form != "multiply_adds":
            return
        for target in self.targets:
            self._positions(target.number)

    def measure(self, form: str):
        """Ω of the present kernels."""
        if form == "multiply_adds":
            return self._multiply_adds()
        total = 0.0
        for target in self.targets:
            if target.counted_before:
                continue
            sizes = ops.cast(target.measure.measure(target.kernel()), "float32")
            if form == "number_squared":
                total = total + ops.square(ops.sum(sizes))
            elif form == "size_squared":
                total = total + ops.sum(ops.square(sizes))
            else:
                total = total + ops.sum(sizes)
        return total

    def _positions(self, number: int) -> int:
        shape = self.graph.shapes[TensorRef(number, 0)]
        axis = channel_axis(self.graph.calls[number].operation, len(shape)) % len(shape)
        spatial = shape[1:axis] + shape[axis + 1 :]
        if None in spatial:
            raise ValueError(
                "form='multiply_adds' needs a model with known spatial sizes. Received: layer "
                f"{self.graph.calls[number].name!r} with output shape {shape}"
            )
        return math.prod(spatial)

    def _multiply_adds(self):
        targets = {target.number: target for target in self.targets}
        activity: dict[TensorRef, Any] = {}
        total = 0.0
        for number, call in enumerate(self.graph.calls):
            target = targets.get(number)
            if target is None:
                activity[TensorRef(number, 0)] = self._passed_on(number, call, activity)
                continue
            kernel = target.kernel()
            groups = target.measure.group_norms(kernel)
            sizes = ops.cast(ops.sum(groups, axis=0), "float32")
            # The last group is the whole kernel: its norm is the channel's.
            activity[TensorRef(number, 0)] = ops.cast(groups[-1], "float32")
            if target.measure.kernel_axes == (-2, -1):
                width = 1.0
            else:
                inputs = activity[call.inputs[0]]
                width = ops.sum(inputs) / getattr(call.operation, "groups", 1)
            total = total + self._positions(number) * width * ops.sum(ops.square(sizes))
        return total

    def _passed_on(self, number: int, call, activity):
        """Norms of the kernels behind each channel of a call that has no penalized kernel."""
        shape = self.graph.shapes.get(TensorRef(number, 0), ())
        width = None if len(shape) < 2 else shape[channel_axis(call.operation, len(shape))]
        if width is None:
            return ops.ones((1,))
        known = [activity[tensor] for tensor in call.inputs if tensor in activity]
        facts = facts_of(call.operation)
        if not known or facts is None or facts.mixes_channels or facts.kernels:
            return ops.ones((width,))
        if facts.kind == "concatenate":
            joined = ops.concatenate(known)
            return joined if joined.shape[0] == width else ops.ones((width,))
        aligned = [_tiled(vector, width) for vector in known]
        if any(vector is None for vector in aligned):
            return ops.ones((width,))
        largest = aligned[0]
        for vector in aligned[1:]:
            largest = ops.maximum(largest, vector)
        return largest


def _tiled(vector, width: int):
    """Repeats the channels as flattening does; None where the widths do not fit."""
    if width % vector.shape[0]:
        return None
    return ops.tile(vector, (width // vector.shape[0],))
