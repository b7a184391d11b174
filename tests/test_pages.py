"""The written pages in ``docs/`` say what is true of the sources: numbers, errata, terms, commands, colours.

That links lead somewhere is Sphinx's to say: `make site` ends with an error where one does not.
"""

from __future__ import annotations

import argparse
import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from course_utils import cli
from course_utils.claims import Claim
from course_utils.grading.execution import Limits
from course_utils.homework import Verdict
from course_utils.plotting import COLORS, DIVERGING, SEQUENTIAL, TRAIN, VAL, sequence_colors, style

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = ("syllabus", "errata", "glossary", "instructors", "contributing", "accessibility", "architecture")

each_page = pytest.mark.parametrize("page", PAGES)

# --------------------------------------------------------------------------------------------- pages and their sources


@cache
def read(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """The page without fenced blocks, code in a line, and comments."""
    return re.sub(r"^```.*?^```|`[^`\n]+`|<!--.*?-->", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def prose_of(source: Path) -> str:
    """The Markdown of a notebook's source, without its ``# `` in front; code cells are left as they are."""
    return re.sub(r"^# ?", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE)


LESSONS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks" / "source").glob("[0-9][0-9]_*.py"))}
HOMEWORK = {path.stem[2]: path for path in sorted((ROOT / "notebooks" / "source" / "homework").glob("hw[0-9]_*.py"))}
DECKS = {"000": "467c1bb93614480d", "001": "0a346410c39b1d06", "002": "8e362a99924dbb37", "003": "f7e7d77f8dafb44a",
         "004": "6954d930ac6e5b54"}  # fmt: skip


def slug(title: str) -> str:
    """The anchor that GitHub, and the site, give a heading."""
    return re.sub(r"[^\w\- ]", "", title.replace("`", "").lower().replace(" ", "-"))


class Section(NamedTuple):
    """A heading and all below it, to the next heading of its rank."""

    title: str
    rank: int
    text: str


def split(text: str) -> dict[str, Section]:
    """The sections of a Markdown text, by anchor; a second heading of the same name gets a number."""
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    headings = list(re.finditer(r"^(#{1,4}) (.+)$", text, re.MULTILINE))
    sections: dict[str, Section] = {}
    for index, heading in enumerate(headings):
        rank = len(heading[1])
        end = next((other.start() for other in headings[index + 1 :] if len(other[1]) <= rank), len(text))
        anchor = unique = slug(heading[2])
        for number in itertools.count(1):
            if unique not in sections:
                break
            unique = f"{anchor}-{number}"
        sections[unique] = Section(heading[2], rank, text[heading.start() : end])
    return sections


@cache
def sections_of(path: Path) -> dict[str, Section]:
    """The sections of a page, or of the source of a notebook."""
    if path.suffix == ".py":
        cells = re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return split("\n".join(map(_readable, cells)))
    return split(path.read_text(encoding="utf-8"))


def _readable(cell: str) -> str:
    """A cell's Markdown as it is, its code indented: a comment in code may begin like a heading."""
    kind, _, text = cell.partition("\n")
    pattern, new = (r"^# ?", "") if kind.startswith(" [markdown]") else (r"^", "  ")
    return re.sub(pattern, new, text, flags=re.MULTILINE)


def source_of(target: Path) -> Path:
    """Where the headings of a link's target stand: for a notebook, its source."""
    if target.suffix != ".ipynb":
        return target
    folder = "homework" if "homework" in target.parts else ""
    return ROOT / "notebooks" / "source" / folder / f"{target.stem}.py"


def links(text: str) -> Iterator[tuple[str, str]]:
    """Text and target of each link of a page."""
    yield from re.findall(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", without_code(text))


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with the cell ``first``, without the head."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def numbers(text: str, pattern: str) -> list[int]:
    return [int(number) for number in re.findall(pattern, text, re.MULTILINE)]


# ------------------------------------------------------------------------------------------------------------ all pages


@each_page
def test_a_page_has_one_title_and_no_rank_is_skipped(page: str) -> None:
    ranks = [section.rank for section in sections_of(DOCS / f"{page}.md").values()]
    assert ranks[0] == 1
    assert ranks.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(ranks))


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (item for item in cli._parser()._actions if isinstance(item, argparse._SubParsersAction))
    return dict(action.choices)


def code_of(page: str) -> str:
    """All code of a page, one snippet a line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", read(page))]).replace("\\\n", " ")


@each_page
def test_commands_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for name in re.findall(r"\bmake ([a-z]\w*)", code_of(page)) if name not in targets} == set()
    parsers = subcommands()
    for name, rest in re.findall(r"\bcourse ([a-z]+)\b([^\n]*)", code_of(page)):
        assert name in parsers, f"course {name}"
        known = {option for action in parsers[name]._actions for option in action.option_strings}
        assert set(re.findall(r"--[a-z]+", rest)) <= known, f"course {name}{rest}"


def test_contributing_tells_all_targets() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0].split()
    assert {row[0].strip("`").removeprefix("make ") for row in rows(read("contributing"), "command")} == set(targets)


@each_page
def test_files_and_names_of_the_repository_exist(page: str) -> None:
    named = re.findall(r"(?<![\w/])((?:tests|course_utils|notebooks|docs|data|\.ci|\.github)/[\w./-]*)", code_of(page))
    exact = [name for name in named if not re.search("NAME|NN", name)]
    assert not [name for name in exact if not (ROOT / name).exists()]


@each_page
def test_no_pictograms(page: str) -> None:
    signs = {char for char in read(page) if unicodedata.category(char) in {"So", "Cs"}}
    assert signs <= {"✔", "✘", "◻", "★"}


# ------------------------------------------------------------------------------------------------------------- syllabus


def decks_of(number: str) -> set[str]:
    lecture = re.search(r"\*\*Lecture:\*\*(.*?)(?:\n\n|\n%%)", prose_of(LESSONS[number]), re.DOTALL)
    assert lecture
    if "all five decks" in lecture[1]:
        return set(DECKS)
    return {deck for deck, digest in DECKS.items() if f"{deck}_{digest}" in lecture[1]}


def needs_of(number: str) -> set[str]:
    """The lessons that a lesson's first cell presumes; an alternative ("lesson 00 or any first network") counts."""
    needs = re.search(r"\*\*Prerequisites:\*\*(.*?)\*\*Time", prose_of(LESSONS[number]), re.DOTALL)
    assert needs
    return lessons_in(needs[1])


def lessons_in(text: str) -> set[str]:
    found = set(re.findall(r"\b0\d\b", text))
    for low, high in re.findall(r"\b(0\d) to (0\d)\b", text):
        found |= {f"{number:02d}" for number in range(int(low), int(high) + 1)}
    return found


def test_syllabus_tells_each_lesson_as_it_is() -> None:
    pattern = r"^- \[(.+?)\]\(.+?\)\\\n  (\d+) minutes, then (.+?)\. Decks? (.+?)\.(?: Then \[homework (\d)\].*)?$"
    items = re.findall(pattern, read("syllabus"), re.MULTILINE)
    assert [item[0][:2] for item in items] == list(LESSONS)
    for (asks, minutes, exercises, decks, _), (number, path) in zip(items, LESSONS.items(), strict=True):
        text = prose_of(path)
        assert asks == next(iter(sections_of(path).values())).title
        assert [int(minutes)] == numbers(text, r"\*\*Time:\*\* (\d+) minutes")
        each = numbers(text, r"^### Exercise .*\((\d+) min\)$")
        assert exercises == f"{len(each)} exercises ({sum(each)} minutes)"
        assert (set(DECKS) if decks == "000 to 004" else set(decks.split(", "))) == decks_of(number)
    assert {item[4] for item in items} - {""} == set(HOMEWORK)


def test_syllabus_tells_what_needs_what() -> None:
    table = rows(read("syllabus"), "lesson")
    needs = {row[0][:2]: lessons_in(row[1]) for row in table}
    assert needs == {number: needs_of(number) for number in LESSONS}
    for row in table[1:]:
        assert lessons_in(row[2]) == {number for number in LESSONS if row[0][:2] in needs[number]}
    assert set().union(*needs.values()) - {"00"} == {row[0][:2] for row in table[1:] if row[2] != "–"}


def test_syllabus_tells_the_homework_as_it_is() -> None:
    table = rows(read("syllabus"), "homework")
    assert [row[0][1] for row in table] == list(HOMEWORK)
    for (name, after, points, hours), path in zip(table, HOMEWORK.values(), strict=True):
        source = path.read_text(encoding="utf-8")
        assert next(iter(sections_of(path).values())).title or name
        assert int(points) == sum(numbers(source, r"^# %%.* points=(\d+)"))
        time = re.search(r"\*\*Time:\*\* (?:about )?([\d to]*\d) hours", source)
        assert time
        assert hours.split(",")[0] == time[1]
        needs = re.search(r"\*\*Prerequisites:\*\*(.*?)\*\*Time", source, re.DOTALL)
        assert needs
        assert max(re.findall(r"0\d", needs[1])) == max(re.findall(r"\[(0\d)\]", after))


def test_syllabus_leads_to_every_numbered_section() -> None:
    """What no deck and no addition leads to has been forgotten."""
    reached = {target for _, target in links(read("syllabus"))}
    for path in LESSONS.values():
        for anchor, section in sections_of(path).items():
            if section.rank == 2 and re.match(r"\d+\. ", section.title):
                below = [anchor, *(key for key in split(section.text) if key != anchor)]
                assert any(f"../notebooks/{path.stem}.ipynb#{key}" in reached for key in below), section.title


def test_syllabus_maps_five_decks_and_schedules_everything() -> None:
    sections = sections_of(DOCS / "syllabus.md")
    for deck, digest in DECKS.items():
        section = sections[f"deck-{deck}"].text
        assert f"`{deck}_{digest}`" in section
        assert all("](" in row[1] for row in rows(section, "topic in the deck"))
    for weeks in ("ten-weeks", "five-days"):
        named = {target for _, target in links(sections[weeks].text)}
        left_out = {"8"} if weeks == "five-days" else set()
        for number, path in LESSONS.items():
            assert any(path.stem in target for target in named) == (number[1] not in left_out)
    assert all(
        any(path.stem in target for _, target in links(sections["ten-weeks"].text)) for path in HOMEWORK.values()
    )


def test_syllabus_counts_exercises_and_tasks() -> None:
    exercises = sum(len(numbers(prose_of(path), r"^### Exercise (\d)\.")) for path in LESSONS.values())
    tasks = sum(
        len(re.findall(r"^# %% test=", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in HOMEWORK.values()
    )
    assert f"{exercises} exercises and {tasks} graded tasks" in read("syllabus")


# --------------------------------------------------------------------------------------------------------------- errata

KINDS = ("formula", "code", "claim", "name", "outdated")
NO_LIST = "in no lesson's list"
MIN_WORDS = 10  # characters: what a comment quotes should be found once


class Erratum(NamedTuple):
    """An entry of the page: of which deck, which kind, and the words of which lessons' lists it claims."""

    deck: str
    number: int
    kind: str
    text: str
    claims: tuple[tuple[str, str], ...]


def errata_of(page: str) -> list[Erratum]:
    found = []
    for anchor, section in split(page).items():
        if not re.fullmatch(r"deck-\d{3}", anchor):
            continue
        for entry in re.split(r"^(?=\d+\. )", section.text, flags=re.MULTILINE)[1:]:
            head = re.match(r"(\d+)\. \*\*(.+?)\*\* \((\w+)\)\.", entry, re.DOTALL)
            assert head, f"no number, bold title and kind: {entry[:60]!r}"
            comments = re.findall(r"<!-- (.+?) -->", entry, re.DOTALL)
            assert comments, f"no comment says which lesson names it: {head[2]}"
            claims = []
            for comment in comments:
                if comment != NO_LIST:
                    lesson, _, words = comment.partition(": ")
                    claims += [(lesson, " ".join(part.split())) for part in words.split(" | ")]
            found.append(Erratum(anchor[-3:], int(head[1]), head[3], entry, tuple(claims)))
    return found


def clauses_of(lesson: str, text: str | None = None) -> list[tuple[frozenset[str], str]]:
    """Each clause of a lesson's list of errata, with the decks of its bullet.

    A bullet that names no deck goes on about that of the bullet before it. Clauses end at semicolons and full stops.
    """
    listed = text or sections_of(LESSONS[lesson])["errata-of-the-decks"].text
    decks: frozenset[str] = frozenset()
    clauses = []
    for bullet in re.split(r"^- ", listed, flags=re.MULTILINE)[1:]:
        named = frozenset(deck for deck, digest in DECKS.items() if f"`{deck}_{digest}`" in bullet)
        decks = named or decks
        words = " ".join(re.sub(r"`\d{3}_[0-9a-f]{16}`", "", bullet).split())
        parts = re.split(r'; |(?<=[.!?]) (?=[A-Z"`$])|(?<=[.!?]") (?=[A-Z"`$])', words)
        clauses += [(decks, part.strip(" ,:.")) for part in parts if len(part.strip(" ,:.")) > 3]
    return clauses


def uncovered(entries: list[Erratum], lesson: str, clauses: list[tuple[frozenset[str], str]]) -> list[str]:
    """The clauses of a lesson's list that no entry of the same deck claims; each deck of a shared bullet must."""
    missing = []
    for decks, clause in clauses:
        for deck in decks:
            claimed = [
                words for entry in entries if entry.deck == deck for name, words in entry.claims if name == lesson
            ]
            elsewhere = len(decks) > 1 and any(  # "With the 0.1 of deck 003 …" speaks of one of the bullet's decks
                words in clause for entry in entries for name, words in entry.claims if name == lesson
            )
            if not any(words in clause for words in claimed) and not elsewhere:
                missing.append(f"{lesson}, deck {deck}: {clause}")
    return missing


def unfounded(entries: list[Erratum], lesson: str, clauses: list[tuple[frozenset[str], str]]) -> list[str]:
    """What entries claim of a lesson's list that does not stand there, under their deck."""
    return [
        f"{entry.deck}, {entry.number}: {words}"
        for entry in entries
        for name, words in entry.claims
        if name == lesson and not any(words in clause and entry.deck in decks for decks, clause in clauses)
    ]


ERRATA = errata_of(read("errata"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_errata_of_a_lesson_stand_on_the_page_and_back(lesson: str) -> None:
    clauses = clauses_of(lesson)
    assert clauses
    assert uncovered(ERRATA, lesson, clauses) == []
    assert unfounded(ERRATA, lesson, clauses) == []


def test_a_forgotten_an_invented_and_a_misplaced_erratum_are_noticed() -> None:
    deck = "`003_f7e7d77f8dafb44a`"
    listed = f'- {deck}: its sign is wrong; so is its loop. "Never" means rarely.\n- The same deck forgets a factor.\n'
    clauses = clauses_of("00", listed)
    assert [clause for _, clause in clauses] == [
        "its sign is wrong", "so is its loop", '"Never" means rarely', "The same deck forgets a factor"
    ]  # fmt: skip
    assert {deck for decks, _ in clauses for deck in decks} == {"003"}

    def entry(deck: str, *words: str) -> Erratum:
        return Erratum(deck, 1, "claim", "", tuple(("00", part) for part in words))

    good = entry("003", "its sign is wrong", "so is its loop", "means rarely", "forgets a factor")
    assert uncovered([good], "00", clauses) == unfounded([good], "00", clauses) == []
    assert len(uncovered([entry("003", "its sign is wrong", "so is its loop", "means rarely")], "00", clauses)) == 1
    assert len(uncovered([entry("002", *(words for _, words in good.claims))], "00", clauses)) == 4
    assert len(unfounded([entry("002", *(words for _, words in good.claims))], "00", clauses)) == 4
    assert len(unfounded([good, entry("003", "its units are wrong")], "00", clauses)) == 1


def test_errata_are_numbered_counted_and_shown() -> None:
    for deck in DECKS:
        assert [entry.number for entry in ERRATA if entry.deck == deck] == list(range(1, 1 + len(of_deck(deck))))
        assert f"`{deck}_{DECKS[deck]}`" in sections_of(DOCS / "errata.md")[f"deck-{deck}"].text
    table = rows(read("errata"), "kind")
    assert [row[0] for row in table] == [*KINDS, "all"]
    for kind, *counts in table:
        found = [entry.deck for entry in ERRATA if kind in (entry.kind, "all")]
        assert list(map(int, counts)) == [*(found.count(deck) for deck in DECKS), len(found)]
    assert {entry.kind for entry in ERRATA} <= set(KINDS)
    for entry in ERRATA:
        assert all(lesson in LESSONS and len(words) >= MIN_WORDS for lesson, words in entry.claims)
        leads = [target for _, target in links(entry.text) if ".ipynb#" in target]
        reasoned = not entry.claims and len(entry.text) > 150  # no lesson shows it: then the entry itself must
        assert leads or reasoned, entry.text[:80]


def of_deck(deck: str) -> list[Erratum]:
    return [entry for entry in ERRATA if entry.deck == deck]


def test_numbers_that_only_the_page_states() -> None:
    late, best = np.array([2.36, 4.43, 3.13, -2.1, 1.98, -1.2]), np.array([3.03, 2.97, 0.98, 0.21, 0.12, 0.09])
    assert "(2.36, 4.43, 3.13, −2.1, 1.98, −1.2)" in read("errata")
    assert f"Right: {late @ late + 0.001:.3f}," in read("errata")
    assert f"other sum, {best @ best + 0.01:.2f}, is right" in read("errata")
    p, draws = 0.5, (np.arange(100_000) + 0.5) / 100_000
    assert np.where(draws < p, 0, draws).mean() == pytest.approx((1 - p**2) / 2)
    assert f"$(1-p^2)/2$: {(1 - p**2) / 2} at $p={p}$" in read("errata")
    printed, formula = (784 + 1) * 32 + 32 * 10, (784 + 1) * 32 + (32 + 1) * 10
    assert f"formula gives {formula:,}; the printed code has {printed:,}" in read("errata")


# ------------------------------------------------------------------------------------------------------------- glossary


class Term(NamedTuple):
    """An entry of the glossary."""

    name: str
    letter: str
    definition: str
    target: str
    thai: str
    portuguese: str


def terms_of(page: str) -> list[Term]:
    pattern = r"\*\*(.+?)\*\*\n: (.+?) \[[^\]]+\]\((\S+)\)\\\n  \*th\* (.+?) · \*pt\* (.+?)\n"
    found = []
    for section in split(page).values():
        if section.rank == 2:
            blocks = section.text.partition("\n\n")[2].strip().split("\n\n")
            for block in blocks:
                match = re.fullmatch(pattern, f"{block}\n")
                assert match, f"not as the other entries: {block}"
                found.append(Term(match[1], section.title, *match.groups()[1:]))
    return found


TERMS = terms_of(read("glossary"))
THAI = re.compile(r"[\u0e00-\u0e7f]")


def plain(text: str) -> str:
    return " ".join(re.sub(r"[*`]", "", text.lower()).replace("-", " ").split())


def word_of(term: Term) -> str:
    """What must stand in the section; words in brackets tell two meanings apart."""
    return plain(re.sub(r" \(.*\)", "", term.name))


def test_glossary_is_in_alphabetical_order_without_duplicates() -> None:
    names = [re.sub(r"[^a-z0-9 ]", "", term.name.lower().replace("-", " ")) for term in TERMS]
    assert len(names) >= 90
    assert names == sorted(set(names))
    assert all(name[0].upper() == term.letter for name, term in zip(names, TERMS, strict=True))


def test_glossary_entries_are_complete() -> None:
    for term in TERMS:
        assert 3 <= len(term.definition.split()) <= 40, term.name
        assert term.definition.endswith((".", "sum.")), term.name
        assert term.thai
        assert term.portuguese
        assert not THAI.search(term.definition + term.portuguese)
        assert term.thai == unicodedata.normalize("NFC", term.thai)


def test_glossary_marks_foreign_words_for_screen_readers() -> None:
    for term in TERMS:
        assert bool(THAI.search(term.thai)) == bool(re.fullmatch(r'<span lang="th">[^<]+</span>', term.thai)), term.name
        assert "<" not in re.sub(r'^<span lang="pt">[^<]+</span>$', "", term.portuguese), term.name
    assert not THAI.search(re.sub(r'<span lang="th">.*?</span>', "", read("glossary")))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_term_is_used_where_its_link_leads(term: Term) -> None:
    path, _, anchor = term.target.partition("#")
    source = source_of((DOCS / path).resolve())
    text = sections_of(source)[anchor].text if anchor else prose_of(source)
    assert word_of(term) in plain(text)


# ---------------------------------------------------------------------------------------- instructors and contributing


def test_every_lesson_has_its_notes_and_asks_what_the_lesson_asks() -> None:
    notes = split(sections_of(DOCS / "instructors.md")["notes-for-each-lesson"].text)
    of_lessons = [section for section in notes.values() if section.rank == 3]
    assert len(of_lessons) == len(LESSONS)
    for section, (number, path) in zip(of_lessons, LESSONS.items(), strict=True):
        assert f"[{number} " in section.title
        assert re.findall(r"^- \*\*(\w+)[*:]", section.text, re.MULTILINE) == ["Ask", "Notice", "Shake", "Mind"]
        asked = re.search(r"\*\*Ask\*\* \(\[[^\]]*\]\([^)#]*#([^)]+)\)\)", section.text)
        assert asked
        assert "**Predict" in sections_of(path)[asked[1]].text


def test_instructors_read_the_limits_of_the_grading() -> None:
    limits, text = Limits(), read("instructors")
    assert f"{limits.cell:g} seconds a cell (`--timeout`), {limits.notebook:g} seconds (`--total`)" in text
    assert f"{limits.memory:g} GB (`--memory`)" in text


# -------------------------------------------------------------------------------------------------------------- colours

Matrix = NDArray[np.float64]

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
VISIONS: dict[str, Matrix] = {
    "full colour vision": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
TOLD_APART = 10.0  # CIEDE2000

each_vision = pytest.mark.parametrize("vision", VISIONS)


def linear(color: Any) -> Matrix:
    """sRGB, as ``#rrggbb`` or three numbers from 0 to 1, without its gamma."""
    if isinstance(color, str):
        color = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    rgb = np.asarray(color, dtype=float)[:3]
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(color: Any, vision: str) -> Matrix:
    """CIE L*a*b* (white point D65) of a colour as somebody with this vision sees it."""
    xyz = TO_XYZ @ np.clip(VISIONS[vision] @ linear(color), 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one: Matrix, other: Matrix) -> float:
    """Source: Sharma, Wu & Dalal 2005."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean_c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, stretch * a1)) % 360, np.degrees(np.arctan2(b2, stretch * a2)) % 360
    grey = c1 * c2 == 0
    turn = 0.0 if grey else (h2 - h1 + 180) % 360 - 180
    hue = h1 + h2 if grey else (h1 + turn / 2) % 360
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * np.cos(np.radians(hue - 30)) + 0.24 * np.cos(np.radians(2 * hue))
    t += 0.32 * np.cos(np.radians(3 * hue + 6)) - 0.20 * np.cos(np.radians(4 * hue - 63))
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    d_l, d_c = (l2 - l1) / s_l, (c2 - c1) / (1 + 0.045 * chroma)
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    rotation *= np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    return float(np.sqrt(d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""
    light = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(color)) for color in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_colour_distance_gives_the_published_values(one: Any, other: Any, distance: float) -> None:
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(distance, abs=1e-4)


@each_vision
def test_simulated_visions_keep_greys(vision: str) -> None:
    assert VISIONS[vision].sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert lab("#ffffff", vision) == pytest.approx([100, 0, 0], abs=0.05)


@each_vision
def test_any_two_colours_of_the_palette_are_told_apart(vision: str) -> None:
    seen = {name: lab(color, vision) for name, color in COLORS.items()}
    pairs = {pair: ciede2000(seen[pair[0]], seen[pair[1]]) for pair in itertools.combinations(COLORS, 2)}
    closest = min(pairs, key=lambda pair: pairs[pair])
    assert pairs[closest] >= TOLD_APART
    told = next(row for row in rows(read("accessibility"), "vision") if row[0].startswith(vision))
    assert told[1:] == [", ".join(closest), f"{pairs[closest]:.0f}"]


@each_vision
def test_training_and_validation_are_far_apart(vision: str) -> None:
    assert ciede2000(lab(TRAIN["color"], vision), lab(VAL["color"], vision)) > 40
    assert "stays above 40" in read("accessibility")
    assert TRAIN["linestyle"] != VAL["linestyle"]


@each_vision
def test_ordered_colours_rise_in_lightness(vision: str) -> None:
    assert SEQUENTIAL == "viridis"
    assert np.diff([lab(color, vision)[0] for color in sequence_colors(10)]).min() > 5


@each_vision
def test_signed_colours_have_opposite_ends(vision: str) -> None:
    import matplotlib as mpl

    colors = mpl.colormaps[DIVERGING]
    for share in (0.1, 0.25):
        assert ciede2000(lab(colors(share), vision), lab(colors(1 - share), vision)) > 30
    assert lab(colors(0.5), vision)[0] > 90


def test_no_two_variants_share_a_marker() -> None:
    assert len({style(index)["marker"] for index in range(len(COLORS))}) == len(COLORS)


def test_accessibility_states_each_contrast() -> None:
    table = rows(read("accessibility"), "swatch")
    assert [row[1:] for row in table] == [
        [f"{name} `{color}`", f"{contrast(color, '#ffffff'):.1f} : 1"] for name, color in COLORS.items()
    ]
    assert all(f"background:{color};" in row[0] for row, color in zip(table, COLORS.values(), strict=True))
    low = {name for name, color in COLORS.items() if contrast(color, "#ffffff") < 4.5}
    lowest = {name for name, color in COLORS.items() if contrast(color, "#ffffff") < 3}
    assert (low, lowest) == ({"orange", "green", "purple", "sky", "amber"}, {"sky", "amber"})


BOXES: list[Claim | Verdict] = [
    *(Claim("It falls", (number,), "<", 2, "this lesson") for number in (1.0, 3.0)),
    *(Verdict("1.1", status, "so", expected="1", got="2") for status in ("right", "wrong", "todo")),
]


@pytest.mark.parametrize("box", [str(box._repr_mimebundle_()["text/html"]) for box in BOXES])
def test_boxes_reach_contrast_aa(box: str) -> None:
    hexes = re.findall(r"(?<!border-left:4px solid )(?<!\w)(?:color|background):(#\w+)", box)
    (ground,) = set(re.findall(r"background:(#\w+)", box))
    texts = {color if len(color) == 7 else "#" + "".join(2 * digit for digit in color[1:]) for color in hexes} - {
        ground
    }
    assert texts
    assert min(contrast(color, ground) for color in texts) >= 4.5
