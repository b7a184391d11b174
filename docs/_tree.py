"""A folder of generated files: written only where something changed, cleared of what is no longer made."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Tree"]


class Tree:
    """A folder whose files this run makes.

    Sphinx and the file servers tell by a file's time whether it changed; so one that has the same content is left
    alone.

    Args:
        folder: where it is; made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: set[Path] = set()

    def write(self, name: str, content: str | bytes) -> bool:
        """Make a file, by its path in the folder, and return whether anything changed."""
        path = self.folder / name
        self._written.add(path)
        new = content.encode() if isinstance(content, str) else content
        if path.is_file() and path.read_bytes() == new:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(new)
        return True

    def prune(self) -> list[Path]:
        """Delete what earlier runs wrote and this one did not; return the files."""
        gone = [path for path in self.folder.rglob("*") if path.is_file() and path not in self._written]
        for path in gone:
            path.unlink()
        return gone
