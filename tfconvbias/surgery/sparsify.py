"""From a model with many zero weights to one that stores and multiplies the others only."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from tfconvbias.arguments import PositiveInt, checked
from tfconvbias.graph import Call, Rebuilder, facts_of, leaf_layers, read_graph
from tfconvbias.graph import fold_normalization as folded
from tfconvbias.surgery.compact import compact as compacted
from tfconvbias.surgery.compact import without_penalties
from tfconvbias.surgery.dense_kinds import KINDS, choose_kind, file_bytes, refusal
from tfconvbias.surgery.kernel_layers import to_numpy
from tfconvbias.surgery.sparsity_report import LayerChoice, LayerKind, SparsityReport


class Sparsified(NamedTuple):
    """A model and what was chosen for its layers.

    Attributes:
        model: The new `keras.Model`.
        report: The `SparsityReport`; print it.
    """

    model: keras.Model
    report: SparsityReport


@checked
def sparsify(
    model: keras.Model,
    batch_size: PositiveInt = 1,
    choose: str = "measured",
    kinds: Collection[str] = KINDS,
    max_density: float = 0.5,
    compact: bool = True,
    fold_normalization: bool = False,
    image_shapes: Mapping[str, tuple[int, int, int]] | None = None,
    opaque: tuple[Any, ...] = (),
) -> Sparsified:
    """Returns a model for inference that computes the same, each dense layer in its cheapest form.

    A dense layer stays `"dense"`, or becomes `"sparse"`: a `SparseDense` that stores its non-zeros;
    or `"block"`: a `BlockDense`, whose units are grouped by the window of the image that most of
    their weights lie in, with a sparse product for the weights outside of these windows. Where the
    image is not known, or the units are not local, one block leaves out the inputs that nobody
    reads. All are exact; the outputs differ by rounding.

    Which one is best depends on the machine, the backend and the number of examples of a call, so
    that it is measured: of those within a tenth of the fastest, the smallest is taken.

    Args:
        model: A functional or sequential model; it is not modified.
        batch_size: Number of examples of a call to choose for.
        choose: `"measured"` (default), or `"smallest"` to choose by the bytes of the weights
            without any measurement.
        kinds: The kinds to choose from. Layers stay dense if none of the others is among them.
            Converters such as ONNX's know no sparse product: give them `("dense", "block")`.
        max_density: Layers with a larger share of weights that are not zero stay dense.
        compact: Whether `compact` first takes away the units that nothing feeds or nobody reads.
        fold_normalization: As in `compact`: whether a BatchNormalization that follows a layer
            directly is multiplied into its kernel.
        image_shapes: Layer name → `(rows, cols, channels)` of the image that a dense layer's inputs
            are. Layers behind a `Flatten` of images are found without.
        opaque: As in `compact`.

    Returns:
        The new model, functional and uncompiled, and the `SparsityReport`, which says for each
        layer what it has become and why. Layers keep their names. Saved as `.keras`, the model
        takes room in proportion to what is left; loading it needs `tfconvbias` to be imported.

    Raises:
        ValueError: If an argument has no such value, an image shape does not fit its layer, or the
            model's graph cannot be read.

    Example:
        >>> model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(200, name="fc")])
        >>> kernel, bias = model.get_layer("fc").get_weights()
        >>> kernel[5:] = 0
        >>> model.get_layer("fc").set_weights([kernel, bias])
        >>> small, report = sparsify(model, choose="smallest")
        >>> type(small.get_layer("fc")).__name__, report.layers[0].num_nonzeros
        ('BlockDense', 1000)
    """
    _check(batch_size, choose, kinds, max_density)
    before = sum(file_bytes(layer) for layer in leaf_layers(model))
    if compact:
        model = compacted(model, opaque=opaque, fold_normalization=fold_normalization)
    elif fold_normalization:
        model = folded(model, keep=opaque)
    kinds = [kind for kind in KINDS if kind in kinds or kind == "dense"]
    build = _Sparsifying(model, batch_size, choose, kinds, max_density, dict(image_shapes or {}))
    smaller = build.model()
    if build.image_shapes:
        raise ValueError(
            "`image_shapes` must name dense layers of the model. "
            f"Received: {sorted(build.image_shapes)}, layers={[one.name for one in build.choices]}"
        )
    after = sum(file_bytes(layer) for layer in smaller.layers)
    report = SparsityReport(batch_size, tuple(build.choices), (before, after))
    return Sparsified(smaller, report)


class _Sparsifying(Rebuilder):
    """Makes the calls of a model again, dense layers in the kind that is chosen."""

    def __init__(self, model, batch_size, choose, kinds, max_density, image_shapes):
        super().__init__(read_graph(model))
        self.choices: list[LayerChoice] = []
        self.image_shapes = image_shapes
        self._batch_size = batch_size
        self._measures = choose == "measured"
        self._kinds = kinds
        self._max_density = max_density
        self._replaced: dict[int, keras.layers.Layer | None] = {}

    def make(self, number: int, call: Call) -> Any:
        layer = call.operation
        facts = facts_of(layer)
        # Layers that are not known have a kernel if they call it so.
        attribute = facts.kernels[-1].attribute if facts and facts.kernels else "kernel"
        kernel = getattr(layer, attribute, None)
        if kernel is None:
            return super().make(number, call)
        if id(layer) not in self._replaced:
            choice, make_layer = self._choose(call, kernel)
            new = None if make_layer is None else make_layer(self.name_for(call))
            self._replaced[id(layer)] = new
            name = self.layer(call).name if new is None else new.name
            self.choices.append(dataclasses.replace(choice, name=name))
        replaced = self._replaced[id(layer)]
        if replaced is None:
            return super().make(number, call)
        return replaced(self.tensors[call.inputs[0]])

    def layer(self, call: Call, config=None, weights=None) -> Any:
        config = call.operation.get_config() if config is None else config
        return super().layer(call, without_penalties(config), weights)

    def _choose(self, call: Call, kernel) -> tuple[LayerChoice, Callable | None]:
        layer = call.operation
        reason = refusal(layer, self._kinds, self._max_density)
        if reason is None:
            # A layer on several places at once has as many examples for each of the model's.
            places = [length or 1 for length in self.graph.shapes[call.inputs[0]][1:-1]]
            num_examples = self._batch_size * math.prod(places) if self._measures else None
            return choose_kind(layer, self._kinds, self._image_shape(call), num_examples)
        kernel = to_numpy(kernel)
        same = LayerKind("dense", file_bytes(layer), None, "as it was")
        nonzeros = int(np.count_nonzero(kernel))
        return LayerChoice(call.name, kernel.shape, nonzeros, "dense", reason, (same,)), None

    def _image_shape(self, call: Call) -> tuple[int, int, int] | None:
        """The shape of the image that a dense layer reads flattened, channels last."""
        given = self.image_shapes.pop(call.name, None)
        num_inputs = self.graph.shapes[call.inputs[0]][-1]
        if given is not None:
            if len(given) != 3 or math.prod(given) != num_inputs:
                raise ValueError(
                    f"The image shape of layer {call.name!r} does not fit its {num_inputs} inputs "
                    f"(`compact` may have taken some of them away). Received: {given}"
                )
            return tuple(given)
        (tensor,) = call.inputs
        while True:
            source = self.graph.calls[tensor.call]
            facts = facts_of(source.operation)
            if facts is None or len(source.inputs) != 1:
                return None
            shape = self.graph.shapes[source.inputs[0]]
            if facts.kind == "reshape" and len(shape) == 4 and None not in shape[1:]:
                last = getattr(source.operation, "data_format", "channels_last")
                return tuple(shape[1:]) if last == "channels_last" else None
            if facts.kind not in ("elementwise", "normalization") or len(shape) != 2:
                return None
            (tensor,) = source.inputs


def _check(batch_size, choose, kinds, max_density) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a positive integer. Received: batch_size={batch_size}"
        )
    if choose not in ("measured", "smallest"):
        raise ValueError(f"`choose` must be 'measured' or 'smallest'. Received: choose={choose!r}")
    if isinstance(kinds, str) or not set(kinds) <= set(KINDS):
        raise ValueError(f"`kinds` must be some of {KINDS}. Received: kinds={kinds!r}")
    if not 0 <= max_density <= 1:
        raise ValueError(
            f"`max_density` must lie between 0 and 1. Received: max_density={max_density}"
        )
