"""Mutations that cosmic-ray does not know and that hurt numerical code most.

cosmic-ray changes operators, comparisons and numbers. The errors which reviewers planted here by
hand were others: a maximum for a minimum, an argument that is not passed on, a call left out.
"""

from collections.abc import Iterable, Iterator

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Keyword, Name
from parso.tree import NodeOrLeaf

_PAIRS = [
    ("maximum", "minimum"),
    ("max", "min"),
    ("argmax", "argmin"),
    ("any", "all"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("sum", "mean"),
    ("std", "var"),
    ("sqrt", "square"),
    ("exp", "log"),
    ("sin", "cos"),
    ("union", "intersection"),
    ("logical_and", "logical_or"),
    ("stack", "concatenate"),
]
OTHER = dict(_PAIRS) | {b: a for a, b in _PAIRS}

Positions = Iterable[tuple[tuple[int, int], tuple[int, int]]]


class SwapCall(Operator):
    """Calls `minimum` where `maximum` was called, and so on."""

    def mutation_positions(self, node: NodeOrLeaf) -> Positions:
        if (
            isinstance(node, Name)
            and node.value in OTHER
            and (following := node.get_next_leaf()) is not None
            and following.value == "("
            and (before := node.get_previous_leaf()) is not None
            and before.value != "def"
        ):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Name, index: int) -> Name:
        return Name(OTHER[node.value], node.start_pos, node.prefix)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return (Example("ops.maximum(a, b)", "ops.minimum(a, b)"),)


class DropKeyword(Operator):
    """Leaves one keyword argument of a call out, so that its default counts."""

    def mutation_positions(self, node: NodeOrLeaf) -> Positions:
        return [(child.start_pos, child.end_pos) for child in _keywords(node)]

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        dropped = list(_keywords(node))[index]
        children = node.children
        place = children.index(dropped)
        comma = place + 1 < len(children) and children[place + 1].type == "operator"
        ends = place + 2 if comma and children[place + 1].value == "," else place + 1
        del children[place:ends]
        return node

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return (
            Example("f(a, axis=1)", "f(a,)"),
            Example("f(axis=1, out=b)", "f( out=b)"),
            Example("f(axis=1)", "f()"),
        )


class DropStatement(Operator):
    """Leaves out a statement which only calls something, or an augmented assignment."""

    def mutation_positions(self, node: NodeOrLeaf) -> Positions:
        if node.type == "simple_stmt" and _has_only_an_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        statement = node.children[0]
        node.children[0] = Keyword("pass", statement.start_pos, statement.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return (Example("f(a)\n", "pass\n"), Example("a += 1\n", "pass\n"))


def _keywords(node: NodeOrLeaf) -> Iterator[NodeOrLeaf]:
    is_call = node.type == "trailer" and node.children[0].value == "("
    if not is_call and not (node.type == "arglist" and node.parent.type == "trailer"):
        return
    for child in node.children:
        if child.type == "argument" and child.children[1] == "=":
            yield child


def _has_only_an_effect(statement: NodeOrLeaf) -> bool:
    if statement.type == "expr_stmt":
        return statement.children[1].type in ("operator", "augassign") and (
            statement.children[1].get_code().strip() not in ("=", ":")
        )
    last = statement.children[-1] if statement.type in ("atom_expr", "power") else None
    return last is not None and last.type == "trailer" and last.children[0].value == "("
