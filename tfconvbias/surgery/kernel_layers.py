"""Dense and convolution layers seen alike: a kernel of taps, input channels, output channels."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.connectivity import patch_indices
from tfconvbias.graph.facts import channel_axis, facts_of, known_facts
from tfconvbias.graph.windows import WindowOptions, window_of
from tfconvbias.surgery.geometry import Crop, Window, crop, safe_taps, window
from tfconvbias.surgery.layer_cost import unknown_places


def to_numpy(variable) -> np.ndarray:
    """The value of a variable or tensor as a NumPy array."""
    if isinstance(variable, keras.Variable) and keras.config.backend() == "tensorflow":
        # `convert_to_numpy` copies it twice, which is most of the time of pruning a large model.
        return np.asarray(variable)
    return np.asarray(ops.convert_to_numpy(variable))


def precise_tensor(array: np.ndarray):
    """A tensor with as many digits as the backend has: JAX has float32 only, unless it is told."""
    dtype = "float32" if keras.config.backend() == "jax" else "float64"
    return ops.convert_to_tensor(array.astype(dtype))


def check_weights(layer, name: str) -> None:
    """A ValueError unless a layer's kernels are what it computes with, and finite.

    Args:
        layer: Any layer; only those with kernels that are known are checked.
        name: Its name in the message.
    """
    facts = facts_of(layer)
    if facts is None or not facts.kernels:
        return
    reason = None
    if getattr(layer, "quantization_mode", None) is not None:
        reason = f"is quantized to {layer.quantization_mode}: cut the model before it is quantized"
    elif getattr(layer, "lora_enabled", False):
        reason = "has LoRA weights beside its kernel: cut the model before LoRA is enabled"
    else:
        for kernel in facts.kernels:
            if not np.isfinite(to_numpy(getattr(layer, kernel.attribute))).all():
                reason = f"has NaN or infinite weights in its `{kernel.attribute}`"
    if reason is not None:
        raise ValueError(f"Layer {name!r} {reason}. Received: a layer of {type(layer).__name__}")


@dataclass
class KernelLayer:
    """What the graph walk has to know about a Conv or Dense layer at one of its calls.

    Attributes:
        layer: The user's layer (read only).
        kind: What kind of kernel it has, as in `LayerFacts`.
        kernel: Array of shape (taps, inputs per group, outputs); of a locally connected layer the
            taps of all places, one place after the other.
        bias: Array of shape (outputs,), zeros if the layer has none; of a locally connected layer
            (places, outputs).
        groups: Number of groups g: output j sees inputs of group j // (outputs / g) only.
        windows: One `Window` per spatial axis; empty for Dense.
        axis: Channel axis of the layer's input and output, negative.
        croppable: Whether the kernel may be cut to fewer taps.
        active: Boolean (inputs per group, outputs): has any tap a weight that is not zero.
        unsafe: Boolean, likewise: has a tap that reads zero padding such a weight.
        meets_input: Boolean (places, taps): which taps of a locally connected layer read the input
            and not zero padding; `None` for any other layer.
    """

    layer: Any
    kind: str
    kernel: np.ndarray
    bias: np.ndarray
    groups: int
    windows: tuple[Window, ...]
    axis: int
    croppable: bool
    active: np.ndarray
    unsafe: np.ndarray
    meets_input: np.ndarray | None = None

    @property
    def taps(self) -> int:
        """Number of taps of the kernel at one place."""
        places = 1 if self.meets_input is None else self.meets_input.shape[0]
        return self.kernel.shape[0] // places

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.kernel.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        """Number of output channels: kernels."""
        return self.kernel.shape[2]

    @property
    def depthwise(self) -> bool:
        """Whether each kernel reads one channel of its own, as a matter of the layer's type."""
        return self.kind == "depthwise"

    def summed(self, kernel: np.ndarray) -> np.ndarray:
        """The sum of a kernel over the taps that read the input, in float64.

        Args:
            kernel: Some of the columns of `self.kernel`, (taps, inputs, outputs).

        Returns:
            (inputs, outputs), or (places, inputs, outputs) for a locally connected layer.
        """
        if self.meets_input is None:
            return kernel.sum(axis=0, dtype="float64")
        apart = kernel.reshape(*self.meets_input.shape, *kernel.shape[1:])
        return np.einsum("ptio,pt->pio", apart.astype("float64"), self.meets_input)

    def inputs_of_group(self, group: int) -> slice:
        """Input channels of a group."""
        width = self.kernel.shape[1]
        return slice(group * width, (group + 1) * width)

    def outputs_of_group(self, group: int) -> slice:
        """Output channels of a group."""
        width = self.outputs // self.groups
        return slice(group * width, (group + 1) * width)

    def positions(self, shape) -> int:
        """Number of places r·c where a kernel of this layer is applied, from the output shape.

        A transposed convolution applies its kernels at the places of its input: pass that shape.
        """
        spatial = list(shape[1:])
        del spatial[self.axis if self.axis == -1 else 0]
        if None in spatial:
            raise ValueError(unknown_places(self.layer.name, shape))
        return math.prod(spatial)

    def live_box(
        self, kernel: np.ndarray, kept_inputs: np.ndarray, kept_outputs: np.ndarray
    ) -> tuple[Crop, ...] | None:
        """The smallest window around the kept weights that are not zero; None if not croppable."""
        if not self.croppable or not self.windows:
            return None
        sizes = tuple(view.size for view in self.windows)
        live = np.zeros(sizes, bool)
        for group in range(self.groups):
            rows = kept_inputs[self.inputs_of_group(group)]
            columns = np.zeros(self.outputs, bool)
            columns[self.outputs_of_group(group)] = kept_outputs[self.outputs_of_group(group)]
            live |= (kernel[:, rows][:, :, columns] != 0).any(axis=(1, 2)).reshape(sizes)
        return self.crop_to(live)

    def crop_to(self, live: np.ndarray) -> tuple[Crop, ...] | None:
        """The crop to the bounding box of the live taps."""
        crops = []
        for axis, view in enumerate(self.windows):
            others = tuple(other for other in range(live.ndim) if other != axis)
            places = np.flatnonzero(live.any(axis=others))
            if not places.size:
                places = np.array([(view.size - 1) // 2])
            cut = crop(view, int(places[0]), int(places[-1]))
            if cut is None:
                return None
            crops.append(cut)
        return tuple(crops)


def read_kernel_layer(layer, input_shape, output_shape) -> KernelLayer:
    """Reads a layer's weights into the common form.

    Args:
        layer: A layer with kernels that can be made again with fewer of them.
        input_shape: Static shape of the input of the call.
        output_shape: Static shape of its output.
    """
    facts = known_facts(layer)
    options = window_of(layer)
    axis = channel_axis(layer, len(input_shape))
    kernel, groups = _kernel(layer, facts.kind)
    windows = () if options is None else _windows(options, input_shape, output_shape)
    # The padding layers of one axis know one data format only.
    croppable = bool(windows) and facts.kind not in ("local", "transposed")
    croppable = croppable and (len(windows) > 1 or axis == -1)
    bias = to_numpy(layer.bias) if layer.use_bias else np.zeros(kernel.shape[2])
    nonzero = kernel != 0
    active = nonzero.any(axis=0)
    meets_input = None
    if facts.kind == "local" and options is not None:
        # Every place has a bias of its own, so that constants pass through exactly at the border.
        unsafe = np.zeros_like(active)
        meets_input = _meets_input(options, input_shape)
        bias = np.broadcast_to(bias.reshape(-1, kernel.shape[2]), (len(meets_input), len(bias.T)))
    elif not windows:
        unsafe = np.zeros_like(active)
    elif facts.kind == "transposed":
        # Outputs near the border get fewer terms: no constant passes through.
        unsafe = active
    else:
        safe = np.ones((), bool)
        for view in windows:
            safe = np.logical_and.outer(safe, safe_taps(view))
        unsafe = nonzero[~safe.reshape(-1)].any(axis=0)
    return KernelLayer(
        layer,
        facts.kind,
        kernel,
        bias.astype("float64"),
        groups,
        windows,
        axis,
        croppable,
        active,
        unsafe,
        meets_input,
    )


def _meets_input(options: WindowOptions, input_shape) -> np.ndarray:
    """(places, taps): which taps read the input and not zero padding."""
    patches = patch_indices(
        tuple(options.spatial(input_shape)),
        tuple(options.size),
        tuple(options.strides),
        options.padding,
        tuple(options.dilation_rate),
    )
    return patches >= 0


def _kernel(layer, kind: str) -> tuple[np.ndarray, int]:
    if kind == "separable":
        depthwise = to_numpy(layer.depthwise_kernel).astype("float64")
        pointwise = to_numpy(layer.pointwise_kernel).astype("float64")
        inputs, multiplier = depthwise.shape[-2:]
        pointwise = pointwise.reshape(inputs, multiplier, -1)
        return np.einsum("tim,imo->tio", depthwise.reshape(-1, inputs, multiplier), pointwise), 1
    kernel = to_numpy(layer.kernel)
    if kind == "transposed":
        kernel = kernel.swapaxes(-1, -2)
        return kernel.reshape(-1, *kernel.shape[-2:]), 1
    if kind == "depthwise":
        return kernel.reshape(-1, 1, kernel.shape[-2] * kernel.shape[-1]), kernel.shape[-2]
    return kernel.reshape(-1, *kernel.shape[-2:]), getattr(layer, "groups", 1)


def _windows(options: WindowOptions, input_shape, output_shape) -> tuple[Window, ...]:
    return tuple(
        window(size, stride, dilation, options.padding, length, outputs)
        for size, stride, dilation, length, outputs in zip(
            options.size,
            options.strides,
            options.dilation_rate,
            options.spatial(input_shape),
            options.spatial(output_shape),
            strict=True,
        )
    )


@dataclass(frozen=True)
class Kept:
    """What stays of a layer: channels, taps, and what is added to bias and kernel.

    Attributes:
        inputs: Which input channels stay.
        outputs: Which output channels stay.
        crops: Which taps stay; `None` for all of them.
        extra_bias: What is added to the bias, for constant channels that are gone.
        extra_kernel: What is added to the kernel, as `KernelLayer.kernel` is shaped, for constant
            channels whose place another one takes.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    crops: tuple[Crop, ...] | None
    extra_bias: np.ndarray | None = None
    extra_kernel: np.ndarray | None = None


def smaller_config(view: KernelLayer, kept: Kept) -> dict:
    """The layer's configuration with what is kept only."""
    layer = view.layer
    config = layer.get_config()
    filters = int(kept.outputs.sum())
    if view.kind == "dense":
        config["units"] = filters
    elif not view.depthwise:
        config["filters"] = filters
    if view.kind in ("conv", "local") and view.groups > 1:
        alive = [
            group
            for group in range(view.groups)
            if kept.outputs[view.outputs_of_group(group)].any()
        ]
        config["groups"] = len(alive)
    if kept.crops is not None and tuple(c.size for c in kept.crops) != tuple(
        window.size for window in view.windows
    ):
        config["kernel_size"] = tuple(cut.size for cut in kept.crops)
        config["padding"] = "same" if all(cut.is_same for cut in kept.crops) else "valid"
        dilation = keras.tree.flatten(layer.dilation_rate)
        if all(cut.size == 1 for cut in kept.crops):
            dilation = [1] * len(dilation)
        config["dilation_rate"] = tuple(dilation)
    if kept.extra_bias is not None and kept.extra_bias.any():
        config["use_bias"] = True
    return config


def smaller_weights(view: KernelLayer, kept: Kept) -> list[np.ndarray]:
    """The layer's weights with what is kept only, in the order of `set_weights`."""
    layer = view.layer
    if view.kind == "separable":
        depthwise = _cut(to_numpy(layer.depthwise_kernel), kept.crops)
        multiplier = depthwise.shape[-1]
        pointwise = to_numpy(layer.pointwise_kernel)
        rows = np.repeat(kept.inputs, multiplier)
        weights = [depthwise[..., kept.inputs, :], pointwise[..., rows, :][..., kept.outputs]]
    else:
        kernel = to_numpy(layer.kernel)
        if kept.extra_kernel is not None:
            extra = kept.extra_kernel
            extra = extra.swapaxes(-1, -2) if view.kind == "transposed" else extra
            kernel = kernel + extra.reshape(kernel.shape)
        if view.kind == "dense":
            weights = [kernel[kept.inputs][:, kept.outputs]]
        elif view.kind == "transposed":
            weights = [kernel[..., kept.outputs, :][..., kept.inputs]]
        elif view.depthwise:
            weights = [_cut(kernel, kept.crops)[..., kept.inputs, :]]
        else:
            weights = [_grouped(_cut(kernel, kept.crops), view, kept)]
    folded = kept.extra_bias is not None and kept.extra_bias.any()
    if layer.use_bias or folded:
        bias = view.bias if kept.extra_bias is None else view.bias + kept.extra_bias
        shape = layer.kernel.shape[: len(view.windows)] if view.kind == "local" else ()
        weights.append(bias[..., kept.outputs].reshape(*shape, -1))
    return weights


def _cut(kernel: np.ndarray, crops: tuple[Crop, ...] | None) -> np.ndarray:
    if crops is None:
        return kernel
    return kernel[tuple(slice(cut.first, cut.first + cut.size) for cut in crops)]


def _grouped(kernel: np.ndarray, view: KernelLayer, kept: Kept) -> np.ndarray:
    """Columns of every group that stays, each with the rows of its own group that stay."""
    parts = []
    for group in range(view.groups):
        columns = kept.outputs[view.outputs_of_group(group)]
        if columns.any():
            rows = kept.inputs[view.inputs_of_group(group)]
            part = kernel[..., view.outputs_of_group(group)]
            parts.append(part[..., rows, :][..., columns])
    return np.concatenate(parts, axis=-1)
