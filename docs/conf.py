"""How Sphinx builds the site: `make docs` runs it with warnings as errors and without network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "tfconvbias"
author = "the tfconvbias authors"
html_title = "tfconvbias"
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

# The first two write pages, before Sphinx looks for them.
extensions = ["reference_pages", "repository_pages", "code_links", "mathml", "myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

# Options of commands keep their two dashes.
smartquotes = False

exclude_patterns = ["README.md"]
# What a signature's annotation is called may be the name of several things; then it is no link.
suppress_warnings = ["ref.python"]
add_module_names = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
