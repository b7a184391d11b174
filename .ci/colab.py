"""Run the notebooks as Colab would: ``make colab``, or ``make colab LESSONS="01 hw3"``.

build/colab/venv has Colab's versions (colab-constraints.txt), and nothing of the course. Each notebook of the last
commit runs alone in an empty folder. Its own first cell installs the package, from a copy of this repository;
afterwards no package of Colab's may have changed, a kernel must still start, and all that came is removed again.
Not imitated: Colab's interface, and its many packages that are not on the list.
"""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.authoring.address import read_address
from course_utils.authoring.kernel import kernel_client
from course_utils.authoring.targets import BuildError, find_root

HERE = Path(__file__).resolve().parent
_OWN = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "MPLBACKEND"}


class ColabError(Exception):
    """Why the notebooks cannot be tried at all."""


class Pins(NamedTuple):
    """What Colab had: the day it was seen, its Python (``"3.13"``), and the version of each package."""

    seen: str
    python: str
    versions: dict[str, str]


def read_pins(text: str) -> Pins:
    """Return what the committed list says; a line that it cannot read is an error."""
    seen = re.search(r"Seen: (\d{4}-\d{2}-\d{2}), Python (\d+\.\d+)\.\d+\.", text)
    if seen is None:
        raise ColabError("colab-constraints.txt does not say when, and with which Python, it was seen")
    versions = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([\w-]+)==([\w.]+)", line):
            versions[normalized(match[1])] = match[2]
        elif line and not line.startswith("#"):
            raise ColabError(f"colab-constraints.txt: each line is NAME==VERSION, got {line!r}")
    return Pins(seen[1], seen[2], versions)


def normalized(name: str) -> str:
    """Return a package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run(*command: str | Path, what: str, cwd: Path | None = None) -> str:
    """Return what a command prints; if it fails, say what it was for and what it said."""
    try:
        done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, check=False)
    except FileNotFoundError:
        raise ColabError(f"{what} needs {command[0]}, and it is not there") from None
    if done.returncode:
        told = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ColabError(f"{what} failed:\n{told[-2000:]}")
    return done.stdout.decode()


def clean_environment() -> dict[str, str]:
    """Return the environment without what would let this interpreter's own packages show through."""
    return {name: value for name, value in os.environ.items() if name not in _OWN}


def find_python(wanted: str) -> str:
    """Return the interpreter to imitate Colab's with: ``COLAB_PYTHON``, or one of that version, or this one."""
    python = os.environ.get("COLAB_PYTHON") or shutil.which(f"python{wanted}") or sys.executable
    version = run(python, "--version", what="asking for Python's version").split()[1]
    if not version.startswith(f"{wanted}."):
        print(f"NOTE: this is Python {version}; Colab has {wanted}. COLAB_PYTHON=PATH chooses another.")
    return python


class Colab:
    """A virtual environment with Colab's versions, in ``folder``."""

    def __init__(self, folder: Path, pins: Pins) -> None:
        self.folder, self.pins = folder, pins
        self.mark = folder / ".ready"  # made last: what was interrupted has none
        self.python = folder / "bin" / "python"
        self.git: dict[str, str] = {}

    def make(self, base: str) -> None:
        """Make it, unless it is there and made from the same list by the same Python."""
        recipe = hashlib.sha256(repr((self.pins, base)).encode()).hexdigest()
        if not self.mark.is_file() or json.loads(self.mark.read_text())["recipe"] != recipe:
            print("making build/colab/venv (gigabytes, minutes) …", flush=True)
            run(base, "-m", "venv", "--clear", self.folder, what="making a virtual environment")
            wanted = [f"{name}=={version}" for name, version in self.pins.versions.items()]
            run(self.python, "-m", "pip", "install", "--quiet", *wanted, what="installing Colab's versions")
            self.mark.write_text(json.dumps({"recipe": recipe, "packages": self.packages()}))
        (packages,) = self.folder.glob("lib/python*/site-packages")
        shutil.copytree(HERE / "colab_standin" / "google", packages / "google", dirs_exist_ok=True)
        self.restore()  # an interrupted run may have left something

    def packages(self) -> dict[str, str]:
        """Return the version of every package in it."""
        listed = run(self.python, "-m", "pip", "list", "--format=json", what="listing the packages")
        return {normalized(entry["name"]): entry["version"] for entry in json.loads(listed)}

    def restore(self) -> None:
        """Take out what was installed since it was made, and put back what was replaced."""
        fresh, now = json.loads(self.mark.read_text())["packages"], self.packages()
        if came := sorted(set(now) - set(fresh)):
            run(self.python, "-m", "pip", "uninstall", "--quiet", "--yes", *came, what="removing packages")
        if lost := [f"{name}=={version}" for name, version in fresh.items() if now.get(name) != version]:
            run(self.python, "-m", "pip", "install", "--quiet", "--no-deps", *lost, what="putting packages back")

    def serve(self, root: Path) -> None:
        """Let git find in place of the repository's address a copy, which answers as GitHub does."""
        if run("git", "rev-parse", "--is-shallow-repository", what="asking git", cwd=root).strip() == "true":
            raise ColabError("this clone lacks history that git needs to serve it; run: git fetch --unshallow")
        place = self.folder.parent / "served.git"
        shutil.rmtree(place, ignore_errors=True)
        run("git", "clone", "--quiet", "--bare", root, place, what="copying the repository")
        run("git", "config", "uploadpack.allowFilter", "true", what="asking git", cwd=place)  # pip wants no history
        key = f"url.{place.as_uri()}.insteadOf"
        self.git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": read_address(root).url}

    def execute(self, notebook: Any, folder: str, *, stop: bool = True) -> str:
        """Run a notebook in place, in ``folder``, and return why it stopped (at the first error, if so); else ""."""
        colab = self

        class ColabKernel(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                return KernelSpec(argv=[str(colab.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"])

        with tempfile.TemporaryDirectory() as private:
            startup = Path(private, "profile_default", "startup")
            startup.mkdir(parents=True)
            shutil.copy(HERE / "colab_standin" / "startup.py", startup / "00-colab.py")
            own = self.git | {"IPYTHONDIR": private, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # else the debugger warns
            client = NotebookClient(
                notebook,
                km=ColabKernel(client_factory=kernel_client(), connection_file=str(Path(private, "kernel.json"))),
                timeout=600,
                startup_timeout=120,
                resources={"metadata": {"path": folder}},
                allow_errors=not stop,
            )
            try:
                client.execute(env=clean_environment() | own, cleanup_kc=True)
            except CellExecutionError as error:
                return f"{error.ename}: {error.evalue}"
            except (CellTimeoutError, DeadKernelError, RuntimeError) as error:  # the last: it does not start
                return f"{type(error).__name__}: {error}"
            return ""


def judge(notebook: Any, stopped: str, *, homework: bool) -> list[str]:
    """Return what is wrong with an executed notebook. A fresh homework stops where a stub stands, and only there."""
    if stopped or not homework:
        return [stopped] if stopped else []
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
    other = [error for error in errors if not error.startswith("NotImplementedError")]
    return other if errors else ["no stub stops it"]


def replaced(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return which packages have changed or gone."""
    return [f"{name} {had} → {after.get(name, 'gone')}" for name, had in before.items() if after.get(name) != had]


def try_notebook(colab: Colab, root: Path, path: str) -> list[str]:
    """Run one notebook of the last commit as a fresh Colab would, and return what is wrong."""
    before = colab.packages()
    text = run("git", "show", f"HEAD:{path}", what=f"reading {path}", cwd=root)
    notebook = nbformat.reads(text, as_version=4)
    # It fails when the first cell did not install the package, or when Colab's kernel no longer starts.
    again = new_notebook(cells=[new_code_cell("import course_utils")])
    homework = "/homework/" in path
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, Path(path).name).write_text(text, encoding="utf-8")
            stopped = colab.execute(notebook, folder, stop=not homework)
            wrong = judge(notebook, stopped, homework=homework) + replaced(before, colab.packages())
            if failed := colab.execute(again, folder):
                wrong.append(f"a kernel started afterwards: {failed}")
    finally:
        colab.restore()
    nbformat.write(notebook, colab.folder.parent / Path(path).name)
    return wrong


def choose(paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the lessons and the students' homework among a commit's files whose names begin with one of ``names``."""
    every = [path for path in paths if re.fullmatch(r"notebooks/(homework/)?[^/]+\.ipynb", path)]
    chosen = {name: [path for path in every if Path(path).name.startswith(name)] for name in names or [""]}
    if unknown := [name for name, found in chosen.items() if not found]:
        raise ColabError(f"no notebook begins with {unknown[0]!r}; there are: {', '.join(Path(p).stem for p in every)}")
    return sorted({path for found in chosen.values() for path in found})


def main(names: Sequence[str]) -> int:
    """Try the notebooks and return 0, 1 if one of them failed, 2 if they cannot be tried, 130 after Ctrl-C."""
    failures: list[str] = []
    try:
        root = find_root(HERE)
        pins = read_pins((HERE / "colab-constraints.txt").read_text(encoding="utf-8"))
        commit = run("git", "log", "-1", "--format=%h %s", what="finding the last commit", cwd=root).strip()
        paths = choose(run("git", "ls-tree", "-r", "--name-only", "HEAD", what="listing", cwd=root).splitlines(), names)
        print(f"Colab of {pins.seen}; commit {commit}")
        if run("git", "status", "--porcelain", what="asking git", cwd=root):
            print("NOTE: what is not committed is not tried.")
        colab = Colab(root / "build" / "colab" / "venv", pins)
        colab.make(find_python(pins.python))
        colab.serve(root)
        for path in paths:
            begin = time.perf_counter()
            wrong = try_notebook(colab, root, path)
            failures += [path] if wrong else []
            verdict = "FAILED: " + "; ".join(" ".join(text.split())[:300] for text in wrong) if wrong else "runs"
            print(f"{Path(path).stem:<32} {time.perf_counter() - begin:6.1f} s  {verdict}", flush=True)
    except (ColabError, BuildError) as error:
        print(f"colab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"{len(paths) - len(failures)} of {len(paths)} notebooks run; with their outputs in {colab.folder.parent}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
