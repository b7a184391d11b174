"""Builds the reading site in ``build/site/html`` from the executed notebooks, the pages here and the docstrings.

What Sphinx reads is first laid out in ``build/site/source`` as it lies in the repository, so that links between files
hold on the site too. Nothing is executed, and any warning is an error.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from PIL import Image, ImageOps
from sphinx.cmd.build import build_main

from course_utils.authoring.build import prepare, read_source
from course_utils.authoring.targets import Target, homework_targets, lesson_targets
from course_utils.claims import MIME_TYPE as CLAIM_TYPE
from course_utils.claims import Claim
from course_utils.cli import collect_claims
from course_utils.homework.engine.verdict import VERDICT_TYPE

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"

# The figure on a lesson's card, by words of its description; the first one where they are not found.
CARDS = {
    "00": "Decision regions, four data sets",
    "01": "Gradient norm per layer",
    "02": "Size of ReLU activations over 30 layers",
    "03": "Contours of the loss over two weights",
    "04": "Test error against the number of features",
    "05": "in a ravine of condition number 1000",
    "06": "Parallel coordinates of twenty networks",
    "07": "Test RMSE of seven models, one line a fold",
    "08": "The network [2, 5, 1] after training with the penalty",
}

# What a reader's browser runs: all of TeX in one file, which loads nothing later and needs no fonts.
MATHJAX = ("mathjax@3.2.2", {"es5/tex-svg-full.js": "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"})
# The accessibility checks of `tests/browser`; no page of the site loads it.
AXE = ("axe-core@4.14.1", {"axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"})

# | 03 | [BatchNorm](notebooks/03_batchnorm.ipynb) | Why does …? |
_ROW = re.compile(r"^\| *(\d+) *\| *\[([^\]]+)\]\(([^)]+\.ipynb)\) *\| *(.*?) *\|$", re.MULTILINE)
_MARKS = re.compile(r"^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*(?:\n|\Z)", re.MULTILINE)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


class Entry(NamedTuple):
    """A row of the README's tables: number, short name, file and question of a lesson or homework."""

    number: str
    title: str
    file: str
    question: str


def main() -> int:
    """Lay out the pages and run Sphinx; return its exit code."""
    shutil.rmtree(SITE, ignore_errors=True)
    source = SITE / "source"
    entries = [Entry(*row) for row in _ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))]
    lessons = [entry for entry in entries if "/homework/" not in entry.file]
    homework = [entry for entry in entries if "/homework/" in entry.file]
    for target in [*lesson_targets(ROOT), *homework_targets(ROOT)]:
        notebook = nbformat.read(target.output, as_version=4)  # type: ignore[no-untyped-call]
        for_the_site(notebook, target)
        page = source / target.output.relative_to(ROOT)
        page.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, page)  # type: ignore[no-untyped-call]
    for pattern in ("docs/**/*.md", "docs/*.svg", "data/**/README.md", "data/**/LICENSE.txt", "CHANGELOG.md"):
        for path in ROOT.glob(pattern):
            page = source / path.relative_to(ROOT)
            page.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, page)
    (source / "docs" / "index.md").unlink()
    for lesson in lessons:
        (source / "cards").mkdir(exist_ok=True)
        (source / "cards" / f"{lesson.number}.png").write_bytes(card(ROOT / lesson.file, CARDS.get(lesson.number, "")))
    (source / "index.md").write_text(front_page(lessons, homework), encoding="utf-8")
    records = collect_claims([target.output for target in lesson_targets(ROOT)])
    (source / "docs" / "claims.md").write_text(claims_page(records, lessons), encoding="utf-8")
    fetch(MATHJAX, SITE / "static" / "mathjax")
    strict = ["-W", "--keep-going", "-q", "-j", "2"]
    folders = ["-c", str(ROOT / "docs"), "-d", str(SITE / "doctrees"), str(source), str(SITE / "html")]
    return build_main(["-b", "html", *strict, *folders])


def for_the_site(notebook: Any, target: Target) -> None:
    """Change an executed notebook, in place, into what its page shows.

    The cell that installs the package is hidden, a figure's description becomes its alternative text, each claim gets
    an anchor, and solutions are folded: a lesson's behind their check, those of a solved homework in place.
    """
    solutions = folded_solutions(target) if target.kind == "lesson" else {}
    cells = []
    waiting: list[Any] = []  # solutions, until the cells of the exercise are through
    n_claims = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cells += waiting
            waiting.clear()
        if cell.cell_type == "code" and "### BEGIN SOLUTION" in cell.source:
            cells.append(folded(cell.source))
            cell.source = ""
            cell.metadata["tags"] = ["remove-input"]
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        if "google.colab" in cell.source:
            cell.metadata["tags"] = ["remove-cell"]
        if cell.source in solutions:
            waiting.append(solutions[cell.source])
        n_claims = show_outputs(cell, n_claims)
    notebook.cells = cells + waiting


def show_outputs(cell: Any, n_claims: int) -> int:
    """Change a cell's outputs, in place, and return how many claims there have been in the notebook."""
    descriptions = []
    for output in cell.outputs:
        data = output.get("data", {})
        if CLAIM_TYPE in data:
            n_claims += 1
            data["text/html"] = f'<div class="course-box" id="claim-{n_claims}">{data["text/html"]}</div>'
        elif VERDICT_TYPE in data:
            data["text/html"] = f'<div class="course-box">{data["text/html"]}</div>'
        elif "text/html" in data:
            # An empty heading is announced as a heading; above the row labels of a table there is none.
            data["text/html"] = data["text/html"].replace("<th></th>", "<td></td>")
        elif "image/png" in data:
            descriptions.append(output.metadata["image/png"]["alt"])
    if descriptions:
        cell.metadata["mystnb"] = {"image": {"alt": " ".join(descriptions)}}
    return n_claims


def folded_solutions(target: Target) -> dict[str, Any]:
    """Return a cell with the folded solution by the text that the solution's cell has as a stub."""
    solved, stubs = read_source(target.source), read_source(target.source)
    prepare(stubs, "lesson")
    folds = {}
    for stub, cell in zip(stubs.cells, solved.cells, strict=True):
        if cell.cell_type == "code" and "### BEGIN SOLUTION" in cell.source:
            folds[stub.source] = folded(cell.source)
    return folds


def folded(solution: str) -> Any:
    """Return a cell with a solution behind a closed fold, without the marks around it."""
    code = _MARKS.sub("", solution).rstrip("\n")
    fold = f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>"
    return nbformat.v4.new_markdown_cell(fold)  # type: ignore[no-untyped-call]


def front_page(lessons: Sequence[Entry], homework: Sequence[Entry]) -> str:
    """Return the first page: ``docs/index.md`` with the README's lessons as cards and its homework as a table."""
    cards = [
        f":::{{grid-item-card}} {lesson.number} {lesson.title}\n:link: /{lesson.file.removesuffix('.ipynb')}\n"
        f":link-type: doc\n:img-top: /cards/{lesson.number}.png\n:img-alt: \n\n{lesson.question}\n:::"
        for lesson in lessons
    ]
    rows = ["| no. | homework | you | solution |", "|---|---|---|---|"]
    for entry in homework:
        solved = entry.file.replace("homework/", "homework/solutions/")
        rows.append(f"| {entry.number} | [{entry.title}](/{entry.file}) | {entry.question} | [solved](/{solved}) |")
    parts = {
        "lesson cards": "::::{grid} 1 2 3 3\n:gutter: 3\n\n" + "\n\n".join(cards) + "\n::::",
        "homework table": "\n".join(rows),
        "lesson pages": toctree_lines(lessons),
        "homework pages": toctree_lines(homework),
    }
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text


def toctree_lines(entries: Sequence[Entry]) -> str:
    """Return what a table of contents lists, each page under its short name."""
    return "\n".join(f"{one.number} {one.title} </{one.file.removesuffix('.ipynb')}>" for one in entries)


def card(lesson: Path, words: str) -> bytes:
    """Return a small PNG of the lesson's figure whose description holds these words, or of its first."""
    outputs = [output for cell in nbformat.read(lesson, as_version=4).cells for output in cell.get("outputs", [])]  # type: ignore[no-untyped-call]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    chosen = next((figure for figure in figures if words in figure.metadata["image/png"]["alt"]), figures[0])
    with Image.open(io.BytesIO(base64.b64decode(chosen.data["image/png"]))) as picture:
        small = ImageOps.pad(picture.convert("RGB"), (480, 240), color="white")
    content = io.BytesIO()
    small.quantize(64).save(content, format="PNG", optimize=True)
    return content.getvalue()


def claims_page(records: Sequence[Mapping[str, Any]], lessons: Sequence[Entry]) -> str:
    """Return the table of all claims in Markdown, by lesson; each claim links to the place that measures it.

    Args:
        records: from `course_utils.cli.collect_claims`, in the order of the lessons.
        lessons: the README's table.
    """
    titles = {Path(lesson.file).stem: f"{lesson.number} {lesson.title}" for lesson in lessons}
    ours = sum("this lesson" in str(record["source"]) for record in records)
    wrong = sum(bool(re.search("wrong|corrected|not reproduced", str(record["source"]))) for record in records)
    parts = [
        "# The claims, measured\n",
        "Every lesson states what it found as a claim: a sentence, the numbers behind it, and a bound that the tests "
        f"assert each time the notebook runs. These are all {len(records)} of them. {len(records) - ours} come from a "
        f"lecture deck or a paper, {ours} from the lesson itself; {wrong} correct what a deck says (the "
        "[errata](errata.md) tell how).\n",
        'Where a claim was measured several times, over seeds or folds, "measured" is the range, and *every* number '
        "satisfies the bound. A claim links to the place in the lesson where it is measured. The same table for "
        "machines: `course claims --format json`.\n",
        '<div id="claims-filter" data-table="table.claims"></div>\n',
    ]
    for lesson, group in groupby(records, key=lambda record: str(record["lesson"])):
        parts.append(f"## {titles[lesson]}\n")
        parts.append(":::{table}\n:class: claims\n\n| claim | measured | asserted | source |\n|---|---|---|---|")
        for number, record in enumerate(group, 1):
            fields = {**record, "measured": tuple(record["measured"])}
            claim = Claim(**{name: fields[name] for name in Claim.__dataclass_fields__ if name in fields})
            statement = html.escape(claim.statement).replace("|", "&#124;")  # a bar would end the table's cell
            link = f'<a href="../notebooks/{lesson}.html#claim-{number}">{statement}</a>'
            facts = (claim.measured_text(), claim.bound_text(), claim.source)
            shown = " | ".join(_PUNCTUATION.sub(r"\\\1", fact) for fact in facts)
            parts.append(f"| {link} | {shown} |")
        parts.append(":::\n")
    return "\n".join(parts)


def fetch(package: tuple[str, Mapping[str, str]], folder: Path) -> list[Path]:
    """Return files of a published npm package, pinned by version and SHA-256, after putting them into a folder.

    Raises:
        RuntimeError: npm is not installed, or what it delivers has another checksum.
    """
    name, checksums = package
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"{name} is needed, and npm, which downloads it, is not installed (apt-get install npm)")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with tempfile.TemporaryDirectory() as download:
        command = [npm, "pack", "--silent", "--ignore-scripts", name]
        subprocess.run(command, cwd=download, check=True, capture_output=True)
        with tarfile.open(next(Path(download).glob("*.tgz"))) as archive:
            for file, checksum in checksums.items():
                member = archive.extractfile(f"package/{file}")
                content = member.read() if member else b""
                if (found := hashlib.sha256(content).hexdigest()) != checksum:
                    raise RuntimeError(f"{file} of {name} has SHA-256 {found}, expected {checksum}")
                paths.append(folder / Path(file).name)
                paths[-1].write_bytes(content)
    return paths


if __name__ == "__main__":
    sys.exit(main())
