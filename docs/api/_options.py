"""How the API reference reads the docstrings: options for autodoc and napoleon, and a small Sphinx extension.

``conf.py`` takes `AUTODOC` into its own namespace and names this module among its extensions::

    sys.path.insert(0, str(Path(__file__).parent / "api"))
    from _options import AUTODOC
    globals().update(AUTODOC)
    extensions = [..., "sphinx.ext.autodoc", "sphinx.ext.napoleon", "_options"]
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import stringify_signature

from course_utils.homework.engine.checks import Check

AUTODOC: dict[str, Any] = {
    # `name` in a docstring is a reference, where there is such a name, and plain code otherwise.
    "default_role": "py:obj",
    "add_module_names": False,
    "autodoc_class_signature": "mixed",
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "autodoc_typehints": "signature",
    "python_use_unqualified_type_names": True,
    "python_display_short_literal_types": True,
    # Longer ones break, one argument a line.
    "maximum_signature_line_length": 78,
    "toc_object_entries_show_parents": "hide",
    "napoleon_numpy_docstring": False,
    "napoleon_attr_annotations": False,
    "napoleon_use_ivar": True,
    "napoleon_use_rtype": False,
    "napoleon_custom_sections": [("Quantities", "params_style")],
    # Other projects' names are shown, not linked: the site is read offline.
    "nitpick_ignore_regex": [
        ("py:class", r"[A-Z]\w*|\.\.\.|(collections\.abc|np|nn|os|pd|torch|types)\.[\w.]+"),
        ("py:exc", r"(pickle|sklearn)\.[\w.]+"),
    ],
}

_PACKAGE = "course_utils"

# What modules abbreviate for themselves, as a reader can look it up.
_ALIASES = {
    "Dimension": "Float | Int | Choice",
    "FloatArray": "NDArray[np.float64]",
    "Penalty": "Callable[[KAN, Tensor], Tensor]",
    "KANBase": "KAN",
    "LossFunction": "Callable[[Tensor, Tensor], Tensor]",
    "Scoring": "str | Callable[..., float] | Sequence[str] | None",
    "Space": "Mapping[str, Float | Int | Choice]",
    "TensorPair": "tuple[Tensor, Tensor]",
    "Data": "tuple[Tensor, Tensor] | DataLoader",
    "ParamsT": "Iterable[Tensor] | Iterable[dict[str, Any]]",
}
# A name that means something else in another package.
_TWINS = {
    "Schedule": {"training": "Callable[[int], float] | LRScheduler"},
    "Verdict": {
        "homework": "~course_utils.homework.Verdict",
        "evaluation": "~course_utils.evaluation.results.Verdict",
    },
}

# Documented by torch or scikit-learn, or for their machinery alone.
_NOISE = re.compile(r"extra_repr|get_metadata_routing|set_\w+_request")


class CourseHelp(Directive):
    """``.. course-help::``: what ``course --help`` and the help of each command print, from the parser itself."""

    def run(self) -> list[nodes.Node]:
        """Return a headline and the text for each."""
        shown: list[nodes.Node] = []
        for command in help_parsers():
            text = help_text(command)
            shown += [
                nodes.rubric("", "", nodes.literal("", f"course {command or '--help'}")),
                nodes.literal_block(text, text, language="text"),
            ]
        return shown


def help_parsers() -> dict[str | None, argparse.ArgumentParser]:
    """Return the parser of ``course`` (under ``None``) and those of its commands by name."""
    from course_utils import cli

    parser = cli._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    named: dict[str | None, argparse.ArgumentParser] = {None: parser}
    return named | commands.choices


def help_text(command: str | None) -> str:
    """Return what ``course [COMMAND] --help`` prints in a terminal of 80 columns, whatever this one has.

    Raises:
        KeyError: there is no such command.
    """
    parser = help_parsers()[command]
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=80)
    return parser.format_help()


def skip(app: Sphinx, kind: str, name: str, member: Any, is_skipped: bool, options: Any) -> bool | None:
    """Leave out what a reader of this package does not look for here."""
    return True if _NOISE.fullmatch(name) else None


def as_written(
    app: Sphinx, kind: str, name: str, member: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """Show types as the source has them; evaluated, ``ArrayLike`` alone would fill four lines."""
    if arguments is None:
        return None
    try:
        signature = inspect.signature(member)
    except ValueError:  # an exception without a constructor of its own
        return "", None
    if kind == "method" and not inspect.ismethod(member):  # self, or a bound function's first argument
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    package = getattr(member, "__module__", "").split(".")[1:2]
    text = stringify_signature(signature, show_return_annotation=False)
    result = None if inspect.isclass(member) else signature.return_annotation
    if result in (None, inspect.Signature.empty):
        return _spelt_out(text, package), None
    return _spelt_out(text, package), _spelt_out(str(result), package)


def _spelt_out(text: str, package: list[str]) -> str:
    for alias, meaning in _ALIASES.items():
        text = re.sub(rf"\b{alias}\b", meaning, text)
    for twin, homes in _TWINS.items():
        for home in package:
            if home in homes:
                text = re.sub(rf"\b{twin}\b", homes[home], text)
    return text.replace("<factory>", "...")


def adapt(app: Sphinx, kind: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Change a docstring, in place, where it is written for ``help()``: |x| is a value, no name to substitute."""
    bound = kind == "method" and "." not in getattr(member, "__qualname__", ".")
    if bound:  # a module's function as a method: its first argument stands before the dot
        lines[:] = [line for line in lines if line != ":param model: the network."]
    literal_below = None  # the indent of the line that began a literal block
    for index, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_below is not None and (not line.strip() or indent > literal_below):
            continue
        literal_below = indent if line.rstrip().endswith("::") else None
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[index] = "".join(parts)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Element | None:
    """Find what a short reference means: `models.MLP`, `fit` from another module, a class by where it is defined."""
    if node.get("refdomain") != "py":
        return None
    python = env.domains.python_domain
    for target in candidates(node["reftarget"], node.get("py:module"), list(python.objects)):
        found = python.resolve_xref(env, node["refdoc"], app.builder, node.get("reftype"), target, node, content)
        if found is not None:
            return found
    return None


def candidates(target: str, module: str | None, known: list[str]) -> Iterator[str]:
    """Yield full names that ``target`` may stand for, the likeliest first."""
    yield f"{_PACKAGE}.{target}"
    if target.startswith(_PACKAGE):
        return
    ends = [name for name in known if name.endswith(f".{target.rpartition('.')[2]}")]
    # A module's function before a method of the same name.
    yield from sorted(ends, key=lambda name: (not name.startswith(f"{module}."), name.count("."), name))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it with Sphinx."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    # Autodoc shows what is a routine: a function, or what may be a method. A check is called like one.
    Check.__get__ = lambda self, *_: self  # type: ignore[attr-defined]
    app.add_directive("course-help", CourseHelp)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-process-docstring", adapt, priority=600)  # after napoleon
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
