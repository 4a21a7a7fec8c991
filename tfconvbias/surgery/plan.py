"""The walk over a model's graph: which channels stay, and why those that are zero must."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfconvbias.arguments import checked
from tfconvbias.graph import LayerGraph, TensorRef, read_graph
from tfconvbias.surgery.joins import ConcatenateRule
from tfconvbias.surgery.kernel_rule import KernelRule
from tfconvbias.surgery.rule_table import rule_for
from tfconvbias.surgery.rules import Rule, State


@dataclass
class Plan:
    """What a surgery would do to a model; made by `make_plan`, which reads the model only.

    Attributes:
        graph: The model's calls.
        rules: One rule per call.
        states: What is known about every tensor's channels.
        kept: For every tensor which channels stay.
        used: Numbers of the calls that are made again; the others vanish.
        explanations: For each layer with zero kernels that stay, why they do.
        warnings: Layers that keep a kernel only because the network would fall apart without it.
    """

    graph: LayerGraph
    rules: list[Rule]
    states: dict[TensorRef, State]
    kept: dict[TensorRef, np.ndarray]
    used: frozenset[int]
    explanations: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def kernel_rules(self) -> list[KernelRule]:
        """The rules of the layers with kernels, in the order of the graph."""
        return [rule for rule in self.rules if isinstance(rule, KernelRule)]

    def multiply_adds(self) -> int:
        """Multiply-adds per image that the compact model will need."""
        return sum(rule.multiply_adds(self.kept) for rule in self.rules if rule.number in self.used)


@checked
def make_plan(
    model: keras.Model, opaque: tuple[Any, ...] = (), ignore_borders: bool = False
) -> Plan:
    """Walks a model's graph and decides which channels a compact model keeps.

    Args:
        model: A functional or sequential model; it is only read.
        opaque: Names or classes of layers to keep as they are, with all channels that they read
            and write.
        ignore_borders: Whether constants are absorbed as if zero padding held them too, which is
            not exact.

    Returns:
        The `Plan`.

    Raises:
        ValueError: If the model's graph cannot be read, or for a layer that the walk does not know.
    """
    graph = read_graph(model)
    states: dict[TensorRef, State] = {}
    rules = []
    for number, call in enumerate(graph.calls):
        rule = rule_for(number, call, graph, [states[t] for t in call.inputs], opaque)
        if ignore_borders:
            rule.ignore_borders()
        rules.append(rule)
        states.update(zip(rule.outputs, rule.constants(), strict=True))
    return _Walk(graph, rules, states).plan()


class _Walk:
    """Needs and links, iterated until no channel changes sides."""

    def __init__(self, graph: LayerGraph, rules: list[Rule], states: dict[TensorRef, State]):
        self.graph = graph
        self.rules = rules
        self.states = states
        self.offsets = {}
        total = 0
        for tensor, state in states.items():
            self.offsets[tensor] = total
            total += state.width
        self.total = total
        self.classes = self._classes()
        self.members = np.bincount(self.classes)
        self.forced = {tensor: np.zeros(state.width, bool) for tensor, state in states.items()}
        self.forced_by: dict[int, str] = {}
        self.demands: dict[int, list[np.ndarray]] = {}

    def _slice(self, tensor: TensorRef) -> slice:
        start = self.offsets[tensor]
        return slice(start, start + self.states[tensor].width)

    def _classes(self) -> np.ndarray:
        """Number of the class of channels that each channel stays or goes with."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        links = [link for rule in self.rules for link in rule.links()]
        firsts = [self.offsets[link.first] + link.first_channels for link in links]
        seconds = [self.offsets[link.second] + link.second_channels for link in links]
        for tensor, other in self._same_layer():
            channels = np.arange(self.states[tensor].width)
            firsts.append(self.offsets[tensor] + channels)
            seconds.append(self.offsets[other] + channels)
        if not firsts:
            return np.arange(self.total)
        rows, columns = np.concatenate(firsts), np.concatenate(seconds)
        edges = coo_array((np.ones(rows.size, bool), (rows, columns)), shape=(self.total,) * 2)
        return connected_components(edges, directed=False)[1]

    def _same_layer(self):
        """Inputs and outputs of a layer that is called more than once: one kernel serves all."""
        first: dict[int, Rule] = {}
        for rule in self.rules:
            if not getattr(rule.operation, "weights", ()):
                continue
            other = first.setdefault(id(rule.operation), rule)
            if other is not rule:
                yield from zip(rule.call.inputs, other.call.inputs, strict=True)
                yield from zip(rule.outputs, other.outputs, strict=True)

    def plan(self) -> Plan:
        needs = self._needs()
        while True:
            kept = self._kept(needs)
            used = self._used(kept)
            if not self._complete(kept, used):
                break
        plan = Plan(self.graph, self.rules, self.states, kept, used)
        self._explain(plan, needs)
        return plan

    def _needs(self) -> dict[TensorRef, np.ndarray]:
        """Channels whose value matters: from the outputs back, since calls are in order."""
        needs = {tensor: np.zeros(s.width, bool) for tensor, s in self.states.items()}
        for tensor in self.graph.flat_outputs():
            needs[tensor][:] = True
        for rule in reversed(self.rules):
            output_needs = [needs[tensor] for tensor in rule.outputs]
            self.demands[rule.number] = rule.demands(output_needs)
            found = rule.needs(output_needs)
            for tensor, need in zip(rule.call.inputs, found, strict=False):
                needs[tensor] |= need
            if not rule.call.inputs:
                for tensor in rule.outputs:
                    needs[tensor][:] = True
        return needs

    def _kept(self, needs) -> dict[TensorRef, np.ndarray]:
        wanted = np.concatenate([needs[t] | self.forced[t] for t in self.states])
        of_class = np.bincount(self.classes, weights=wanted) > 0
        kept = of_class[self.classes]
        return {tensor: kept[self._slice(tensor)] for tensor in self.states}

    def _used(self, kept) -> frozenset[int]:
        """Calls that the outputs still depend on."""
        used: set[int] = set()
        stack = [tensor.call for tensor in self.graph.flat_outputs()]
        while stack:
            number = stack.pop()
            if number in used:
                continue
            used.add(number)
            rule = self.rules[number]
            stack += [
                tensor.call
                for index, tensor in enumerate(rule.call.inputs)
                if index not in rule.dropped and (kept[tensor].any() or not self._optional(rule))
            ]
        return frozenset(used)

    @staticmethod
    def _optional(rule: Rule) -> bool:
        """Whether the call is made without the inputs that have no channel left."""
        return isinstance(rule, ConcatenateRule)

    def _complete(self, kept, used) -> bool:
        """Forces channels that a layer cannot do without; False when nothing was missing."""
        changed = False
        for number in sorted(used):
            rule = self.rules[number]
            for candidates in self.demands[number]:
                tensor = rule.call.inputs[0]
                if not kept[tensor][candidates].any():
                    reason = f"one stands for all constants that {rule.call.name!r} reads"
                    self._force(tensor, candidates, 1, kept, reason)
                    # At once, since other layers may do with the same channel.
                    return True
        for number in sorted(used, reverse=True):
            rule = self.rules[number]
            for index, tensor in enumerate(rule.call.inputs):
                if index in rule.dropped or self._optional(rule) or kept[tensor].any():
                    continue
                reason = f"{rule.call.name!r} needs an input"
                self._force(tensor, np.arange(self.states[tensor].width), 1, kept, reason)
                changed = True
            if isinstance(rule, KernelRule) and rule.view.groups > 1 and rule.understood:
                changed |= self._balance(rule, kept)
        return changed

    def _balance(self, rule: KernelRule, kept) -> bool:
        inputs, outputs = rule.shortfall(kept[rule.call.inputs[0]], kept[rule.output])
        reason = f"the groups of {rule.call.name!r} stay equally wide"
        for tensor, missing in ((rule.call.inputs[0], inputs), (rule.output, outputs)):
            for channels, count in missing:
                width = self.states[tensor].width
                self._force(tensor, np.arange(width)[channels], count, kept, reason)
        return bool(inputs or outputs)

    def _force(self, tensor, candidates, count, kept, reason) -> None:
        """Keeps `count` more of the candidate channels: those that drag the fewest others along."""
        gone = candidates[~kept[tensor][candidates]]
        classes = self.classes[self.offsets[tensor] + gone]
        order = np.argsort(self.members[classes], kind="stable")
        for channel in gone[order][:count]:
            self.forced[tensor][channel] = True
            self.forced_by.setdefault(int(self.classes[self.offsets[tensor] + channel]), reason)

    def _explain(self, plan: Plan, needs) -> None:
        causes = _Causes(self, plan, needs)
        outputs = set(self.graph.flat_outputs())
        dead: dict[int, str] = {}
        for rule in plan.kernel_rules():
            if rule.number not in plan.used:
                continue
            kept = plan.kept[rule.output]
            constant = ~np.isnan(self.states[rule.output].constants)
            held = np.flatnonzero(kept & constant)
            if not held.size:
                continue
            classes = self.classes[self.offsets[rule.output] + held]
            plan.explanations[rule.call.name] = (
                f"{held.size} of {kept.size} kernels are zero and stay: {causes.tell(classes)}"
            )
            if constant[kept].all() and rule.output not in outputs:
                dead[rule.number] = rule.call.name
        if not self.graph.is_connected(dead.keys()):
            plan.warnings.extend(dead.values())


class _Causes:
    """Why the channels of a class stay though some of them are constant."""

    def __init__(self, walk: _Walk, plan: Plan, needs):
        self.padding: dict[int, set[str]] = {}
        self.writers: dict[int, set[str]] = {}
        self.outputs: set[int] = set()
        self.forced = walk.forced_by
        for rule in plan.rules:
            if rule.number not in plan.used:
                continue
            held = rule.held_by_padding([needs[tensor] for tensor in rule.outputs])
            for tensor, channels in zip(rule.call.inputs, held, strict=False):
                self._note(self.padding, walk, tensor, channels, rule)
            if isinstance(rule, KernelRule):
                live = np.isnan(walk.states[rule.output].constants) & plan.kept[rule.output]
                self._note(self.writers, walk, rule.output, live, rule)
        for tensor in walk.graph.flat_outputs():
            self.outputs.update(walk.classes[walk._slice(tensor)].tolist())

    @staticmethod
    def _note(where, walk, tensor, channels, rule) -> None:
        for number in np.unique(walk.classes[walk._slice(tensor)][channels]).tolist():
            where.setdefault(number, set()).add(rule.call.name)

    def tell(self, classes: np.ndarray) -> str:
        """One sentence for the classes of a layer's zero kernels that stay."""
        padding: set[str] = set()
        writers: set[str] = set()
        rest: set[str] = set()
        for number in np.unique(classes).tolist():
            if number in self.outputs:
                rest.add("they are outputs of the model")
            elif number in self.padding:
                padding |= self.padding[number]
            elif number in self.writers:
                writers |= self.writers[number]
            else:
                rest.add(self.forced.get(number, "their constant is needed"))
        parts = sorted(rest)
        if padding:
            parts.append(f"they emit a constant that meets the zero padding of {_few(padding)}")
        if writers:
            parts.append(f"their channels are tied to live ones of {_few(writers)}")
        return "; ".join(parts)


def _few(names: set[str]) -> str:
    shown = sorted(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in shown) + more


def warn_of_last_kernels(plan: Plan) -> None:
    """Warns about layers without a live kernel that had to keep one."""
    if plan.warnings:
        warnings.warn(
            f"No live kernel is left in {plan.warnings}, but no shortcut goes around: each keeps "
            "what its constant output needs. The model's output does not depend on its input.",
            stacklevel=3,
        )
