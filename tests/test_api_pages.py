"""The API reference: a page for every module, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from test_architecture import LAYERS

from course_utils.homework.engine import verdict as _verdict

API = Path(__file__).parents[1] / "docs" / "api"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(API.glob("*.md")) if path.stem != "index"}
MODULES = [name for name in LAYERS if not name.startswith("_") and name != "authoring"]

_EXAMPLE = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def imported(name: str) -> ModuleType:
    return importlib.import_module(f"course_utils.{name}")


def test_every_module_has_its_page() -> None:
    shown = re.findall(r"automodule:: course_utils\.(\S+)", "\n".join(PAGES.values()))
    assert set(shown) == {*MODULES, "authoring.build"}
    listed = (API / "index.md").read_text(encoding="utf-8").rpartition("```{toctree}")[2]
    assert {line for line in listed.splitlines() if re.fullmatch(r"\w+", line)} == set(PAGES)


def test_every_public_name_has_a_docstring() -> None:
    for module in MODULES:
        for name in imported(module).__all__:
            thing = getattr(imported(module), name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert inspect.getdoc(thing), f"{module}.{name}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_begins_with_what_the_module_is_for_and_an_example(page: str) -> None:
    title, rest = PAGES[page].split("\n", 1)
    assert title.startswith("# ")
    assert 25 <= len(rest.partition("```")[0].split()) <= 130
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
@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str) -> None:
    count, wrong = run_example("\n".join(_EXAMPLE.findall(PAGES[page])), page, {})

    assert count > 1
    assert wrong == ""


def examples_in_docstrings() -> list[Any]:
    things = {}
    for module in MODULES:
        for name in imported(module).__all__:
            thing = getattr(imported(module), name)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and ">>> " in (inspect.getdoc(thing) or ""):
                things[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return [
        pytest.param(thing, id=name, marks=[pytest.mark.slow] if ".estimators." in name else [])
        for name, thing in things.items()
    ]


@pytest.mark.usefixtures("_undisturbed")
@pytest.mark.parametrize("thing", examples_in_docstrings())
def test_examples_in_docstrings_run(thing: Any) -> None:
    names = {"torch": torch, **vars(importlib.import_module(thing.__module__))}
    assert run_example(inspect.getdoc(thing) or "", thing.__name__, names)[1] == ""
