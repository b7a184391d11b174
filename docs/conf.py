"""Sphinx's settings for the reading site; ``docs/build.py`` runs Sphinx with them."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import course_utils

DOCS = Path(__file__).parent
BUILD = DOCS.parent / "build" / "site"
ABOUT = json.loads((BUILD / "about.json").read_text(encoding="utf-8"))

# How the API reference reads the docstrings stands beside its pages.
sys.path.insert(0, str(DOCS / "api"))
from _options import AUTODOC  # noqa: E402

project = "Training deep networks, measured"
author = "the authors of the course"
project_copyright = "%Y, the authors of the course"
version = release = course_utils.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "_options",
]
globals().update(AUTODOC)
exclude_patterns: list[str] = []
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}

# A sketch in a lesson's prose may leave something out (…), which no Python lexer knows; it is coloured all the same.
suppress_warnings = ["misc.highlighting_failure"]

# The notebooks come executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/html", 0)]
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # they would come from another host
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
# Prices: "$5" in a sentence is not the begin of a formula.
myst_dmath_allow_digits = False

mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {
    "svg": {"fontCache": "global"},
    "options": {"enableMenu": False},  # its parts would come from another host
}

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static", "api/_api.css", str(BUILD / "static")]
html_extra_path = [str(BUILD / "extra")]
templates_path = ["_templates"]
html_css_files = ["course.css", "_api.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_favicon = "_static/favicon.svg"
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_sidebars = {"**": ["course-brand.html", "course-search.html", "course-nav.html"]}
html_context = {"default_mode": "auto"}
html_theme_options: dict[str, Any] = {
    "repository_url": ABOUT["repository"],
    "use_download_button": False,
    "use_repository_button": False,
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "show_toc_level": 1,
    "navbar_persistent": [],  # the search field stands in the side bar
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": False,
    "article_header_end": ["article-header-buttons"],
}


def add_buttons(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the places where a page can be opened, and where its source stands, on the bar above it."""
    about = ABOUT["pages"].get(pagename, {})
    icons = {"colab": "_static/images/logo_colab.png", "binder": "_static/images/logo_binder.svg"}
    launch = [
        {
            "type": "link",
            "text": text,
            "url": url,
            "icon": next((icon for name, icon in icons.items() if name in url), "fas fa-rocket"),
        }
        for text, url in about.get("links", [])
    ]
    if launch:
        context["header_buttons"].append(
            {
                "type": "group",
                "tooltip": "Open this notebook",
                "icon": "fas fa-rocket",
                "buttons": launch,
                "label": "launch-buttons",
            }
        )
    places = [("Repository", "fab fa-github", ABOUT["repository"])]
    if about:
        places.append(("Source of this page", "fas fa-code", about["source"]))
        places.append(("Suggest a change", "fas fa-pencil-alt", about["edit"]))
    places.append(("Report a problem", "fas fa-lightbulb", f"{ABOUT['repository']}/issues/new"))
    buttons = [{"type": "link", "text": text, "icon": icon, "url": url} for text, icon, url in places]
    context["header_buttons"].append(
        {
            "type": "group",
            "tooltip": "Source and problems",
            "icon": "fab fa-github",
            "buttons": buttons,
            "label": "source-buttons",
        }
    )


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of the lines in the repository that define a name of the package."""
    thing: Any = importlib.import_module(info["module"])
    try:
        for name in info["fullname"].split("."):
            thing = getattr(thing, name)
        if isinstance(thing, property):
            thing = thing.fget
        thing = inspect.unwrap(thing)
        file, (lines, start) = inspect.getsourcefile(thing), inspect.getsourcelines(thing)
    except (AttributeError, TypeError, OSError):  # a value, a field, or something that Python made
        return None
    path = Path(file or "")
    if not path.is_relative_to(DOCS.parent / "course_utils"):
        return None
    place = f"{path.relative_to(DOCS.parent).as_posix()}#L{start}-L{start + len(lines) - 1}"
    return f"{ABOUT['repository']}/blob/main/{place}"


def setup(app: Sphinx) -> None:
    """Connect what this file adds; after the theme's own, which make the list of buttons."""
    app.connect("html-page-context", add_buttons, priority=600)
