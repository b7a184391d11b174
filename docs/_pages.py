"""The pages that are generated: the list of lessons, the table of claims, the homework."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from _notebooks import Link, claim_anchor

from course_utils.claims import Claim

__all__ = ["Entry", "claims_page", "homework_list", "lesson_cards", "read_entries", "solved_page", "thumbnail"]

# | 03 | [BatchNorm](notebooks/03_batchnorm.ipynb) | Why does …? |
_ROW = re.compile(r"^\| *(\d+) *\| *\[([^\]]+)\]\(([^)]+\.ipynb)\) *\| *(.*?) *\|$", re.MULTILINE)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


@dataclass(frozen=True)
class Entry:
    """A lesson or a homework in the README's tables.

    Attributes:
        number: as the README writes it, ``"03"`` or ``"3"``.
        title: its short name.
        file: the notebook in the repository.
        words: the question a lesson asks, or what one does in a homework.
        links: where the notebook can be opened.
    """

    number: str
    title: str
    file: str
    words: str
    links: list[Link] = field(default_factory=list)


def read_entries(readme: str) -> list[Entry]:
    """Return the lessons and the homework that the README lists, in its order."""
    return [Entry(*row) for row in _ROW.findall(readme)]


def lesson_cards(lessons: Iterable[Entry], pictures: Mapping[str, str]) -> str:
    """Return the lessons as a grid of cards in HTML.

    Args:
        lessons: what the README says of each, with links.
        pictures: the address of a small picture by the lesson's file; a lesson without one has a card without.
    """
    cards = []
    for lesson in lessons:
        page = html.escape(_page(lesson.file))
        picture = ""
        if lesson.file in pictures:
            # Decoration: the lesson shows the same figure with its description.
            picture = f'<img src="{html.escape(pictures[lesson.file])}" alt="" width="480" height="240" loading="lazy">'
        launch = next((link for link in lesson.links if "colab" in link.url), None)
        opened = ""
        if launch:
            label = html.escape(f"Open in Colab: lesson {lesson.number}, {lesson.title}")
            opened = f'<a class="card-launch" href="{html.escape(launch.url)}" aria-label="{label}">Open in Colab</a>'
        cards.append(
            f'<li class="lesson-card"><a class="card-page" href="{page}">{picture}'
            f'<span class="card-title"><span class="card-number">{lesson.number}</span> {html.escape(lesson.title)}'
            f"</span></a><p>{html.escape(lesson.words)}</p>{opened}</li>"
        )
    return f'<ul class="lesson-cards">{"".join(cards)}</ul>'


def homework_list(homework: Iterable[Entry]) -> str:
    """Return the homework as a table in Markdown: what one does, the student's page, the solved one."""
    rows = ["| no. | homework | you | solution |", "|---|---|---|---|"]
    for entry in homework:
        solved = entry.file.replace("homework/", "homework/solutions/")
        rows.append(f"| {entry.number} | [{entry.title}]({entry.file}) | {entry.words} | [solved]({solved}) |")
    return "\n".join(rows)


def solved_page(homework: Sequence[Entry]) -> str:
    """Return the page that leads to the solved homework; it stands in the folder ``notebooks/homework``."""
    names = [entry.file.rpartition("/")[2] for entry in homework]
    rows = "\n".join(
        f"{entry.number}. [{entry.title}](solutions/{name})" for entry, name in zip(homework, names, strict=True)
    )
    toc = "\n".join(
        f"{entry.number} {entry.title} <solutions/{name.removesuffix('.ipynb')}>"
        for entry, name in zip(homework, names, strict=True)
    )
    return (
        "# Homework, solved\n\nEach page is the homework as it looks when all is done: executed, with every check "
        "passed. The code of a solution\nis folded; try yourself before you open it.\n\n"
        f"{rows}\n\n```{{toctree}}\n:hidden:\n\n{toc}\n```\n"
    )


def claims_page(records: Sequence[Mapping[str, Any]], lessons: Sequence[Entry]) -> str:
    """Return the table of all claims in Markdown, by lesson; each claim links to the place that measures it.

    Args:
        records: from `course_utils.cli.collect_claims`, in the order of the lessons.
        lessons: what the README says of each.
    """
    names = {entry.file.rpartition("/")[2].removesuffix(".ipynb"): entry for entry in lessons}
    ours = sum("this lesson" in str(record["source"]) for record in records)
    wrong = sum(bool(re.search("wrong|corrected|not reproduced", str(record["source"]))) for record in records)
    parts = [
        "# The claims, measured\n",
        f"Every lesson states what it found as a claim: a sentence, the numbers behind it, and a bound that the tests "
        f"assert\neach time the notebook runs. These are all {len(records)} of them. {len(records) - ours} come from a "
        f"lecture deck or a paper, {ours} from\nthe lesson itself; {wrong} correct what a deck says (the "
        "[errata](errata.md) tell how).\n",
        'Where a claim was measured several times, over seeds or folds, "measured" is the range, and *every* number '
        "satisfies\nthe bound. A claim links to the place in the lesson where it is measured. The same table for "
        "machines:\n`course claims --format json`.\n",
        '<div id="claims-filter" data-table="table.claims"></div>\n',
    ]
    for lesson, group in groupby(records, key=lambda record: str(record["lesson"])):
        entry = names.get(lesson)
        title = f"{entry.number} {entry.title}" if entry else lesson
        parts.append(f"## {title}\n")
        parts.append(":::{table}\n:class: claims\n\n| claim | measured | asserted | source |\n|---|---|---|---|")
        for number, record in enumerate(group, 1):
            made = _claim(record)
            place = f"notebooks/{lesson}.html#{claim_anchor(number)}"
            cells = (
                f'<a href="{place}">{_escape(made.statement)}</a>',
                _escape(made.measured_text()),
                _escape(made.bound_text()),
                _escape(made.source),
            )
            parts.append(f"| {' | '.join(cells)} |")
        parts.append(":::\n")
    return "\n".join(parts)


def thumbnail(png: bytes, *, width: int = 480, height: int = 240) -> bytes:
    """Return a figure made small as PNG, centred on white; of a tall one, only the middle."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(png)) as picture:
        full, size = picture.convert("RGB"), (width, height)
        if full.width < 1.6 * full.height:
            small = ImageOps.fit(full, size, method=Image.Resampling.LANCZOS)
        else:
            small = ImageOps.pad(full, size, method=Image.Resampling.LANCZOS, color="white")
    target = io.BytesIO()
    small.quantize(64).save(target, format="PNG", optimize=True)
    return target.getvalue()


def _claim(record: Mapping[str, Any]) -> Claim:
    return Claim(
        str(record["statement"]),
        tuple(float(value) for value in record["measured"]),
        str(record["op"]),
        float(record["bound"]),
        str(record["source"]),
        str(record.get("unit", "")),
        str(record.get("over", "seeds")),
    )


def _page(file: str) -> str:
    return f"{file.removesuffix('.ipynb')}.html"


def _escape(text: str) -> str:
    """Plain text as Markdown that shows exactly it."""
    return _PUNCTUATION.sub(r"\\\1", text)
