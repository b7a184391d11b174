"""Sphinx's settings for the reading site; ``docs/build.py`` runs Sphinx with them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import course_utils

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]

project = "Training deep networks, measured"
author = "the authors of the course"
project_copyright = "%Y, the authors of the course"
version = release = course_utils.__version__
language = "en"

# Documented by torch or scikit-learn, or for their machinery alone.
NOISE = [
    "extra_repr",
    "get_metadata_routing",
    "set_fit_request",
    "set_predict_request",
    "set_predict_proba_request",
    "set_score_request",
]

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
# A sketch in a lesson's prose may leave something out (…), which no Python lexer knows; it is coloured all the same.
# Beside a verdict's HTML stands the same for machines.
suppress_warnings = ["misc.highlighting_failure", "mystnb.unknown_mime_type"]

# The notebooks come executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/html", 0)]
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # they would come from another host
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_dmath_allow_digits = False  # prices: "$5" in a sentence is not the begin of a formula

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": ", ".join(NOISE)}
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 78
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Quantities", "params_style")]
# `name` in a docstring is a reference where there is such a name, and plain code otherwise.
default_role = "py:obj"

mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {
    "svg": {"fontCache": "global"},
    "options": {"enableMenu": False},  # its parts would come from another host
}

html_theme = "sphinx_book_theme"
html_title = project
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", str(ROOT / "build" / "site" / "static")]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_domain_indices = False
# The theme's own parts, with the names and landmarks that screen readers need.
templates_path = ["_templates"]
html_sidebars = {"**": ["course-brand.html", "course-search.html", "course-nav.html"]}
html_show_sphinx = False
html_context = {"default_mode": "auto"}
html_theme_options: dict[str, Any] = {
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "navbar_persistent": [],  # the search field stands in the side bar
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": False,
}


def escape_bars(app: Sphinx, kind: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Show |x| as it stands: an absolute value, no name to substitute."""
    for index, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[index] = "".join(parts)


def setup(app: Sphinx) -> None:
    """Connect what this file adds."""
    app.connect("autodoc-process-docstring", escape_bars, priority=600)  # after napoleon
