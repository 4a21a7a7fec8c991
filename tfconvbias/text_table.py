"""Tables as plain text."""

from collections.abc import Mapping, Sequence

from tfconvbias.arguments import checked


@checked
def format_table(rows: Sequence[Mapping[str, str]], *, markdown: bool = True) -> str:
    """A table whose columns line up in a terminal.

    Args:
        rows: Cells by the name of their column; all rows have the columns of the first.
            Without rows the table is empty.
        markdown: Whether it is a Markdown table. Without, columns stand two spaces apart, the
            first one aligned to the left and all others to the right.

    Example:
        >>> print(format_table([{"layer": "conv", "size": "3"}]))
        | layer | size |
        |-------|------|
        | conv  | 3    |
        >>> print(format_table([{"layer": "conv", "size": "3"}], markdown=False))
        layer  size
        conv      3
    """
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if not markdown:
        return "\n".join(
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
    filled = [[cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in filled]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([head, rule, *body])
