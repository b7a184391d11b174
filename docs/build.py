"""Builds the reading site in ``build/site/html`` from the executed notebooks, the pages here and the docstrings.

Nothing is executed. Pages are first assembled in ``build/site/source`` as Sphinx will read them, then Sphinx runs; a
second run does only what has changed. Any warning is an error::

    python docs/build.py            # the site
    python docs/build.py --draft    # warns where notebooks are stale or pages missing, and goes on
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _notebooks
import _pages
from _errors import SiteError
from _links import Addresses
from _npm import FONTS, MATHJAX, fetch
from _tree import Tree

from course_utils.authoring.address import read_address
from course_utils.authoring.build import is_stale, read_source
from course_utils.authoring.targets import BuildError, find_root, homework_targets, lesson_targets
from course_utils.cli import collect_claims

# What a finished site has beside the notebooks; in the order of the table of contents.
_COURSE_PAGES = ("syllabus", "claims", "errata", "glossary")
_PROJECT_PAGES = ("instructors", "contributing", "accessibility", "changelog")
# The figure that stands on a lesson's card, by words of its description; the first figure where they are not found.
_CARDS = {
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; return 0, 1 if Sphinx found something wrong, 2 if it could not even start."""
    parser = argparse.ArgumentParser(description="Build the reading site in build/site/html.")
    parser.add_argument("--draft", action="store_true", help="go on where notebooks are stale or pages are missing")
    parser.add_argument("--clean", action="store_true", help="forget what earlier runs have made")
    options = parser.parse_args(arguments)
    try:
        root = find_root(Path(__file__).parent)
        site = Site(root, draft=options.draft)
        if options.clean:
            shutil.rmtree(site.folder, ignore_errors=True)
        return site.build()
    except (SiteError, BuildError) as error:
        print(f"site: {error}", file=sys.stderr)
        return 2


@dataclass
class Site:
    """One building of the site.

    Attributes:
        root: the clone.
        draft: whether a stale notebook or a missing page is only told.
        figures: pictures of each notebook, by its file in the repository.
        links: where each notebook can be opened, by its file in the repository.
    """

    root: Path
    draft: bool = False
    figures: dict[str, list[_notebooks.Figure]] = field(default_factory=dict)
    links: dict[str, list[_notebooks.Link]] = field(default_factory=dict)
    _about: dict[str, dict[str, Any]] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.folder = self.root / "build" / "site"
        self.source = Tree(self.folder / "source")
        self.extra, self.static = Tree(self.folder / "extra"), Tree(self.folder / "static")
        self.repository = read_address(self.root).url
        lessons, homework = lesson_targets(self.root), homework_targets(self.root)
        self.targets = lessons + homework
        self.addresses = Addresses(self.root, self.repository, self._places(), lenient=self.draft)
        self.entries = _pages.read_entries(self._read("README.md"))

    def build(self) -> int:
        """Assemble the pages, then run Sphinx; return its exit code."""
        self._say("from npm", self._fetch_packages())
        self._check_fresh()
        self._say("notebooks", self._write_notebooks())
        self._say("pages", self._write_pages())
        gone = [path for tree in (self.source, self.extra, self.static) for path in tree.prune()]
        recipe = (self.root / "docs" / "conf.py").read_bytes()
        if Tree(self.folder).write("conf.py", recipe) or gone:
            # Sphinx forgets pages that are gone, and those of an extension that is gone, but leaves their HTML.
            shutil.rmtree(self.folder / "html", ignore_errors=True)
            shutil.rmtree(self.folder / "doctrees", ignore_errors=True)
        status = self._run_sphinx()
        self._say("Sphinx", "FAILED, see above" if status else "build/site/html/index.html")
        return status

    def _say(self, step: str, what: str) -> None:
        print(f"{step:<10} {what:<60} {time.perf_counter() - self._started:5.1f} s", flush=True)

    def _warn_or_stop(self, message: str) -> None:
        if not self.draft:
            raise SiteError(message)
        print(f"site: {message}", file=sys.stderr)

    def _fetch_packages(self) -> str:
        for name, package in (("mathjax", MATHJAX), ("fonts", FONTS)):
            for file in fetch(package, self.root / "build" / "npm"):
                self.static.write(f"{name}/{file.name}", file.read_bytes())
        return f"{MATHJAX.name}, {FONTS.name}"

    def _check_fresh(self) -> None:
        stale = [target.name for target in self.targets if is_stale(target)]
        if stale:
            self._warn_or_stop(f"stale: {', '.join(stale)}; run: course build")
        missing = [target.output for target in self.targets if not target.output.is_file()]
        if missing:
            raise SiteError(f"no {missing[0].relative_to(self.root).as_posix()}; run: course build")

    def _write_notebooks(self) -> str:
        import nbformat

        folds = 0
        for target in self.targets:
            file = self._file(target.output)
            notebook = nbformat.read(target.output, as_version=4)  # type: ignore[no-untyped-call]
            solved = target.kind == "solution"
            name = target.name.replace("/", "-")
            above = "../" * file.count("/")
            treated = _notebooks.treat(
                notebook,
                figures=f"{above}figures/{name}",
                links=[_notebooks.Link("Open in Colab", self._colab(file.replace("/solutions/", "/")))],
                source=read_source(target.source) if target.kind == "lesson" else None,
                solved=solved,
            )
            if solved:
                _notebooks.retitle(notebook, "Homework ", "Homework, solved: ")
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = self.addresses.rewrite(cell.source, file=file, page=self.addresses.pages[file])
            row = [*treated.links, _notebooks.Link("Download", target.output.name)]
            if target.kind == "homework":
                row.append(_notebooks.Link("Solved version", f"solutions/{target.source.stem}.html"))
            elif solved:
                row.append(_notebooks.Link("Without the solutions", f"../{target.source.stem}.html"))
            _notebooks.insert_after_title(notebook, _notebooks.launch_row(row))
            self.source.write(file, nbformat.writes(notebook))  # type: ignore[no-untyped-call]
            self.extra.write(file, target.output.read_bytes())
            for figure in treated.figures:
                self.extra.write(f"figures/{name}/{figure.name}", figure.png)
            self.figures[file], self.links[file] = treated.figures, treated.links
            self._tell_about(file, self._file(target.source), treated.links)
            folds += treated.folds
        count = sum(map(len, self.figures.values()))
        return f"{len(self.targets)}, with {count} figures and {folds} folded solutions"

    def _write_pages(self) -> str:
        generated: dict[str, Callable[[], str]] = {
            "docs/index.md": self._front_page,
            "docs/claims.md": self._claims_page,
            "notebooks/homework/solutions": lambda: _pages.solved_page(self._homework()),
        }
        for file, page in self.addresses.pages.items():
            if file.endswith(".ipynb") or file in ("README.md", "data"):  # the front page, the cards
                continue
            text = generated[file]() if file in generated else self._read(file)
            if page.endswith(".md") and file not in generated:
                text = self.addresses.rewrite(text, file=file, page=page)
            if page == "data/index.md":
                cards = sorted(page for file, page in self.addresses.pages.items() if file.startswith("data/"))
                names = [Path(card).stem for card in cards if card != page]
                text += "\n" + _toctree(names, "hidden")
            self.source.write(page, text)
            if (self.root / file).is_file():
                self._tell_about(file, file, [])
        about = json.dumps({"repository": self.repository, "pages": self._about}, indent=1, sort_keys=True)
        Tree(self.folder).write("about.json", about)
        return str(len(set(self.addresses.pages.values())) - len(self.targets))

    def _front_page(self) -> str:
        text = self.addresses.rewrite(self._read("docs/index.md"), file="docs/index.md", page="index.md")
        pictures = {}
        for entry in self._lessons():
            words = _CARDS.get(entry.number, "")
            if figures := self.figures[entry.file]:
                chosen = next((figure for figure in figures if words in figure.alt), figures[0])
                place = f"figures/{Path(entry.file).stem}/card.png"
                self.extra.write(place, _pages.thumbnail(chosen.png))
                pictures[entry.file] = place
        homework = _pages.homework_list(self._homework())
        homework = self.addresses.rewrite(homework, file="README.md", page="index.md")
        parts = {
            "lessons": _pages.lesson_cards(self._lessons(), pictures),
            "homework": homework,
            "contents": self._contents(),
        }
        for name, part in parts.items():
            mark = f"<!-- {name} -->"
            if mark not in text:
                raise SiteError(f"docs/index.md has no line {mark}")
            text = text.replace(mark, part)
        return text

    def _contents(self) -> str:
        """The tables of contents of the side bar."""
        known = {page.rpartition(".")[0] for page in self.addresses.pages.values()}
        if missing := [page for page in (*_COURSE_PAGES, *_PROJECT_PAGES, "api/index") if page not in known]:
            self._warn_or_stop(f"missing in docs: {', '.join(missing)}")
        lessons = [f"{entry.number} {entry.title} <{entry.file.removesuffix('.ipynb')}>" for entry in self._lessons()]
        homework = [f"{entry.number} {entry.title} <{entry.file.removesuffix('.ipynb')}>" for entry in self._homework()]
        homework.append("Solved <notebooks/homework/solved>")
        groups: dict[str, list[str]] = {
            "The course": [page for page in _COURSE_PAGES if page in known],
            "Lessons": lessons,
            "Homework": homework,
            "Reference": [page for page in ("data/index", "api/index") if page in known],
            "The project": [page for page in _PROJECT_PAGES if page in known],
        }
        return "\n".join(_toctree(entries, "hidden", f"caption: {caption}") for caption, entries in groups.items())

    def _claims_page(self) -> str:
        lessons = [target.output for target in self.targets if target.kind == "lesson"]
        return _pages.claims_page(collect_claims(lessons), self._lessons())

    def _lessons(self) -> list[_pages.Entry]:
        found = [entry for entry in self.entries if "/homework/" not in entry.file]
        return [
            _pages.Entry(entry.number, entry.title, entry.file, entry.words, self.links[entry.file])
            for entry in self._complete(found, "lesson")
        ]

    def _homework(self) -> list[_pages.Entry]:
        return self._complete([entry for entry in self.entries if "/homework/" in entry.file], "homework")

    def _complete(self, found: list[_pages.Entry], kind: str) -> list[_pages.Entry]:
        listed = {entry.file for entry in found}
        there = {self._file(target.output) for target in self.targets if target.kind == kind}
        if listed != there:
            differ = ", ".join(sorted(listed ^ there))
            raise SiteError(f"the README's table and the notebooks differ in: {differ}")
        return found

    def _places(self) -> dict[str, str]:
        """Which file of the site's source tree shows which file of the repository."""
        places = {self._file(target.output): self._file(target.output) for target in self.targets}
        docs = self.root / "docs"
        for path in sorted(docs.rglob("*")):
            if path.suffix in (".md", ".rst") and path.is_file():
                places[self._file(path)] = path.relative_to(docs).as_posix()
        for card in sorted((self.root / "data").glob("*/README.md")):
            places[self._file(card)] = f"data/{card.parent.name}.md"
        places |= {
            "README.md": "index.md",
            "CHANGELOG.md": "changelog.md",
            "data/README.md": "data/index.md",
            "data": "data/index.md",
            "docs/claims.md": "claims.md",
            "notebooks/homework/solutions": "notebooks/homework/solved.md",
        }
        return places

    def _tell_about(self, file: str, editable: str, links: list[_notebooks.Link]) -> None:
        page = self.addresses.pages[file].rpartition(".")[0]
        self._about[page] = {
            "source": self.addresses.file_url(editable),
            "edit": f"{self.repository}/edit/{self.addresses.branch}/{editable}",
            "links": [[link.text, link.url] for link in links],
        }

    def _colab(self, file: str) -> str:
        name = self.repository.removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{name}/blob/{self.addresses.branch}/{file}"

    def _file(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _read(self, file: str) -> str:
        return (self.root / file).read_text(encoding="utf-8")

    def _run_sphinx(self) -> int:
        try:
            from sphinx.cmd.build import build_main
        except ImportError:
            raise SiteError('Sphinx is not installed; run: pip install -c constraints.txt -e ".[site]"') from None
        folders = [str(self.folder / "source"), str(self.folder / "html")]
        flags = ["-b", "html", "-c", str(self.root / "docs"), "-d", str(self.folder / "doctrees"), "-q"]
        strict = [] if self.draft else ["-W", "--keep-going"]
        return int(build_main([*flags, *strict, "-n", "-j", str(os.cpu_count() or 1), *folders]))


def _toctree(entries: Sequence[str], *options: str) -> str:
    lines = ["```{toctree}", *(f":{option}" if ":" in option else f":{option}:" for option in options), ""]
    return "\n".join([*lines, *entries, "```", ""])


if __name__ == "__main__":
    sys.exit(main())
