"""Which notebooks there are, what each is made from, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["BuildError", "Target", "find_root", "homework_targets", "lesson_targets"]

_SOURCES = Path("notebooks", "source")


class BuildError(Exception):
    """Something the author of a notebook has to mend; the message says what and where."""


@dataclass(frozen=True)
class Target:
    """One notebook: the text it is made from, and the file it becomes.

    Attributes:
        name: what the command line calls it.
        source: the text.
        output: the file.
        kind: ``"lesson"`` is executed with its exercises as stubs, ``"homework"`` is what students get, with stubs
            and without outputs, ``"solution"`` its twin, executed with the solutions.
    """

    name: str
    source: Path
    output: Path
    kind: str = "lesson"


def find_root(start: Path | None = None) -> Path:
    """Return the closest folder from ``start`` (default: the current one) upward that is a clone of the course.

    Raises:
        BuildError: there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and (folder / _SOURCES).is_dir():
            return folder
    raise BuildError(
        f"no clone of the course at or above {start}: looked for pyproject.toml beside {_SOURCES.as_posix()}"
    )


def lesson_targets(root: Path) -> list[Target]:
    """Return the lessons of the clone at ``root``, in order of their names."""
    sources = sorted((root / _SOURCES).glob("*.py"))
    return [Target(path.stem, path, root / "notebooks" / f"{path.stem}.ipynb") for path in sources]


def homework_targets(root: Path) -> list[Target]:
    """Return the homework of the clone at ``root``: what students get, and its solved twin, in order of their names."""
    folder = root / "notebooks" / "homework"
    targets = []
    for path in sorted((root / _SOURCES / "homework").glob("*.py")):
        targets.append(Target(path.stem, path, folder / f"{path.stem}.ipynb", "homework"))
        targets.append(Target(f"solutions/{path.stem}", path, folder / "solutions" / f"{path.stem}.ipynb", "solution"))
    return targets
