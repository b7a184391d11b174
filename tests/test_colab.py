"""What `make colab` decides without running anything, and what Colab's versions ask of our dependencies."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
LIST = (ROOT / ".ci" / "colab-constraints.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
LESSONS = [Requirement(line) for line in PROJECT["optional-dependencies"]["lessons"]]


@pytest.fixture(scope="module")
def colab() -> ModuleType:
    """The script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("colab_simulation", ROOT / ".ci" / "colab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------- Colab's versions and ours


def test_colabs_versions_satisfy_our_floors(colab: ModuleType) -> None:
    """So pip has no reason to replace any of them."""
    pins = colab.read_pins(LIST)
    listed = [(need, pins.versions.get(colab.normalized(need.name))) for need in [*CORE, *LESSONS]]

    assert SpecifierSet(PROJECT["requires-python"]).contains(pins.python)
    assert [f"{need}: Colab has {had}" for need, had in listed if had and had not in need.specifier] == []
    assert sum(had is not None for _, had in listed) >= 10


def test_core_leaves_colabs_kernel_alone() -> None:
    """livelossplot 0.6.1 brings IPython 8, and Colab's kernel, made for 7.34, no longer starts."""
    names = {need.name.lower() for need in CORE}
    assert not {name for name in names if name.startswith(("ipy", "jupyter", "nb", "notebook"))}
    (plots,) = [need for need in CORE if need.name == "livelossplot"]
    assert "0.6.0" in plots.specifier
    assert "0.6.1" not in plots.specifier


# -------------------------------------------------------------------------------------------------- the simulation


def test_list_is_read_or_refused(colab: ModuleType) -> None:
    pins = colab.read_pins("# Seen: 2026-01-02, Python 3.13.15.\n\nJupyter_Client==7.4.9\n")
    assert pins == ("2026-01-02", "3.13", {"jupyter-client": "7.4.9"})

    with pytest.raises(colab.ColabError, match="does not say when, and with which Python"):
        colab.read_pins("numpy==2.1.3\n")
    with pytest.raises(colab.ColabError, match="NAME==VERSION, got 'numpy>=2'"):
        colab.read_pins("# Seen: 2026-01-02, Python 3.13.15.\nnumpy>=2\n")


def run_of(*errors: str) -> Any:
    """An executed notebook whose cells raised these errors."""
    outputs = [new_output("error", ename=name, evalue="because", traceback=[]) for name in errors]
    return new_notebook(cells=[new_code_cell("x", outputs=[output]) for output in outputs] + [new_code_cell("y")])


@pytest.mark.parametrize(
    ("errors", "stopped", "homework", "expected"),
    [
        ([], "", False, []),
        ([], "NameError: x", False, ["NameError: x"]),
        (["NotImplementedError", "NotImplementedError"], "", True, []),
        (["NotImplementedError", "NameError"], "", True, ["NameError: because"]),
        ([], "", True, ["no stub stops it"]),
        (["NotImplementedError"], "DeadKernelError: died", True, ["DeadKernelError: died"]),
    ],
)
def test_lesson_runs_through_and_homework_stops_only_where_a_stub_stands(
    colab: ModuleType, errors: list[str], stopped: str, homework: bool, expected: list[str]
) -> None:
    assert colab.judge(run_of(*errors), stopped, homework=homework) == expected


def test_replaced_package_is_named_and_a_new_one_is_not(colab: ModuleType) -> None:
    before, after = (
        {"ipython": "7.34.0", "numpy": "2.1.3", "tqdm": "4"},
        {"ipython": "9.0", "numpy": "2.1.3", "new": "1"},
    )

    assert colab.replaced(before, after) == ["ipython 7.34.0 → 9.0", "tqdm 4 → gone"]
    assert colab.replaced(before, before | {"new": "1"}) == []


FILES = [
    "README.md",
    "notebooks/00_a.ipynb",
    "notebooks/01_b.ipynb",
    "notebooks/homework/hw1_c.ipynb",
    "notebooks/homework/solutions/hw1_c.ipynb",
    "notebooks/source/01_b.py",
]


def test_lessons_and_students_homework_are_chosen(colab: ModuleType) -> None:
    assert colab.choose(FILES, []) == FILES[1:4]
    assert colab.choose(FILES, ["01"]) == FILES[2:3]
    assert colab.choose(FILES, ["hw1", "00_a", "0"]) == FILES[1:4]
    with pytest.raises(colab.ColabError, match="no notebook begins with '09'; there are: 00_a, 01_b, hw1_c"):
        colab.choose(FILES, ["00", "09"])


def test_another_python_is_taken_and_said(
    colab: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLAB_PYTHON", sys.executable)
    here = "{}.{}".format(*sys.version_info)

    assert colab.find_python(here) == sys.executable
    assert capsys.readouterr().out == ""
    assert colab.find_python("2.7") == sys.executable
    assert f"NOTE: this is Python {here}" in capsys.readouterr().out


def test_what_fails_is_told_with_its_own_words(colab: ModuleType) -> None:
    with pytest.raises(colab.ColabError, match="asking nobody needs no-such-program, and it is not there"):
        colab.run("no-such-program", what="asking nobody")
    with pytest.raises(colab.ColabError, match=r"(?s)a failure failed:\n.*my own words"):
        colab.run(sys.executable, "-c", "raise SystemExit('my own words')", what="a failure")


def test_the_runs_own_packages_do_not_show_through(colab: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://example.org")

    assert "PYTHONPATH" not in colab.clean_environment()
    assert colab.clean_environment()["PIP_EXTRA_INDEX_URL"] == "https://example.org"


def test_standin_says_that_this_is_colab(colab: ModuleType) -> None:
    """In a process of its own: the other tests are not in Colab."""
    standin = ROOT / ".ci" / "colab_standin"
    code = f"import sys; sys.path.insert(0, {str(standin)!r}); exec(open({str(standin / 'startup.py')!r}).read())"

    assert colab.run(sys.executable, "-c", f"{code}; print('google.colab' in sys.modules)", what="it") == "True\n"
