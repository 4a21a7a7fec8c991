"""Makes links of the names in the text: `tcb.surgery.prune`, `surgery.prune` or `BetaLasso`."""

import re
from collections import Counter

from docutils import nodes
from sphinx import addnodes

# A name, with arguments or without.
_NAME = re.compile(r"(?:tcb\.|tfconvbias\.)?([A-Za-z_][\w.]*)(?:\(.*\))?", re.DOTALL)

# Functions that have the name of an argument or attribute elsewhere.
_AMBIGUOUS = {
    *("fold_normalization", "learning_rate", "num_nonzeros", "num_units"),
    *("permute_pixels", "window_share"),
}


def _targets(objects) -> dict[str, str]:
    """Each way to write a public name → its full name."""
    public = [path for path, entry in objects.items() if entry.objtype in ("class", "function")]
    found = {path.removeprefix("tfconvbias."): path for path in public}
    counts = Counter(path.rpartition(".")[2] for path in public)
    for path in public:
        name = path.rpartition(".")[2]
        # A short word, such as `run`, means something else more often than not.
        is_telling = "_" in name or any(letter.isupper() for letter in name)
        if counts[name] == 1 and is_telling and name not in _AMBIGUOUS:
            found[name] = path
    return found


def _entry_around(node: nodes.Node) -> set[str]:
    """The names of the entries of the reference that a node stands in."""
    names = set()
    while node is not None:
        if isinstance(node, addnodes.desc):
            names |= set(node[0]["ids"])
        node = node.parent
    return names


def link_names(app, doctree, docname):
    """Put a link around each code span that names something of the reference."""
    objects = app.env.get_domain("py").objects
    targets = _targets(objects)
    for node in list(doctree.findall(nodes.literal)):
        match = _NAME.fullmatch(node.astext())
        path = targets.get(match.group(1)) if match else None
        if path is None or isinstance(node.parent, nodes.reference | nodes.title):
            continue
        entry = objects[path]
        if entry.node_id in _entry_around(node):
            continue
        page = app.builder.get_relative_uri(docname, entry.docname)
        link = nodes.reference("", "", internal=True, refuri=f"{page}#{entry.node_id}")
        node.replace_self(link)
        link += node


def setup(app):
    """Look at each page once its other links are known."""
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
