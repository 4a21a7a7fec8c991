"""The rule of layers with kernels: where channels begin, end, and constants are absorbed."""

import functools

import numpy as np

from tfconvbias.graph.facts import layer_class
from tfconvbias.surgery.geometry import Crop
from tfconvbias.surgery.kernel_layers import (
    Kept,
    precise_tensor,
    read_kernel_layer,
    smaller_config,
    smaller_weights,
    to_numpy,
)
from tfconvbias.surgery.rules import LIVE, Link, Rule, State


class KernelRule(Rule):
    """A convolution, a locally connected layer or a Dense layer.

    A constant input channel is absorbed into the bias, which is exact where no tap with a weight
    reads zero padding; a zero channel always is. Of the constant channels that meet zero padding
    one is kept, whose kernel is the sum of all of theirs, each times its constant over that of the
    one: that is exact too, since zero padding is the same for all channels.

    Args:
        is_shared: Whether the layer is called more than once: then nothing but zeros is absorbed
            and the kernel is not cropped, since one kernel has to serve all calls.
        mixes: Whether the activation looks at all channels at once (softmax).
    """

    def __init__(self, number, call, graph, states, is_shared=False, mixes=False):
        super().__init__(number, call, graph, states)
        self.is_shared = is_shared
        self.mixes = mixes
        self.input_shape = self.input_shapes()[0]
        self.output_shape = self.shape(self.output) or tuple(call.operation.output.shape)
        self.view = read_kernel_layer(self.operation, self.input_shape, self.output_shape)
        (state,) = states
        constants = state.constants
        if state.axis != self.view.axis and len(self.input_shape) > 2:
            # The axis that the layer reads is not the one whose channels are known.
            constants = np.full(self.view.inputs, LIVE)
        self.understood = constants is state.constants
        self.values = constants
        self.live = np.isnan(constants)
        self.nonzero = ~self.live & (constants != 0)
        self.unsafe = self.view.active if is_shared else self.view.unsafe
        self.factors = self._factors(state)

    def _factors(self, state: State) -> np.ndarray:
        """Numbers by which input channels are multiples of one volume; 0 where they are none."""
        foldable = self.view.kind in ("conv", "dense", "transposed")
        if self.is_shared or not self.understood or not foldable:
            return np.zeros(self.view.inputs)
        if state.multiples is not None:
            return np.nan_to_num(state.multiples)
        return np.where(self.nonzero, self.values, 0.0)

    def ignore_borders(self):
        if not self.is_shared:
            self.unsafe = np.zeros_like(self.unsafe)

    @functools.cached_property
    def _blocking(self) -> np.ndarray:
        """(inputs per group, outputs): weights through which an input channel really acts."""
        view = self.view
        result = np.zeros(view.active.shape, bool)
        for group in range(view.groups):
            rows, columns = view.inputs_of_group(group), view.outputs_of_group(group)
            live, nonzero = self.live[rows, None], self.nonzero[rows, None]
            result[:, columns] = (view.active[:, columns] & live) | (
                self.unsafe[:, columns] & nonzero
            )
        return result

    def absorbed(self, channels: np.ndarray, without: np.ndarray | None = None) -> np.ndarray:
        """What constant input channels add to every output, shaped like the bias, in float64.

        Args:
            channels: Which input channels.
            without: (inputs per group, outputs): weights that are not counted.
        """
        view = self.view
        total = np.zeros(view.bias.shape)
        chosen = channels & self.nonzero
        if not chosen.any():
            return total
        for group in range(view.groups):
            rows, columns = view.inputs_of_group(group), view.outputs_of_group(group)
            picked = chosen[rows]
            if picked.any():
                weights = view.summed(view.kernel[:, picked][:, :, columns])
                if without is not None:
                    weights = np.where(without[picked][:, columns], 0.0, weights)
                total[..., columns] = self.values[rows][picked] @ weights
        return total

    def _folded(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """What one input channel takes over of those that are multiples of it and do not stay.

        Args:
            inputs: Which input channels stay.

        Returns:
            What is added to the kernel, shaped like it, and which weights went there, (inputs per
            group, outputs); `None` if nothing is taken over.
        """
        view = self.view
        gone = ~inputs & (self.factors != 0)
        if not gone.any():
            return None
        extra = np.zeros(view.kernel.shape)
        moved = np.zeros(view.active.shape, bool)
        for group in range(view.groups):
            rows, columns = view.inputs_of_group(group), view.outputs_of_group(group)
            factors = self.factors[rows]
            left = np.where(inputs[rows], np.abs(factors), 0.0)
            if not left.any() or not gone[rows].any():
                continue
            taker = int(left.argmax())
            moved[:, columns] = self._blocking[:, columns] & gone[rows, None]
            share = np.where(moved[:, columns], factors[:, None] / factors[taker], 0.0)
            extra[:, taker, columns] = (view.kernel[..., columns] * share).sum(axis=1)
        return (extra, moved) if moved.any() else None

    def constants(self):
        if self.mixes:
            return [State(self.view.axis, np.full(self.view.outputs, LIVE))]
        is_constant = ~self._blocking.any(axis=0)
        values = np.full(self.view.outputs, LIVE)
        if is_constant.any():
            before = self.view.bias + self.absorbed(~self.live)
            activated = to_numpy(self.operation.activation(precise_tensor(before)))
            activated = activated.reshape(-1, self.view.outputs)
            # A locally connected layer may hold another number at each place.
            is_constant &= (activated == activated[0]).all(axis=0)
            values[is_constant] = activated[0, is_constant]
        return [State(self.view.axis, values)]

    def _acting(self, output_needs) -> np.ndarray:
        """Input channels that act on the outputs that are needed, other than by a constant."""
        needed = output_needs[0]
        if self.mixes and needed.any():
            needed = np.ones_like(needed)
        if not self.understood:
            return np.full(self.states[0].width, bool(needed.any()))
        blocking = self._blocking
        view = self.view
        need = np.zeros(view.inputs, bool)
        for group in range(view.groups):
            columns = view.outputs_of_group(group)
            wanted = needed[columns]
            need[view.inputs_of_group(group)] = blocking[:, columns][:, wanted].any(axis=1)
        return need

    def needs(self, output_needs):
        needed = self._acting(output_needs)
        # Of these one is enough for each group, whichever it is.
        return [needed & (self.factors == 0)] if self.understood else [needed]

    def demands(self, output_needs):
        if not self.factors.any():
            return []
        acting = self._acting(output_needs) & (self.factors != 0)
        found = []
        for group in range(self.view.groups):
            rows = self.view.inputs_of_group(group)
            if acting[rows].any():
                sizes = np.abs(self.factors[rows])
                # A much smaller one would need a much larger kernel.
                found.append(rows.start + np.flatnonzero(sizes >= 1e-3 * sizes.max()))
        return found

    def held_by_padding(self, output_needs):
        if not self.understood or self.is_shared:
            return super().held_by_padding(output_needs)
        return [self._acting(output_needs) & self.nonzero]

    def links(self):
        links = []
        outputs = np.arange(self.view.outputs)
        if self.mixes:
            links.append(Link(self.output, np.zeros_like(outputs), self.output, outputs))
        if self.view.depthwise:
            multiplier = self.view.outputs // self.view.inputs
            links.append(Link(self.call.inputs[0], outputs // multiplier, self.output, outputs))
        return links

    def shortfall(self, kept_inputs: np.ndarray, kept_outputs: np.ndarray):
        """How many more channels each group must keep, so that all groups stay equally wide.

        Returns:
            Pairs (channels of a group, how many more of them) for the input and for the output.
        """
        view = self.view
        inputs: list[tuple[slice, int]] = []
        outputs: list[tuple[slice, int]] = []
        if view.depthwise:
            return inputs, outputs
        counts = [
            (
                kept_inputs[view.inputs_of_group(g)].sum(),
                kept_outputs[view.outputs_of_group(g)].sum(),
            )
            for g in range(view.groups)
        ]
        most_inputs = max(1, max(count for count, _ in counts))
        most_outputs = max(1, max(count for _, count in counts))
        for group, (have_inputs, have_outputs) in enumerate(counts):
            if not have_inputs and not have_outputs:
                continue
            if have_inputs < most_inputs:
                inputs.append((view.inputs_of_group(group), most_inputs - have_inputs))
            if have_outputs < most_outputs:
                outputs.append((view.outputs_of_group(group), most_outputs - have_outputs))
        return inputs, outputs

    def crops(self, kept) -> tuple[Crop, ...] | None:
        """The smallest window that holds the weights which stay; None to leave the kernel whole."""
        if self.is_shared:
            return None
        inputs = self._kept_inputs(kept)
        folded = self._folded(inputs)
        kernel = self.view.kernel if folded is None else self.view.kernel + folded[0]
        return self.view.live_box(kernel, inputs, kept[self.output])

    def _kept_inputs(self, kept) -> np.ndarray:
        return kept[self.call.inputs[0]] if self.understood else np.ones(self.view.inputs, bool)

    def positions(self) -> int:
        """Number of places per image where the kernels are applied."""
        transposed = self.view.kind == "transposed"
        return self.view.positions(self.input_shape if transposed else self.output_shape)

    def multiply_adds(self, kept=None) -> int:
        """Multiply-adds per image of the layer as it is, or with what is kept only."""
        view = self.view
        inputs, outputs = np.ones(view.inputs, bool), np.ones(view.outputs, bool)
        taps = view.taps
        if kept is not None:
            inputs, outputs = self._kept_inputs(kept), kept[self.output]
            crops = self.crops(kept)
            taps = taps if crops is None else int(np.prod([c.size for c in crops]))
        if view.kind == "separable":
            # One convolution of each channel by itself, then one of single pixels.
            between = int(inputs.sum()) * view.layer.depth_multiplier
            return self.positions() * between * (taps + int(outputs.sum()))
        pairs = sum(
            int(inputs[view.inputs_of_group(group)].sum())
            * int(outputs[view.outputs_of_group(group)].sum())
            for group in range(view.groups)
        )
        return self.positions() * taps * pairs

    def parameters(self, kept=None) -> int:
        """Number of weights of the layer as it is, or with what is kept only."""
        if kept is None:
            return int(self.operation.count_params())
        return int(sum(weight.size for weight in smaller_weights(self.view, self.kept(kept))))

    def kept(self, kept) -> Kept:
        """What stays of the layer."""
        inputs = self._kept_inputs(kept)
        if self.is_shared:
            return Kept(inputs, kept[self.output], None)
        folded = self._folded(inputs)
        kernel, moved = (None, None) if folded is None else folded
        bias = self.absorbed(~inputs, without=moved)
        return Kept(inputs, kept[self.output], self.crops(kept), bias, kernel)

    def rebuild(self, kept, tensors, build):
        what = self.kept(kept)
        config = smaller_config(self.view, what)
        (tensor,) = (tensors[ref] for ref in self.call.inputs)
        if config.get("padding") == "valid" and what.crops is not None:
            tensor = self._padded(tensor, what.crops, build)
        weights = smaller_weights(self.view, what)
        return build.layer(self.call, config, weights)(tensor)

    def _padded(self, tensor, crops, build):
        """The padding or cropping that the smaller kernel needs, as layers of their own."""
        padding, cropping = (layer_class(kind, len(crops)) for kind in ("padding", "cropping"))
        # The one-dimensional layers know one data format only; other kernels are not cropped.
        options = {"data_format": self.operation.data_format} if len(crops) > 1 else {}
        for kind, layer, sign in (("crop", cropping, -1), ("pad", padding, 1)):
            amounts = [(max(0, sign * cut.low), max(0, sign * cut.high)) for cut in crops]
            if any(low or high for low, high in amounts):
                tensor = layer(
                    amounts if len(crops) > 1 else amounts[0],
                    name=build.name(f"{self.call.name}_{kind}"),
                    dtype=self.operation.dtype_policy,
                    **options,
                )(tensor)
        return tensor
