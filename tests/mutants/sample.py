"""A random sample of the possible mutants of some files, the same for the same seed."""

import ast
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from operators import DropKeyword, DropStatement, SwapCall


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the given occurrence of what an operator can change there."""

    file: Path
    operator: str
    occurrence: int
    line: int

    def code(self, original: str) -> str | None:
        """The whole file with the change; None where it is no longer a program or the same one."""
        code = mutate_code(original, OPERATORS[self.operator], self.occurrence)
        try:
            changed = code and ast.dump(ast.parse(code)) != ast.dump(ast.parse(original))
        except SyntaxError:
            return None
        return code if changed else None


def _operators() -> dict[str, Operator]:
    found: dict[str, Operator] = {}
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if not operator.arguments() and not name.endswith("NoOp"):
            found[name.removeprefix("core/")] = operator()
    for own in (DropKeyword, DropStatement, SwapCall):
        found[own.__name__] = own()
    return found


OPERATORS = _operators()


def sample(root: Path, files: list[Path], size: int, seed: int) -> list[Mutant]:
    """Draw places evenly, then one of the changes that are possible at each.

    One comparison can be changed in seven ways and one call in one: drawn evenly, nearly all
    mutants would be comparisons.
    """
    changes = defaultdict(list)
    sources = {file: (root / file).read_text(encoding="utf-8") for file in files}
    for file, source in sources.items():
        for place, mutant in _possible(file, source):
            changes[place].append(mutant)
    order = random.Random(seed)
    places = sorted(changes, key=str)
    order.shuffle(places)
    chosen: list[Mutant] = []
    for place in places:
        mutant = order.choice(changes[place])
        if mutant.code(sources[mutant.file]) is not None:
            chosen.append(mutant)
        if len(chosen) == size:
            break
    return sorted(chosen, key=lambda mutant: (str(mutant.file), mutant.line))


def found_again(root: Path, file: Path, operator: str) -> Iterator[Mutant]:
    """All that an operator can change in a file, to find a mutant of an earlier sample."""
    for _, mutant in _possible(file, (root / file).read_text(encoding="utf-8")):
        if mutant.operator == operator:
            yield mutant


def _possible(file: Path, source: str) -> Iterator[tuple[tuple, Mutant]]:
    nodes = list(ast_nodes(get_ast(source)))
    uninteresting = list(_uninteresting(ast.parse(source)))
    for name, operator in OPERATORS.items():
        occurrence = -1
        for node in nodes:
            for start, end in operator.mutation_positions(node):
                occurrence += 1
                if not any(first <= start and end <= last for first, last in uninteresting):
                    place = (str(file), start, end, name.split("_")[0])
                    yield place, Mutant(file, name, occurrence, start[0])


def _uninteresting(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where changes change no behaviour but texts: annotations, and what an error says."""
    for node in ast.walk(tree):
        skipped: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            skipped.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            skipped.append(node.returns)
        elif isinstance(node, ast.Raise):
            skipped.append(node.exc)
        for part in skipped:
            if part is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)
