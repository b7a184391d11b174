"""The API reference: it has every public name once and no other, its examples run, and its map is true."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from test_architecture import LAYERS, imports, package_sources

import course_utils
from course_utils import cli
from course_utils.homework.engine import verdict as _verdict

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(API.glob("*.md"))}
# Where the pages differ from one page a module.
PAGE_OF = {"search.figures": "search", "cli": "cli"}
# Every check module has one; the page of the homework says so.
NOT_LISTED = {"EXERCISES"}

_DIRECTIVE = re.compile(r"^\.\. (auto\w+|py:\w+):: course_utils\.([\w.]+)\n((?:   :.*\n)*)", re.MULTILINE)
_OPTION = re.compile(r"^   :([\w-]+):(.*)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Entry(NamedTuple):
    """A directive on a page: what kind, of which name below the package, with which options."""

    kind: str
    name: str
    options: dict[str, str]

    def listed(self, option: str) -> list[str]:
        """The names that an option holds."""
        return [name.strip() for name in self.options.get(option, "").split(",") if name.strip()]


def entries(text: str) -> list[Entry]:
    found = _DIRECTIVE.findall(text)
    return [
        Entry(kind, name, {key: value.strip() for key, value in _OPTION.findall(options)})
        for kind, name, options in found
    ]


def public_modules() -> list[str]:
    """Every module that people import from, by its name below the package."""
    names = [path.stem for path in sorted(Path(course_utils.__file__).parent.iterdir()) if path.stem in LAYERS]
    checks = Path(course_utils.__file__).parent / "homework"
    inner = [f"homework.{path.stem}" for path in sorted(checks.glob("[a-z]*.py"))]
    return [name for name in names if not name.startswith("_")] + inner + ["search.figures"]


def imported(name: str) -> ModuleType:
    return importlib.import_module(f"course_utils.{name}")


def looked_up(name: str) -> Any:
    """What a dotted name below the package stands for: modules as far as they go, then attributes."""
    module, _, rest = name.partition(".")
    found: Any = imported(module)
    while rest:
        part, _, rest = rest.partition(".")
        if not hasattr(found, part):
            module = f"{module}.{part}"
            found = imported(module)
        else:
            found, module = getattr(found, part), f"{module}.{part}"
    return found


def identity(module: str, name: str) -> str:
    """Where a thing is defined, so that two import paths of it are told from two things."""
    thing = getattr(imported(module), name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return f"course_utils.{module}.{name}"


def documented(text: str) -> Counter[str]:
    """What a page describes, by `identity`; methods that stand alone count for themselves."""
    names: Counter[str] = Counter()
    for entry in entries(text):
        if entry.kind == "automodule":
            if "members" in entry.options:
                left_out = {*NOT_LISTED, *entry.listed("exclude-members")}
                members = {identity(entry.name, name) for name in imported(entry.name).__all__ if name not in left_out}
                if "ignore-module-all" in entry.options:  # in the source's order, but only what is defined there
                    members = {name for name in members if name.startswith(f"course_utils.{entry.name}.")}
                names.update(members)
        elif entry.kind != "py:module":
            module, _, name = entry.name.rpartition(".")
            names[entry.name if entry.kind == "automethod" else identity(module, name)] += 1
    return names


def complaints(pages: dict[str, str], modules: list[str]) -> list[str]:
    """What is missing in the reference, or stands there twice."""
    where = {page: documented(text) for page, text in pages.items()}
    total = sum(where.values(), Counter[str]())
    found = [f"{name} is described {count} times" for name, count in total.items() if count > 1]
    for module in modules:
        for name in imported(module).__all__:
            if name not in NOT_LISTED and identity(module, name) not in total:
                found.append(f"{module}.{name} is on no page")
    return found


def test_every_public_name_is_described_once() -> None:
    assert complaints(PAGES, public_modules()) == []


def test_a_missing_and_a_doubled_name_are_found() -> None:
    pages = dict(PAGES)
    pages["optim"] = pages["optim"].replace(".. autoclass:: course_utils.optim.NAdam", "")
    pages["losses"] += "\n.. autofunction:: course_utils.losses.huber_loss\n"

    assert complaints(pages, public_modules()) == [
        "course_utils.losses.huber_loss is described 2 times",
        "optim.NAdam is on no page",
    ]


def test_every_module_has_its_page_and_is_declared_there() -> None:
    homework = {name for name in public_modules() if name.startswith("homework.")}
    for module in set(public_modules()) - homework:
        page = PAGES[PAGE_OF.get(module, module)]
        declared = [entry.name for entry in entries(page) if entry.kind in ("automodule", "py:module")]
        assert module in declared, module
    assert {entry.name for entry in entries(PAGES["checks"]) if entry.kind == "automodule"} == homework


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    for entry in entries(PAGES[page]):
        thing = looked_up(entry.name)
        assert entry.kind in ("py:data", "autodata") or inspect.getdoc(thing), f"{entry.name} has no docstring"
        for member in entry.listed("members"):
            assert inspect.getdoc(getattr(thing, member)), f"{entry.name}.{member} has no docstring"


@pytest.mark.parametrize("page", PAGES)
def test_pages_show_no_private_name(page: str) -> None:
    for entry in entries(PAGES[page]):
        parts = [*entry.name.split("."), *entry.listed("members")]
        assert [part for part in parts if part.startswith("_") and part != "__call__"] == []


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"index"}))
def test_a_page_begins_with_what_the_module_is_for_and_an_example(page: str) -> None:
    title, rest = PAGES[page].split("\n", 1)
    words = rest.partition("```")[0].split()

    assert title.startswith("# ")
    assert 25 <= len(words) <= 130, len(words)
    assert _EXAMPLE.search(rest)


@pytest.fixture
def _undisturbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Run the examples as in a fresh session, and leave nothing behind."""
    monkeypatch.setattr(_verdict, "_latest", {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = torch.get_num_threads()
    with mpl.rc_context({"backend": "agg"}), torch.random.fork_rng():
        torch.set_num_threads(1)
        torch.manual_seed(0)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            plt.close("all")


def run_example(text: str, name: str, names: dict[str, Any]) -> tuple[int, str]:
    """Run ``>>>`` lines; return how many there were, and what went wrong."""
    said: list[str] = []
    example = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    return len(example.examples), "".join(said)


@pytest.mark.usefixtures("_undisturbed")
@pytest.mark.parametrize("page", sorted(set(PAGES) - {"index"}))
def test_examples_run(page: str) -> None:
    count, wrong = run_example("\n".join(_EXAMPLE.findall(PAGES[page])), page, {})

    assert count > 1
    assert wrong == ""


def examples_in_docstrings() -> list[Any]:
    things: dict[str, Any] = {}
    for module in public_modules():
        for name in imported(module).__all__:
            thing = getattr(imported(module), name)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and ">>> " in (inspect.getdoc(thing) or ""):
                things[identity(module, name)] = thing
    return [
        pytest.param(thing, id=name, marks=[pytest.mark.slow] if ".estimators." in name else [])
        for name, thing in things.items()
    ]


@pytest.mark.usefixtures("_undisturbed")
@pytest.mark.parametrize("thing", examples_in_docstrings())
def test_examples_in_docstrings_run(thing: Any) -> None:
    names = {"torch": torch, **vars(importlib.import_module(thing.__module__))}

    assert run_example(inspect.getdoc(thing) or "", thing.__name__, names)[1] == ""


def test_a_wrong_example_is_found() -> None:
    count, wrong = run_example(">>> 1 + 1\n3\n", "sum", {})

    assert count == 1
    assert "Expected:\n    3\nGot:\n    2" in wrong


def edges() -> dict[str, set[str]]:
    """Module or package → the public ones of the package that it imports."""
    sources = package_sources()
    found: dict[str, set[str]] = {}
    for module, text in sources.items():
        for _, name in imports(module, ast.parse(text), set(sources)):
            top, imported_top = module.partition(".")[0], name.partition(".")[2].partition(".")[0]
            if name.startswith("course_utils.") and imported_top != top and not imported_top.startswith("_"):
                found.setdefault(top, set()).add(imported_top)
    return found


def test_the_map_lists_every_module_with_what_it_builds_on() -> None:
    line = re.compile(r"^- \[`(\w+)`\]\((\w+)\.md\): [^;\n]*(?:; on (.*))?$", re.MULTILINE)
    rows = {page: set(re.findall(r"`(\w+)`", on)) for _, page, on in line.findall(PAGES["index"])}
    order = PAGES["index"].rpartition("```{toctree}")[2].rpartition("```")[0].split()[1:]

    assert list(rows) == order
    assert set(rows) == {name for name in public_modules() if "." not in name}
    real = edges()
    for module, on in rows.items():
        if module != "homework":
            assert on == real.get(module, set()), module


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", PAGES[page]):
        assert (API / target).is_file(), target


def options() -> Any:
    """The module with Sphinx's settings, which is no part of a package."""
    pytest.importorskip("sphinx", reason="needs the extra site")
    spec = importlib.util.spec_from_file_location("api_options", API / "_options.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def adapted(text: str, member: object = None, kind: str = "function") -> str:
    lines = text.split("\n")
    options().adapt(None, kind, "", member, None, lines)
    return "\n".join(lines)


def test_bars_are_no_substitutions() -> None:
    assert adapted("the median of |x|, as ``a | b`` and |y|") == r"the median of \|x\|, as ``a | b`` and \|y\|"
    assert adapted("of::\n\n    |x|\n\n    |y|\n\nthen |z|") == "of::\n\n    |x|\n\n    |y|\n\nthen \\|z\\|"
    assert adapted(">>> a | b\n... | c") == ">>> a | b\n... | c"


def test_a_bound_function_does_not_list_its_first_argument() -> None:
    text = ":param model: the network.\n:param x: (n,)."

    assert adapted(text, identity, "method") == ":param x: (n,)."
    assert adapted(text, identity, "function") == text
    assert adapted(text, Entry.listed, "method") == text


def test_signatures_are_shown_as_written() -> None:
    def shown(kind: str, name: str) -> Any:
        return options().as_written(None, kind, "", looked_up(name), None, "()", None)

    assert shown("function", "datasets.make_circles")[1] == "tuple[Tensor, Tensor]"
    assert shown("function", "models.count_parameters") == (
        "(model: nn.Module, *, trainable_only: bool = True)",
        "int",
    )
    assert shown("method", "kan.KAN.prune")[0].startswith("(x: Tensor, *, threshold: float")
    assert shown("method", "kan.KAN.load") == ("(path: str | os.PathLike[str])", "Self")
    assert shown("class", "layers.Dropout") == ("(p: float = 0.5, *, generator: torch.Generator | None = None)", None)
    assert shown("class", "kan.KANHistory")[0].startswith("(step: list[int] = ..., ")
    assert shown("exception", "claims.ClaimError") == ("", None)
    assert shown("function", "homework.require")[0] == "(verdict: ~course_utils.homework.Verdict)"
    assert options().as_written(None, "data", "", 1, None, None, None) is None


def test_short_references_are_tried_the_likeliest_first() -> None:
    known = ["course_utils.estimators.MLPRegressor.fit", "course_utils.training.fit", "course_utils.kan.KAN.fit"]

    assert list(options().candidates("fit", "course_utils.kan", known)) == [
        "course_utils.fit",
        "course_utils.kan.KAN.fit",
        "course_utils.training.fit",
        "course_utils.estimators.MLPRegressor.fit",
    ]
    assert list(options().candidates("course_utils.fit", None, known)) == ["course_utils.course_utils.fit"]


def test_the_help_is_that_of_the_command_as_it_is() -> None:
    (commands,) = (action.choices for action in cli._parser()._actions if action.choices)
    shown = [node.astext() for node in options().CourseHelp.run(None)]

    assert PAGES["cli"].count(".. course-help::\n") == 1
    assert shown[::2] == ["course --help", *(f"course {command}" for command in commands)]
    assert shown[1].startswith("usage: course [-h] COMMAND ...")
    for command, text in zip(commands, shown[3::2], strict=True):
        assert text.startswith(f"usage: course {command} [-h]")
        assert max(map(len, text.splitlines())) <= 80
