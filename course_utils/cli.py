"""The ``course`` command: build notebooks, start a lesson, collect the claims, release and grade homework."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from course_utils.authoring.address import badge_row, bootstrap, find_changes, read_address
from course_utils.authoring.build import (
    BuildError,
    Target,
    build,
    find_root,
    homework_targets,
    is_stale,
    lesson_targets,
    write_proofs,
)

__all__ = ["collect_claims", "format_claims", "main", "new_lesson", "render_lesson"]

_LESSON_NAME = re.compile(r"[0-9]{2}_[a-z0-9_]+")

_COLUMNS = ("lesson", "claim", "measured", "bound", "source")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: what follows ``course`` on the command line; ``sys.argv`` when ``None``.

    Returns:
        0; 1 when a notebook failed, is stale or names another address, or a submission could not be graded; 2 when the
            command cannot be carried out; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an old Windows console knows neither ✔ nor ≥
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BuildError as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("course: interrupted; notebooks not yet reported are as they were", file=sys.stderr)
        return 130


def new_lesson(root: Path, name: str) -> Path:
    """Write the source of a new lesson and return its path.

    Args:
        root: the clone.
        name: two digits and words, e.g. ``09_transformers``.

    Raises:
        BuildError: the name does not fit, or the lesson exists.
    """
    text = render_lesson(root, name)
    path = root / "notebooks" / "source" / f"{name}.py"
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise BuildError(f"{path.relative_to(root).as_posix()} exists already; choose another name") from None
    return path


def render_lesson(root: Path, name: str) -> str:
    """Return the lesson template, filled in for ``name`` and the repository of the clone at ``root``.

    Raises:
        BuildError: the name does not fit, or the clone does not say where its repository is.
    """
    if not _LESSON_NAME.fullmatch(name):
        raise BuildError(f"a lesson's name is two digits, then words, as in 09_my_topic; got {name!r}")
    template = (
        resources.files("course_utils").joinpath("authoring", "templates", "lesson.py.txt").read_text(encoding="utf-8")
    )
    address = read_address(root)
    row = badge_row(address, f"notebooks/{name}.ipynb").replace("\n", "\n# ")
    values = {"number": str(int(name[:2])), "badges": row, "bootstrap": bootstrap(address)}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def collect_claims(notebooks: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the claims that executed notebooks show, in order, each as its JSON record plus ``lesson``."""
    from course_utils.claims import MIME_TYPE

    records = []
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if MIME_TYPE in output.get("data", {}):
                    records.append({"lesson": path.stem, **output["data"][MIME_TYPE]})
    return records


def format_claims(records: Sequence[dict[str, Any]], layout: str) -> str:
    """Return collected claims as a table.

    Args:
        records: from `collect_claims`.
        layout: ``"md"`` (a Markdown table), ``"csv"``, or ``"json"`` (the records with all their fields).
    """
    if layout == "json":
        return json.dumps(list(records), indent=1, ensure_ascii=False) + "\n"
    rows = [_COLUMNS, *map(_claim_row, records)]
    if layout == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()
    rows.insert(1, ("---",) * len(_COLUMNS))
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def _claim_row(record: dict[str, Any]) -> tuple[str, ...]:
    from course_utils.claims import Claim

    measured = tuple(float(value) for value in record["measured"])
    rest = record.get("unit", ""), record.get("over", "seeds")
    made = Claim(record["statement"], measured, record["op"], record["bound"], record["source"], *rest)
    return record["lesson"], made.statement, made.measured_text(), made.bound_text(), made.source


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="course", description="Tools for the authors of the course.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("build", help="execute the sources whose notebooks are stale")
    command.add_argument("names", nargs="*", metavar="NAME", help="a lesson, e.g. 01_unstable_gradients (default: all)")
    command.add_argument("--check", action="store_true", help="build nothing; name what is stale, exit 1 if any")
    command.add_argument("--force", action="store_true", help="build the fresh ones too")
    command.add_argument("--jobs", type=_positive, metavar="N", help="notebooks at the same time (default: all cores)")
    command.add_argument(
        "--timeout", type=_positive, default=300, metavar="S", help="seconds for a cell (default: 300)"
    )
    command.add_argument(
        "--proof", type=Path, metavar="DIR", help="write lessons with their solutions there, for nbval; execute nothing"
    )
    command.set_defaults(run=_run_build)

    command = commands.add_parser("new", help="start a lesson from the template")
    command.add_argument("name", metavar="NAME", help="two digits and words, e.g. 09_my_topic")
    command.set_defaults(run=_run_new)

    command = commands.add_parser("badges", help="write the repository's address wherever a notebook or page names it")
    command.add_argument("--check", action="store_true", help="write nothing; name what differs, exit 1 if any")
    command.set_defaults(run=_run_badges)

    command = commands.add_parser("claims", help="collect the claims of the executed notebooks in one table")
    command.add_argument("--format", choices=("md", "csv", "json"), default="md", help="default: md")
    command.add_argument("--write", type=Path, metavar="FILE", help="write the table there instead of printing it")
    command.set_defaults(run=_run_claims)

    command = commands.add_parser("release", help="make an nbgrader course directory, or renew its homework")
    command.add_argument("names", nargs="*", metavar="HOMEWORK", help="e.g. hw1_backpropagation (default: all)")
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="the course directory")
    command.set_defaults(run=_run_release)

    command = commands.add_parser("grade", help="grade what students handed in; runs their code: use a container")
    command.add_argument("course", type=Path, metavar="DIR", help="a course directory, from course release")
    command.add_argument("names", nargs="*", metavar="HOMEWORK", help="(default: all that somebody handed in)")
    command.add_argument(
        "--jobs", type=_positive, metavar="N", help="submissions at the same time (default: all cores)"
    )
    command.add_argument("--timeout", type=_positive, default=30, metavar="S", help="seconds for a cell (default: 30)")
    command.add_argument(
        "--total", type=_positive, default=300, metavar="S", help="seconds for a whole submission (default: 300)"
    )
    command.add_argument("--memory", type=_positive, default=4, metavar="GB", help="for a submission (default: 4)")
    command.set_defaults(run=_run_grade)

    command = commands.add_parser("info", help="print the versions that a bug report should carry")
    command.set_defaults(run=_run_info)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _run_build(options: argparse.Namespace) -> int:
    root = find_root()
    if options.proof:
        paths = write_proofs(_chosen(lesson_targets(root), options.names), options.proof)
        print(f"wrote {len(paths)} lessons with their solutions to {options.proof}")
        return 0
    targets = _chosen(lesson_targets(root) + homework_targets(root), options.names)
    width = max((len(target.name) for target in targets), default=0)
    if options.check:
        stale = [target.name for target in targets if is_stale(target)]
        print("".join(f"stale   {name}\n" for name in stale) or "all notebooks are fresh\n", end="")
        return 1 if stale else 0
    failed = False
    for outcome in build(targets, force=options.force, jobs=options.jobs, timeout=options.timeout):
        line = f"{outcome.status:<7} {outcome.target.name:<{width}} {outcome.seconds:6.1f} s"
        if outcome.status == "failed":
            failed = True
            details = "".join(f"\n        {text}" for text in outcome.message.splitlines())
            print(f"{line}{details}", file=sys.stderr, flush=True)
        else:
            print(f"{line} {outcome.size / 1000:7.0f} kB", flush=True)
    return 1 if failed else 0


def _chosen(targets: Sequence[Target], names: Sequence[str]) -> Sequence[Target]:
    if not names:
        return targets
    # A path typed with the shell's completion is as good as the name.
    wanted = {Path(name).stem for name in names}
    if unknown := wanted - {target.source.stem for target in targets}:
        known = ", ".join(dict.fromkeys(target.source.stem for target in targets)) or "none yet"
        raise BuildError(f"no such notebook: {', '.join(sorted(unknown))}; there are: {known}")
    return [target for target in targets if target.source.stem in wanted]


def _run_new(options: argparse.Namespace) -> int:
    root = find_root()
    path = new_lesson(root, options.name)
    print(f"wrote {path.relative_to(root).as_posix()}; execute it with: course build {options.name}")
    return 0


def _run_badges(options: argparse.Namespace) -> int:
    root = find_root()
    changes = find_changes(root)
    for path, text in changes.items():
        if not options.check:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{'differs' if options.check else 'written'} {path.relative_to(root).as_posix()}", flush=True)
    if not changes:
        print(f"everything names {read_address(root).url}")
    return 1 if options.check and changes else 0


def _run_claims(options: argparse.Namespace) -> int:
    table = format_claims(collect_claims(sorted((find_root() / "notebooks").glob("*.ipynb"))), options.format)
    if options.write:
        options.write.write_text(table, encoding="utf-8", newline="\n")
    else:
        print(table, end="")
    return 0


def _run_release(options: argparse.Namespace) -> int:
    from course_utils.grading import release

    for path in release(find_root(), options.to, [Path(name).stem for name in options.names]):
        print(f"released {path}")
    return 0


def _run_grade(options: argparse.Namespace) -> int:
    from course_utils.grading import Limits, grade

    def tell(line: str) -> None:
        print(line, flush=True)

    limits = Limits(cell=options.timeout, notebook=options.total, memory=options.memory)
    rows = grade(options.course, options.names, jobs=options.jobs, limits=limits, tell=tell)
    print(f"{len(rows)} submissions; read {options.course / 'report' / 'summary.md'}")
    return 1 if any(row.status == "failed" for row in rows) else 0


def _run_info(options: argparse.Namespace) -> int:
    from course_utils.reproducibility import environment_report

    print(environment_report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
