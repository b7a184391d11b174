"""Single files of npm packages, pinned by version and checksum: what the site's pages run in a reader's browser."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from _errors import SiteError

__all__ = ["AXE", "FONTS", "MATHJAX", "Package", "fetch"]


@dataclass(frozen=True)
class Package:
    """Files of one published npm package.

    Attributes:
        name: the package and its exact version, as ``npm pack`` wants it.
        files: SHA-256 in hexadecimal by the file's path in the package.
    """

    name: str
    files: Mapping[str, str]


# The whole of TeX in one file: the smaller ones load parts of themselves later. SVG output needs no fonts.
MATHJAX = Package(
    "mathjax@3.2.2",
    {"es5/tex-svg-full.js": "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"},
)
_FACES = {
    "latin-wght-normal": "382475f38242c52d42a3e5ff8dc69b5d73f10d0d21e4550b5fe232984688779a",
    "latin-wght-italic": "b4f56ddc9873487f1c9a3ad5bbce31982fe89b951f57e4604f62b4c8a540fb19",
    "greek-wght-normal": "54c4728aa0fd97d59b89b6d89b230065794b4c088c55efe71abc9ce882cfa853",
    "greek-wght-italic": "faf378c4d30f3c6b0e0f70df1d1981d29c984753ecf9ce149c7bb2ef27cd56b7",
}
# The face of the running text (SIL Open Font License, whose text goes with it).
FONTS = Package(
    "@fontsource-variable/source-serif-4@5.3.1",
    {
        "LICENSE": "18aabf190848725e2576eefb5c29ba06aac1029d02132252a7f312eac2e50cf3",
        **{f"files/source-serif-4-{face}.woff2": digest for face, digest in _FACES.items()},
    },
)
# The accessibility checks of `tests/browser`; no page of the site loads it.
AXE = Package("axe-core@4.14.1", {"axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"})


def fetch(package: Package, folder: Path) -> list[Path]:
    """Return the package's files, kept in ``folder``; what is there already is used again if its checksum is right.

    Raises:
        SiteError: npm is not installed, has no answer, or what it delivers has another checksum.
    """
    home = folder / package.name.replace("/", "-")
    kept = {file: home / file.rpartition("/")[2] for file in package.files}
    if all(path.is_file() and _sha256(path.read_bytes()) == package.files[file] for file, path in kept.items()):
        return list(kept.values())
    contents = _download(package)
    for file, content in contents.items():
        if (found := _sha256(content)) != package.files[file]:
            raise SiteError(f"{file} of {package.name} has SHA-256 {found}, expected {package.files[file]}")
    home.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        kept[file].write_bytes(content)
    return list(kept.values())


def _download(package: Package) -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise SiteError(
            f"the npm package {package.name} is needed and npm is not installed: install Node.js (on Debian and "
            "Ubuntu: apt-get install npm); it is used to download, nothing of it runs"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", package.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        packed = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not packed:
            raise SiteError(f"npm pack {package.name} failed: {done.stderr.strip() or 'no package came'}")
        with tarfile.open(packed[0]) as archive:
            return {file: _member(archive, file, package) for file in package.files}


def _member(archive: tarfile.TarFile, file: str, package: Package) -> bytes:
    try:
        member = archive.extractfile(f"package/{file}")
    except KeyError:
        member = None
    if member is None:
        raise SiteError(f"{package.name} has no file {file}")
    return member.read()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
