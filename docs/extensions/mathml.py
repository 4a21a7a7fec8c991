"""Equations as MathML, which browsers draw themselves: no script, no font, no network."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

# Sizes of brackets, which docutils does not know; MathML stretches brackets by itself.
_SIZES = re.compile(r"\\[bB]ig+[lr]?(?![a-zA-Z])")


def mathml(tex: str, as_block: bool) -> str:
    """The MathML of a TeX formula; raises an error for commands that docutils does not know."""
    return tex2mathml(_SIZES.sub("", tex), as_block=as_block)


def _inline(translator, node):
    translator.body.append(mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _display(translator, node):
    translator.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
