"""Configuration of the documentation (sphinx)."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import get_args

from numpy.typing import ArrayLike
from sphinx_autodoc_typehints import format_annotation

from mosaicvi.__about__ import __version__

# sphinx_autodoc_typehints calls what sphinx 9 deprecates: nothing that we could change
warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")

HERE = Path(__file__).parent

project = "mosaicvi"
author = "mosaicvi developers"
copyright = "2026, mosaicvi developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinxcontrib.bibtex",
    "myst_nb",
]
# autosummary writes its pages with the first suffix that it takes for reStructuredText
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Tutorials live at the top of the repository; sphinx reads only what lies below docs/.
for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
    (HERE / "tutorials").mkdir(exist_ok=True)
    shutil.copyfile(notebook, HERE / "tutorials" / notebook.name)

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are executed once a build, and a cell that fails fails the build.
nb_execution_mode = os.environ.get("MOSAICVI_DOCS_EXECUTE", "cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them into the parameter lists
autodoc_inherit_docstrings = False
always_use_bars_union = True
typehints_defaults = "comma"
suppress_warnings = ["config.cache"]  # of the function below, which sphinx cannot keep


def typehints_formatter(annotation, config):
    """Write numpy's ArrayLike by its name, where its members would be listed."""
    members, parts = get_args(ArrayLike), get_args(annotation)
    if not all(member in parts for member in members):
        return None
    rest = [part for part in parts if part not in members]
    return " | ".join(["``ArrayLike``", *(format_annotation(part, config) for part in rest)])


napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = True
napoleon_use_param = True
napoleon_preprocess_types = False


def keep_returns_whole(app, what, name, obj, options, lines):
    """Hand napoleon the text of a Returns section as one description.

    It takes every line there for a result of its own, split at the first colon.
    """
    heads = [i for i, line in enumerate(lines[:-1]) if line == "Returns" and "---" in lines[i + 1]]
    for head in reversed(heads):
        body = head + 2
        following = [i for i in range(body, len(lines)) if lines[i].startswith("---")]
        end = following[0] - 1 if following else len(lines)
        lines[body:end] = [":", *("    " + line if line else line for line in lines[body:end])]


def setup(app):
    """Connect what runs before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", keep_returns_whole, priority=400)


bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "alpha"

# Every reference to a public name of ours must resolve. Other packages' names are not linked, since
# the build needs no network, and our private names have no page.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!mosaicvi\b).*"),
    (r"py:.*", r"mosaicvi\.(.*\.)?_.*"),
]

html_theme = "sphinx_book_theme"
html_title = "mosaicvi"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "show_navbar_depth": 1,
    "navbar_persistent": [],  # the sidebar already holds the search field
    "use_download_button": False,
    "use_fullscreen_button": False,
}
