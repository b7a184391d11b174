"""The `course` command: exit codes and what it prints."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from course_utils import cli
from course_utils.authoring.build import BuildError, Outcome, Target, lesson_targets, read_source
from course_utils.claims import MIME_TYPE
from course_utils.cli import collect_claims, format_claims, main, new_lesson, render_lesson


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a clone with a fresh lesson and a stale one."""
    (tmp_path / "notebooks" / "source").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\n[project.urls]\nRepository = "https://github.com/ours/course"\n'
    )
    for name in ("01_fresh", "02_stale"):
        (tmp_path / "notebooks" / "source" / f"{name}.py").write_text("# %%\n1\n")
    fresh = lesson_targets(tmp_path)[0]
    nbformat.write(read_source(fresh.source), fresh.output)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def records(clone: Path) -> list[dict[str, object]]:
    """The claims of two lessons, one with an awkward character, written and collected again."""
    data = {
        "statement": "a|b shrinks",
        "measured": [0.1, 0.25],
        "op": "<",
        "bound": 0.5,
        "source": "deck 000",
        "unit": "",
        "holds": True,
        "seeds": 2,
    }
    other = data | {"statement": "it, too", "measured": [3.0], "op": ">=", "bound": 2, "unit": "s", "seeds": 1}
    for name, record in (("01_fresh", data), ("02_stale", other)):
        bundle = {MIME_TYPE: record, "text/plain": "✔"}
        shown = [new_output("stream", text="loss\n"), new_output("display_data", data=bundle)]
        nbformat.write(new_notebook(cells=[new_code_cell("c", outputs=shown)]), clone / "notebooks" / f"{name}.ipynb")
    return collect_claims(sorted((clone / "notebooks").glob("*.ipynb")))


def test_build_check_names_what_is_stale_and_exits_1(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--check"]) == 1
    assert capsys.readouterr().out == "stale   02_stale\n"
    assert main(["build", "--check", "notebooks/source/01_fresh.py"]) == 0
    assert capsys.readouterr().out == "all notebooks are fresh\n"


def test_build_leaves_a_fresh_notebook_alone(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "01_fresh"]) == 0
    assert capsys.readouterr().out.startswith("fresh   01_fresh")


def test_build_reports_failures_on_stderr_and_exits_1(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_of_each(targets: list[Target], **_: object) -> list[Outcome]:
        return [
            Outcome(targets[0], "failed", 2.0, message="line 1\nline 2"),
            Outcome(targets[1], "built", 1.0, 812_345),
        ]

    monkeypatch.setattr(cli, "build", one_of_each)

    assert main(["build"]) == 1
    out, err = capsys.readouterr()
    assert out == "built   02_stale    1.0 s     812 kB\n"
    assert err == "failed  01_fresh    2.0 s\n        line 1\n        line 2\n"


def test_unknown_lesson_is_refused_with_the_names_there_are(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "03_x"]) == 2
    assert capsys.readouterr().err == "course: no such notebook: 03_x; there are: 01_fresh, 02_stale\n"


def test_interrupt_is_reported_without_a_traceback(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> list[Outcome]:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build", interrupt)

    assert main(["build"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_jobs_and_timeout_must_be_positive(clone: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--jobs", "--timeout"):
        with pytest.raises(SystemExit) as error:
            main(["build", f"{option}={value}"])
        assert error.value.code == 2
        assert f"must be a whole number of at least 1, got '{value}'" in capsys.readouterr().err


def test_new_writes_a_lesson_once(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "09_my_topic"]) == 0
    assert (clone / "notebooks" / "source" / "09_my_topic.py").is_file()
    assert "course build 09_my_topic" in capsys.readouterr().out

    assert main(["new", "09_my_topic"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_new_lesson_carries_the_number_the_repository_and_the_anatomy(clone: Path) -> None:
    text = new_lesson(clone, "09_my_topic").read_text(encoding="utf-8")

    assert "# # 9. " in text
    assert 'package = "mlp-course-utils[lessons] @ git+https://github.com/ours/course"' in text
    assert "https://colab.research.google.com/github/ours/course/blob/main/notebooks/09_my_topic.ipynb" in text
    assert "{{" not in text
    headings = ["You will be able to …", "Set-up", "Exercises", "Recap", "Pitfalls", "Errata of the decks", "Sources"]
    positions = [text.index(f"# ## {heading}\n") for heading in headings]
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", ["9_x", "topic", "09_", "09_Topic", "../09_x", "09_x.py", "09_x\n", "٠٩_x"])
def test_new_lesson_refuses_a_name_that_does_not_fit(clone: Path, name: str) -> None:
    with pytest.raises(BuildError, match="two digits, then words, as in 09_my_topic; got"):
        render_lesson(clone, name)


def test_claims_become_tables(records: list[dict[str, object]]) -> None:
    lines = format_claims(records, "md").splitlines()
    rows = list(csv.DictReader(format_claims(records, "csv").splitlines()))

    assert lines[0] == "| lesson | claim | measured | bound | source |"
    assert lines[2] == r"| 01_fresh | a\|b shrinks | 0.1 … 0.25 over 2 seeds | < 0.5 | deck 000 |"
    assert len(lines) == 4
    assert list(rows[1].values()) == ["02_stale", "it, too", "3 s", "≥ 2 s", "deck 000"]


def test_claims_as_json_keep_every_field(
    records: list[dict[str, object]], clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", "--format", "json", "--write", "claims.json"]) == 0
    assert json.loads((clone / "claims.json").read_text(encoding="utf-8")) == records
    assert capsys.readouterr().out == ""

    assert main(["claims", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == records


def test_module_runs_as_a_program_and_says_when_there_is_no_clone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "course_utils.cli", "build"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert result.stderr.startswith("course: no clone of the course at or above")
    assert "Traceback" not in result.stderr


def test_info_reports_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert "course_utils" in capsys.readouterr().out
